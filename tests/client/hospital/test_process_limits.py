"""Limits hold in a real process, which lives on when it is denied memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from consilium.client.hospital.process_limits import lacks_memory

ROOT = Path(__file__).resolve().parents[3]


def run_limited(policy: str, program: str) -> str:
    """Output of a program in a process of its own under this policy."""
    head = (
        "import os, sys, numpy as np\n"
        "from consilium.client.hospital.policy import Policy\n"
        "from consilium.client.hospital.process_limits import (\n"
        "    apply_limits, lacks_memory, limit_pytorch)\n"
        f"policy = {policy}\n"
        "apply_limits(policy)\n"
        "assert 'torch' not in sys.modules\n"
        "limit_pytorch(policy)\n"
        "import torch\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", head + program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return ran.stdout


@pytest.mark.slow
def test_threads_are_those_of_the_policy_here_and_in_child_processes():
    told = run_limited(
        "Policy(threads=2)",
        "print(torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])",
    )
    assert told.split() == ["2", "2"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is bounded on Linux only")
def test_memory_beyond_the_bound_is_refused_and_the_process_lives():
    demands = ("torch.zeros(400_000_000)", "np.ones(200_000_000)", "b'x' * 1_600_000_000")
    told = run_limited(
        "Policy(memory_mib=1024)",
        "".join(
            f"try:\n    {demand}\n"
            "except BaseException as error:\n    print(lacks_memory(error))\n"
            "print(float(torch.ones(1_000_000).sum()))\n"
            for demand in demands
        ),
    )
    lines = told.strip().splitlines()
    assert len(lines) == 2 * len(demands)
    for refusal, after in zip(lines[::2], lines[1::2], strict=True):
        assert refusal == "True"
        assert after == "1000000.0"


@pytest.mark.slow
def test_memory_within_the_bound_is_granted():
    told = run_limited("Policy(memory_mib=2048)", "print(torch.ones(100_000_000).numel())")
    assert told.strip() == "100000000"


@pytest.mark.slow
def test_graphics_cards_are_hidden_unless_allowed():
    program = (
        "print(os.environ.get('CUDA_VISIBLE_DEVICES', 'untouched'), torch.cuda.is_available())"
    )
    assert run_limited("Policy(gpu=False)", program).split() == ["False"]
    assert "untouched" in run_limited("Policy(gpu=True)", program)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not lacks_memory(RuntimeError("a defect"))
    assert not lacks_memory(ValueError("can't allocate memory"))
