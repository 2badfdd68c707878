"""Ring elements of 16, 20, 24, 28 or 32 bits side by side in bytes, little-endian."""

from collections.abc import Sized
from typing import cast

import numpy as np
from numpy.typing import NDArray

from consilium.shared.errors import EncodingError
from consilium.shared.wire.encoding import LongBytes

_SPAN = 1 << 18  # elements; even, since rings of 20 and 28 bits go in pairs


def packed_bytes(length: int, ring_bits: int) -> int:
    """Bytes that `length` elements take; rings of 20 and 28 bits go in pairs."""
    if ring_bits in (20, 28):
        return -(-length // 2) * (ring_bits // 4)
    return length * (ring_bits // 8)


def pack(vector: NDArray[np.uint32], ring_bits: int) -> bytes | memoryview:
    """The low `ring_bits` bits of every element, shape (length,).

    A ring of 32 bits needs no copy: the result is then a read-only view of the vector, which must
    not change any more.
    """
    words = np.ascontiguousarray(vector, np.dtype("<u4"))
    if ring_bits == 32:
        return words.view(np.uint8).data.toreadonly()
    if ring_bits == 16:
        return words.astype("<u2").tobytes()
    if ring_bits == 24:
        return words.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return _pack_pairs(words, ring_bits)


def unpack(packed: bytes | memoryview, length: int, ring_bits: int) -> NDArray[np.uint32]:
    """Undo `pack`; shape (length,), possibly a read-only view of `packed`.

    Raises:
        EncodingError: another number of bytes than `length` elements take, or padding not zero.
    """
    _check_length(packed, length, ring_bits)
    if ring_bits == 32:
        return cast(
            "NDArray[np.uint32]", np.frombuffer(packed, "<u4").astype(np.uint32, copy=False)
        )
    if ring_bits == 16:
        return np.frombuffer(packed, "<u2").astype(np.uint32)
    if ring_bits == 24:
        words = np.zeros((length, 4), np.uint8)
        words[:, :3] = np.frombuffer(packed, np.uint8).reshape(length, 3)
        return cast("NDArray[np.uint32]", words.view("<u4").ravel().astype(np.uint32, copy=False))
    return _unpack_pairs(packed, length, ring_bits)


def add_packed(
    total: NDArray[np.uint32], packed: bytes | memoryview | LongBytes, ring_bits: int
) -> None:
    """Add a packed vector to `total` modulo 2^32, in place; it is read a span at a time.

    Raises:
        EncodingError: as :func:`unpack`; nothing was added.
    """
    _check_length(packed, len(total), ring_bits)
    # from the end, so that its padding is checked before anything is added
    for first in range((len(total) - 1) // _SPAN * _SPAN, -1, -_SPAN):
        part = total[first : first + _SPAN]
        begin = packed_bytes(first, ring_bits)
        end = begin + packed_bytes(len(part), ring_bits)
        span = packed.read(begin, end) if isinstance(packed, LongBytes) else packed[begin:end]
        part += unpack(span, len(part), ring_bits)


def _check_length(packed: Sized, length: int, ring_bits: int) -> None:
    if len(packed) != packed_bytes(length, ring_bits):
        raise EncodingError(
            f"a packed vector has {len(packed)} bytes, and {length} elements of {ring_bits} bits "
            f"take {packed_bytes(length, ring_bits)}"
        )


def _pack_pairs(words: NDArray[np.uint32], ring_bits: int) -> bytes:
    """Two elements of 20 (28) bits in 5 (7) bytes; an odd one out is followed by a zero."""
    low_bits = np.uint64((1 << ring_bits) - 1)
    pairs = np.zeros(-(-len(words) // 2), np.dtype("<u8"))
    pairs[: len(words) // 2] = words[1::2] & low_bits
    pairs <<= np.uint64(ring_bits)
    pairs |= words[0::2] & low_bits
    return pairs.view(np.uint8).reshape(-1, 8)[:, : ring_bits // 4].tobytes()


def _unpack_pairs(packed: bytes | memoryview, length: int, ring_bits: int) -> NDArray[np.uint32]:
    octets = np.zeros((-(-length // 2), 8), np.uint8)
    octets[:, : ring_bits // 4] = np.frombuffer(packed, np.uint8).reshape(len(octets), -1)
    pairs = octets.view("<u8").ravel()
    words = np.empty(2 * len(pairs), np.uint32)
    words[0::2] = pairs & np.uint64((1 << ring_bits) - 1)
    words[1::2] = pairs >> np.uint64(ring_bits)
    if words[length:].any():
        raise EncodingError("a packed vector has padding other than zero, so it was altered")
    return words[:length]
