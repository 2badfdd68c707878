"""Limits on what the site's process may use of its machine, enforced on the process itself.

The command that starts the site calls :func:`apply_limits` once, before anything else: a graphics
card already in use cannot be hidden any more, and existing threads stay. PyTorch is imported when a
study first needs it; :func:`limit_pytorch` then sets what it does not read from the environment.
"""

import os
import resource
import sys

from consilium.client.hospital.policy import Policy
from consilium.shared.errors import SettingsError

MIB = 1 << 20
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def apply_limits(policy: Policy) -> None:
    """Apply the policy's limits to this process and to every process that it starts.

    - Threads: of every numerical library that is imported from now on, here or in processes that
      it starts. (Masking takes ``policy.threads`` as an argument.)
    - Memory: what the process can write to (heap, arrays, stacks; Linux's ``RLIMIT_DATA``). Mapped
      program files (some 500 MiB, shared among processes) do not count.
    - Graphics card: hidden from the CUDA and ROCm runtimes unless allowed.

    Raises:
        SettingsError: a limit cannot be enforced on this machine.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = str(policy.threads)
    if not policy.gpu:
        for name in GPU_VARIABLES:
            os.environ[name] = ""
    if policy.memory_mib is not None:
        _bound_memory(policy.memory_mib)


def limit_pytorch(policy: Policy) -> None:
    """Import PyTorch, and let each operation of it use the policy's threads and no graphics card.

    Raises:
        SettingsError: this process has used the graphics card before :func:`apply_limits`.
    """
    import torch

    torch.set_num_threads(policy.threads)
    if not policy.gpu and torch.cuda.is_available():
        raise SettingsError(
            "[machine] gpu = false cannot be kept: this process has used the graphics card "
            "already; start the site by 'consilium-site start'"
        )


def lacks_memory(error: BaseException) -> bool:
    """Return whether the error means that the allowed memory did not suffice."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _bound_memory(memory_mib: int) -> None:
    if not sys.platform.startswith("linux"):
        raise SettingsError(
            f"[machine] memory_mib = {memory_mib} cannot be kept on {sys.platform}; remove it, and "
            "bound the service by the system's own means"
        )
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = memory_mib * MIB
    if hard != resource.RLIM_INFINITY:
        bound = min(bound, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
