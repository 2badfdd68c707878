"""The compiled kernel against plain PyTorch, and what happens when it cannot be had."""

import ctypes
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import cells
from shared.kernels import build, through_time

ROOT = Path(__file__).resolve().parents[3]
CELLS = ("rnn", "lstm", "gru")
needs_kernel = pytest.mark.skipif(
    build.kernel_status().variant is None, reason=build.kernel_status().sentence
)


def case(cell: str, steps: int, rows: int, inputs: int, hidden: int, seed: int, holes: bool):
    generator = torch.Generator().manual_seed(seed)
    gates = cells.GATES[cell] * hidden
    shapes = ((gates, inputs), (gates, hidden), (gates,), (gates,))
    weights = cells.Weights(*(torch.randn(s, generator=generator) / 2 for s in shapes))
    x = torch.randn(steps, rows, inputs, generator=generator)
    keep = None
    if holes:
        keep = (torch.rand(steps, rows, 1, generator=generator) < 0.7).float()
    return x, weights, keep, torch.randn(steps, rows, hidden, generator=generator)


def both_ways(cell, x, weights, keep, grad):
    trace = cells.forward(cell, x, weights, keep)
    states = trace.states_SNH.clone()
    return states, cells.backward(cell, trace, weights, keep, grad)


def in_double(cell, x, weights, keep, grad):
    wide = cells.Weights(*(part.double() for part in vars(weights).values()))
    keep = None if keep is None else keep.double()
    return both_ways(cell, x.double(), wide, keep, grad.double())


def assert_close(found, expected):
    scale = expected.abs().max().clamp(min=1e-3)
    assert (found.double() - expected).abs().max() <= 2e-5 * scale


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(
    cell=st.sampled_from(CELLS),
    steps=st.integers(1, 12),
    rows=st.integers(1, 15),
    hidden=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    holes=st.booleans(),
)
def test_the_kernel_equals_plain_pytorch_in_double_precision(
    cell, steps, rows, hidden, seed, holes
):
    arguments = case(cell, steps, rows, 3, hidden, seed, holes)
    assert through_time.serves(arguments[0])
    states, deltas = both_ways(cell, *arguments)
    expected_states, expected = in_double(cell, *arguments)
    assert_close(states, expected_states)
    assert_close(deltas.input_TNG, expected.input_TNG)
    assert_close(deltas.hidden_TNG, expected.hidden_TNG)


@needs_kernel
@pytest.mark.parametrize(("cell", "variant"), [*itertools.product(CELLS, build.VARIANTS)])
def test_every_variant_this_processor_has_gives_the_same(cell, variant, monkeypatch):
    library, status = build.load_kernel()
    if build.VARIANTS.index(variant) > build.VARIANTS.index(status.variant):
        pytest.skip(f"this processor has no {variant}")
    arguments = case(cell, 9, 13, 5, 21, 1, True)
    expected_states, expected = in_double(cell, *arguments)

    def function(name: str, pointers: int):
        found = library[f"{name}_{variant}"]
        found.argtypes = [ctypes.c_int, *[ctypes.c_long] * 5, *[ctypes.c_void_p] * pointers]
        return found

    monkeypatch.setattr(through_time, "_function", function)
    states, deltas = both_ways(cell, *arguments)
    assert_close(states, expected_states)
    assert_close(deltas.hidden_TNG, expected.hidden_TNG)


@needs_kernel
@pytest.mark.parametrize("cell", CELLS)
def test_the_number_of_threads_does_not_change_a_bit(cell, monkeypatch):
    arguments = case(cell, 8, 37, 5, 24, 2, True)
    alone_states, alone = both_ways(cell, *arguments)
    monkeypatch.setattr(through_time, "THREAD_PRODUCTS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    states, deltas = both_ways(cell, *arguments)
    assert torch.equal(states, alone_states)
    assert torch.equal(deltas.input_TNG, alone.input_TNG)


@needs_kernel
@pytest.mark.parametrize("cell", CELLS)
def test_saturated_gates_stay_finite(cell):
    x, weights, keep, grad = case(cell, 4, 3, 5, 6, 3, False)
    states, deltas = both_ways(cell, 1e4 * x, weights, keep, grad)
    assert torch.isfinite(states).all()
    assert states.abs().max() <= 1
    assert torch.isfinite(deltas.input_TNG).all()


@needs_kernel
@pytest.mark.parametrize("cell", CELLS)
def test_what_is_not_a_number_stays_so(cell):
    x, weights, keep, grad = case(cell, 4, 3, 5, 6, 3, False)
    x[1, 1, 0] = torch.nan
    states, _ = both_ways(cell, x, weights, keep, grad)
    assert torch.isnan(states[-1, 1]).any()
    assert torch.isfinite(states[:, 0]).all()


def test_double_precision_runs_in_plain_pytorch():
    assert not through_time.serves(torch.zeros(1, dtype=torch.float64))


STATUS = """
import torch
from shared.kernels.build import kernel_status
from shared.recurrent import LSTM
print(kernel_status())
LSTM(3, 4)(torch.zeros(2, 5, 3)).sum().backward()
"""


def status_with(**environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", STATUS],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_it_can_be_turned_off(tmp_path):
    assert "CONSILIUM_KERNEL is off" in status_with(CONSILIUM_KERNEL="off")


def test_without_a_compiler_everything_still_works(tmp_path):
    said = status_with(XDG_CACHE_HOME=str(tmp_path), PATH=str(tmp_path), CC="nowhere")
    assert "variant=None" in said
    assert "no C compiler" in said


def test_a_failing_compiler_is_reported_and_everything_still_works(tmp_path):
    said = status_with(XDG_CACHE_HOME=str(tmp_path), CC="/bin/false")
    assert "plain PyTorch" in said


@pytest.mark.slow
@needs_kernel
def test_a_library_that_others_could_have_written_is_built_anew(tmp_path):
    first = status_with(XDG_CACHE_HOME=str(tmp_path))
    assert str(tmp_path) in first or "shared/kernels/through_time" in first
    for built in (tmp_path / "consilium").glob("*.so"):
        built.write_bytes(b"not a library")
        built.chmod(0o666)
        assert "variant=None" not in status_with(XDG_CACHE_HOME=str(tmp_path))
        assert built.stat().st_mode & 0o022 == 0
