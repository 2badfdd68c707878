import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.errors import EncodingError
from consilium.shared.secure_sum import packing
from consilium.shared.secure_sum.fixed_point import RING_BITS
from consilium.shared.secure_sum.packing import add_packed, pack, packed_bytes, unpack


@given(
    bits=st.sampled_from(RING_BITS),
    values=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
)
def test_unpacking_gives_back_the_low_bits(bits, values):
    packed = pack(np.array(values, np.uint32), bits)
    assert len(packed) == packed_bytes(len(values), bits)
    assert unpack(packed, len(values), bits).tolist() == [v % 2**bits for v in values]


@given(st.sampled_from(RING_BITS), st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=9))
def test_packing_is_one_long_little_endian_number(bits, values):
    number = sum(value << (bits * place) for place, value in enumerate(values))
    packed = pack(np.array(values, np.uint32), bits)
    assert int.from_bytes(packed, "little") == number


@pytest.mark.parametrize(("bits", "size"), [(16, 6), (20, 10), (24, 9), (28, 14), (32, 12)])
def test_three_elements_take_so_many_bytes(bits, size):
    assert packed_bytes(3, bits) == size


@pytest.mark.parametrize("bits", RING_BITS)
@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_bytes_is_refused(bits, change):
    packed = bytes(pack(np.arange(5, dtype=np.uint32), bits))
    wrong = packed[:-1] if change < 0 else packed + b"\0"
    with pytest.raises(EncodingError, match="a packed vector has"):
        unpack(wrong, 5, bits)


@pytest.mark.parametrize("bits", [20, 28])
def test_padding_other_than_zero_is_refused(bits):
    packed = bytearray(pack(np.arange(5, dtype=np.uint32), bits))
    packed[-1] |= 0x80
    with pytest.raises(EncodingError, match="padding"):
        unpack(bytes(packed), 5, bits)


@pytest.mark.parametrize("bits", RING_BITS)
@pytest.mark.parametrize("length", [1, 6, 7, 12, 13])
def test_adding_span_by_span_equals_adding_whole_vectors(monkeypatch, bits, length):
    monkeypatch.setattr(packing, "_SPAN", 6)
    rng = np.random.default_rng(length)
    before, added = rng.integers(0, 2**32, (2, length), np.uint32)
    total, packed = before.copy(), pack(added, bits)
    add_packed(total, packed, bits)
    assert (total == before + unpack(packed, length, bits)).all()


@pytest.mark.parametrize("bits", [20, 28])
def test_nothing_is_added_of_a_vector_with_wrong_padding(monkeypatch, bits):
    monkeypatch.setattr(packing, "_SPAN", 2)
    packed = bytearray(pack(np.arange(1, 6, dtype=np.uint32), bits))
    packed[-1] |= 0x80
    total = np.zeros(5, np.uint32)
    with pytest.raises(EncodingError, match="padding"):
        add_packed(total, bytes(packed), bits)
    assert not total.any()


def test_adding_a_long_vector_takes_little_memory():
    total = np.zeros(1 << 22, np.uint32)
    packed = pack(np.arange(1 << 22, dtype=np.uint32), 24)
    tracemalloc.start()
    try:
        add_packed(total, packed, 24)
        assert tracemalloc.get_traced_memory()[1] < len(packed) / 2
    finally:
        tracemalloc.stop()
    assert total[-1] == (1 << 22) - 1
