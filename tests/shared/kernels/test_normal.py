"""Compiled normal deviates against NumPy's, in every variant."""

import ctypes

import numpy as np
import pytest

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.kernels import build, normal


@pytest.mark.parametrize("variant", build.VARIANTS)
@pytest.mark.parametrize("count", [0, 1, 3, 17, 200_000])
def test_every_variant_equals_numpy(variant, count):
    library, status = build.load_kernel()
    if library is None:
        pytest.skip(status.sentence)
    if build.VARIANTS.index(variant) > library.consilium_level():
        pytest.skip(f"this processor has no {variant}")
    source = Keystream(bytes([7]) * 32)
    radius, angle = source.uniform_u64(count), source.uniform_u64(count)
    if count > 9:  # the ends of the range, and turns by quarters
        radius[:3] = [0, 2**64 - 1, 1 << 63]
        angle[:9] = [0, 2**64 - 1, *(k << 61 for k in range(1, 8))]
    found = np.full(2 * count + 1, 7.0)
    function = library[f"normals_{variant}"]
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    function.restype = None
    function(radius.ctypes.data, angle.ctypes.data, count, found.ctypes.data)
    assert found[-1] == 7.0  # nothing is written beyond the end
    expected = normal._in_numpy(radius, angle)
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-14, atol=1e-14)


def test_the_function_in_use_is_one_of_them():
    source = Keystream(bytes([7]) * 32)
    radius, angle = source.uniform_u64(1001), source.uniform_u64(1001)
    np.testing.assert_allclose(
        normal.box_muller(radius, angle), normal._in_numpy(radius, angle), rtol=1e-14, atol=1e-14
    )
