"""Call the compiled kernel on PyTorch's tensors; the library holds no state and the GIL is free.

Legend as in :mod:`shared.cells`: T time, N rows, H hidden units, G gate rows.
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from shared.kernels.build import load_kernel

CODES = {"rnn": 0, "lstm": 1, "gru": 2}
THREAD_PRODUCTS = (
    20_000_000  # multiplications below which a second thread costs more than it brings
)


class KernelMemoryError(MemoryError):
    """The kernel could not get its working memory."""


@cache
def _function(name: str, pointers: int) -> Callable[..., int] | None:
    """The kernel's function for this CPU: cell, first, last, N, T, H, then pointers."""
    library, status = load_kernel()
    if library is None:
        return None
    function = getattr(library, f"{name}_{status.variant}")
    function.argtypes = [ctypes.c_int, *[ctypes.c_long] * 5, *[ctypes.c_void_p] * pointers]
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]  # ctypes leaves its functions untyped


def serves(tensor: Tensor) -> bool:
    """Whether the kernel is there and can work on such a tensor: float32 on the CPU."""
    return (
        tensor.dtype is torch.float32
        and tensor.device.type == "cpu"
        and _function("forward", 7) is not None
    )


def run_forward(
    cell: str,
    hidden_GH: Tensor,
    input_bias_G: Tensor,
    hidden_bias_G: Tensor,
    keep_TN1: Tensor | None,
    gates_TNG: Tensor,
    states_SNH: Tensor,
    beside: Tensor,
) -> None:
    """Turn projections without bias into activated gates, in place; fill states and ``beside``."""
    arrays = (hidden_GH, input_bias_G, hidden_bias_G, keep_TN1, gates_TNG, states_SNH, beside)
    _run(_function("forward", 7), cell, gates_TNG, hidden_GH, arrays)


def run_backward(
    cell: str,
    hidden_GH: Tensor,
    keep_TN1: Tensor | None,
    grad_TNH: Tensor,
    gates_TNG: Tensor,
    states_SNH: Tensor,
    beside: Tensor,
    hidden_deltas_TNG: Tensor | None,
) -> None:
    """Turn activated gates in ``gates_TNG`` into deltas, and fill the GRU's hidden deltas."""
    arrays = (hidden_GH, keep_TN1, grad_TNH, gates_TNG, states_SNH, beside, hidden_deltas_TNG)
    _run(_function("backward", 7), cell, gates_TNG, hidden_GH, arrays)


def _run(
    function: Callable[..., int] | None,
    cell: str,
    gates_TNG: Tensor,
    hidden_GH: Tensor,
    arrays: tuple[Tensor | None, ...],
) -> None:
    """Split the rows among threads; every row's result is the same whatever the split."""
    assert function is not None, "asked without serves()"  # noqa: S101 - a defect, not a user's
    for array in arrays:
        assert array is None or array.is_contiguous(), "a strided array"  # noqa: S101 - likewise
    steps, rows, _ = gates_TNG.shape
    pointers = [None if array is None else array.data_ptr() for array in arrays]

    def work(first: int, last: int) -> int:
        hidden = hidden_GH.shape[1]
        return function(CODES[cell], first, last, rows, steps, hidden, *pointers)

    products = steps * rows * hidden_GH.numel()
    threads = max(1, min(torch.get_num_threads(), rows, products // THREAD_PRODUCTS))
    if threads == 1:
        failures = [work(0, rows)]
    else:
        edges = [rows * i // threads for i in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            failures = list(pool.map(work, edges[:-1], edges[1:]))
    if any(failures):
        raise KernelMemoryError("the recurrent kernel found no memory; use smaller batches")
