"""The decisions behind discrete noise that floating point makes with certainty, compiled.

E = -ln U of the uniform real U that begins with a 64-bit word. Whatever is not certain within the
given relative slack is left to the caller; without the kernel that is everything.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.shared.kernels.build import load_kernel

Integers = NDArray[np.int64]
_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
ARGUMENTS: dict[str, list[Any]] = {
    "geometric": [_POINTER, _INT, _FLOAT, _FLOAT, _POINTER, _POINTER],
    "accepted": [_POINTER, _POINTER, _INT, *[_FLOAT] * 3, _POINTER, _POINTER],
}


def certain_floors(
    word_X: NDArray[np.uint64], scale: int, slack: float
) -> tuple[Integers, Integers]:
    """Return floor(scale * E) of each word, and the places, rising, where that is not certain."""
    size_X, unsure_X = np.empty(len(word_X), np.int64), np.empty(len(word_X), np.int64)
    function = _compiled("geometric")
    if function is None:
        return size_X, np.arange(len(word_X))
    word_X = np.ascontiguousarray(word_X)
    doubts = function(
        word_X.ctypes.data, len(word_X), scale, slack, size_X.ctypes.data, unsure_X.ctypes.data
    )
    return size_X, unsure_X[:doubts]


def certainly_accepted(
    word_X: NDArray[np.uint64], size_X: Integers, scale: int, variance: int, slack: float
) -> tuple[NDArray[np.bool_], Integers]:
    """Return E > (size - variance / scale)^2 / (2 variance), and where that is not certain."""
    keep_X, unsure_X = np.empty(len(word_X), np.bool_), np.empty(len(word_X), np.int64)
    function = _compiled("accepted")
    if function is None:
        return keep_X, np.arange(len(word_X))
    word_X, size_X = np.ascontiguousarray(word_X), np.ascontiguousarray(size_X)
    doubts = function(
        *(word_X.ctypes.data, size_X.ctypes.data, len(word_X), scale, variance, slack),
        *(keep_X.ctypes.data, unsure_X.ctypes.data),
    )
    return keep_X, unsure_X[:doubts]


@cache
def _compiled(name: str) -> Callable[..., int] | None:
    """The kernel's function for this CPU, or None."""
    library, status = load_kernel()
    return None if library is None else function_of(library, name, status.variant or "")


def function_of(library: ctypes.CDLL, name: str, variant: str) -> Callable[..., int]:
    """Return one variant of a function of the kernel."""
    function = library[f"{name}_{variant}"]
    function.restype, function.argtypes = ctypes.c_int64, ARGUMENTS[name]
    return function
