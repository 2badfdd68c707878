"""Products of rows with a matrix in which no row's numbers depend on the other rows.

A BLAS may add up a row's terms in another order when the number of rows or their place in memory
changes. With ordinary weights that moves a last digit. With weights made for it, whose terms
cancel, it changes what is left, for rows that have nothing to do with the change.
"""

import ctypes
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from consilium.shared.kernels import through_time
from consilium.shared.kernels.build import load_kernel
from consilium.shared.kernels.exact_product import SplitWeight, exact_product

Factor = Tensor | SplitWeight


def prepared(weight_IO: Tensor) -> Factor:
    """Return the weight in the form that serves many calls of :func:`multiply_rows`."""
    single = weight_IO.dtype is torch.float32 and weight_IO.numel() > 0
    if single and not through_time.serves(weight_IO):
        return SplitWeight.of(weight_IO)
    return weight_IO


def multiply_rows(x: Tensor, weight: Factor, bias_O: Tensor | None = None) -> Tensor:
    """Return x (..., I) times the weight (I, O), plus bias: (..., O).

    Guarantee: a row of the result is a function of the row of ``x``, weight and bias, to the last
    bit. In single precision the compiled kernel sees to it, or where it does not serve, as on a
    graphics card, :mod:`consilium.shared.kernels.exact_product`. In double precision it is a sum
    over the inputs, one after the other: slow.
    """
    inputs = x.shape[-1]
    rows_NI = x.detach().reshape(-1, inputs).contiguous()
    if isinstance(weight, Tensor):
        weight = prepared(weight)
    if isinstance(weight, SplitWeight):
        product = exact_product(rows_NI, weight, bias_O)
        return product.view(*x.shape[:-1], product.shape[1])
    weight_IO, outputs = weight.detach(), weight.shape[1]
    if not through_time.serves(rows_NI):
        total_NO = rows_NI.new_zeros(len(rows_NI), outputs)
        for k in range(inputs):  # products and sums of two numbers are the same wherever they stand
            total_NO += rows_NI[:, k : k + 1] * weight_IO[k]
        total_NO = total_NO if bias_O is None else total_NO + bias_O.detach()
        return total_NO.view(*x.shape[:-1], outputs)
    found = rows_NI.new_empty(len(rows_NI), outputs)
    bias_O = None if bias_O is None else bias_O.detach().contiguous()
    sizes = len(rows_NI), inputs, weight_IO.data_ptr(), *weight_IO.stride()
    bias = None if bias_O is None else bias_O.data_ptr()
    if _compiled()(rows_NI.data_ptr(), *sizes, bias, outputs, found.data_ptr()):
        raise through_time.KernelMemoryError(
            "the kernel found no memory for a product; use smaller batches"
        )
    return found.view(*x.shape[:-1], outputs)


@cache
def _compiled() -> Callable[..., int]:
    """The kernel's function for this CPU."""
    library, status = load_kernel()
    function = getattr(library, f"multiply_rows_{status.variant}")
    pointer, number = ctypes.c_void_p, ctypes.c_long
    function.restype = ctypes.c_int
    function.argtypes = [pointer, number, number, pointer, number, number, pointer, number, pointer]
    return function  # type: ignore[no-any-return]  # ctypes leaves its functions untyped
