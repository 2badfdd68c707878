"""Normal deviates from uniform words in the compiled kernel, or in NumPy: the same to rounding."""

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from consilium.shared.kernels.build import load_kernel

TO_UNIT = 2.0**-53
SHIFT = np.uint64(11)  # the 53 upper bits of a word are kept


def box_muller(radius_X: NDArray[np.uint64], angle_X: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return 2 n independent standard normal numbers from 2 n independent uniform words.

    Box and Muller (1958): sqrt(-2 ln(1 - u)) times the cosine (the first n) and the sine (the last
    n) of 2 pi v, where u and v are the words' upper 53 bits as multiples of 2^-53 in [0, 1).
    """
    function = _compiled()
    if function is None:
        return _in_numpy(radius_X, angle_X)
    count = len(radius_X)
    both = np.empty(2 * count)
    words = np.ascontiguousarray(radius_X), np.ascontiguousarray(angle_X)
    function(*(part.ctypes.data for part in words), count, both.ctypes.data)
    return both


def _in_numpy(radius_X: NDArray[np.uint64], angle_X: NDArray[np.uint64]) -> NDArray[np.float64]:
    radius = np.sqrt(-2.0 * np.log1p(-(radius_X >> SHIFT).astype(np.float64) * TO_UNIT))
    angle = (2.0 * np.pi * TO_UNIT) * (angle_X >> SHIFT).astype(np.float64)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


@cache
def _compiled() -> Callable[..., None] | None:
    """The kernel's function for this CPU, or None."""
    library, status = load_kernel()
    if library is None:
        return None
    function = getattr(library, f"normals_{status.variant}")
    pointer = ctypes.c_void_p
    function.restype, function.argtypes = None, [pointer, pointer, ctypes.c_int64, pointer]
    return function  # type: ignore[no-any-return]  # ctypes leaves its functions untyped
