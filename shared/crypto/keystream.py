"""Pseudo-random streams from AES-256-CTR: masks over the ring, and random numbers for noise.

A 32-byte seed gives one stream: AES-256 in counter mode, counter from zero, applied to zeros.
Every seed is used for one purpose, once, which is what makes the zero counter safe.
"""

import builtins
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, cast

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from consilium.shared.crypto.keys import Secret
from consilium.shared.kernels.normal import box_muller

PIECE_WORDS = 1 << 16
"""Words expanded at a time: 256 KiB of keystream stay in the second-level cache."""

_ZEROS = memoryview(bytes(4 * PIECE_WORDS))

THREAD_WORDS = 1 << 20
"""Words of keystream below which a second thread costs more than it brings."""


def add_masks(
    vector: NDArray[np.uint32],
    *,
    plus: Sequence[bytes] = (),
    minus: Sequence[bytes] = (),
    threads: int = 1,
) -> None:
    """Add and subtract keystreams modulo 2^32, in place.

    Args:
        vector: contiguous 32-bit words, changed in place.
        plus: 32-byte seeds whose streams (little-endian words) are added.
        minus: 32-byte seeds whose streams are subtracted.
        threads: cores to use; the result does not depend on it.
    """
    work = len(vector) * (len(plus) + len(minus))
    over_spans(
        lambda first, last: _add_span(vector[first:last], first, plus, minus),
        len(vector),
        PIECE_WORDS,
        threads=min(threads, max(1, work // THREAD_WORDS)),
    )


def over_spans(step: Callable[[int, int], None], length: int, piece: int, *, threads: int) -> None:
    """Call ``step(first, last)`` for spans that cover ``length``, one in each thread.

    The calling thread takes one too.

    Args:
        step: must release the interpreter's lock for the threads to be of use.
        length: of what the spans cover.
        piece: spans begin at multiples of it.
        threads: the most to use.
    """
    pieces = -(-length // piece)
    useful = min(threads, pieces)
    if useful <= 1:
        step(0, length)
        return
    edges = [pieces * i // useful * piece for i in range(useful)] + [length]
    with ThreadPoolExecutor(useful - 1) as pool:
        others = [pool.submit(step, first, last) for first, last in pairwise(edges[1:])]
        step(edges[0], edges[1])
        for other in others:
            other.result()


def _add_span(
    span: NDArray[np.uint32], start: int, plus: Sequence[bytes], minus: Sequence[bytes]
) -> None:
    """Mask a span that begins `start` words into the vector, all seeds on a piece in turn."""
    added = [_encryptor(seed, start // 4) for seed in plus]
    taken = [_encryptor(seed, start // 4) for seed in minus]
    zeros = _zeros(4 * PIECE_WORDS)
    stream = np.empty(PIECE_WORDS, np.dtype("<u4"))
    room = stream.view(np.uint8).data
    for first in range(0, len(span), PIECE_WORDS):
        piece = span[first : first + PIECE_WORDS]
        words = len(piece)
        for encryptor in added:
            encryptor.update_into(zeros[: 4 * words], room)
            np.add(piece, stream[:words], out=piece)
        for encryptor in taken:
            encryptor.update_into(zeros[: 4 * words], room)
            np.subtract(piece, stream[:words], out=piece)


def _encryptor(seed: bytes, block: int) -> CipherContext:
    """The stream of a seed from its 16-byte block `block` on."""
    if len(seed) != 32:
        raise ValueError(f"a seed has 32 bytes, not {len(seed)}")
    return Cipher(AES(seed), CTR(block.to_bytes(16, "big"))).encryptor()


class Keystream(Secret):
    """A cryptographic random stream from a 32-byte seed, read in order.

    The seed comes from the operating system wherever privacy depends on it. The same seed gives
    the same numbers on every machine for `bytes` and the uniforms; `standard_normal` also
    depends on the mathematical library's last digit.
    """

    __slots__ = ("_encryptor", "_read", "_seed")

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._seek(0)

    def _seek(self, read: int) -> None:
        self._encryptor = _encryptor(self._seed, read // 16)
        self._encryptor.update(_zeros(read % 16))
        self._read = read

    def bytes(self, count: int) -> builtins.bytes:
        """The next `count` bytes."""
        self._read += count
        return self._encryptor.update(_zeros(count))

    def ahead(self, count: int) -> "Keystream":
        """The same stream, `count` bytes further on; this one stays where it is."""
        further = Keystream(self._seed)
        further._seek(self._read + count)
        return further

    def skip(self, count: int) -> None:
        """Leave out the next `count` bytes."""
        self._seek(self._read + count)

    def uniform_u32(self, count: int) -> NDArray[np.uint32]:
        """Uniform 32-bit words, shape (count,)."""
        words = np.empty(count, np.dtype("<u4"))
        self._fill(words)
        return cast("NDArray[np.uint32]", words.astype(np.uint32, copy=False))

    def uniform_u64(self, count: int) -> NDArray[np.uint64]:
        """Uniform 64-bit words, shape (count,)."""
        words = np.empty(count, np.dtype("<u8"))
        self._fill(words)
        return cast("NDArray[np.uint64]", words.astype(np.uint64, copy=False))

    def uniform_float64(self, count: int) -> NDArray[np.float64]:
        """Uniform multiples of 2^-53 in [0, 1), shape (count,)."""
        return (self.uniform_u64(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def standard_normal(self, count: int) -> NDArray[np.float64]:
        """Normal deviates, mean 0, standard deviation 1, shape (count,).

        Box and Muller (1958) on 53-bit uniforms, so the largest magnitude is 8.58. The values
        lie on a floating-point grid, which can tell an observer of unrounded results more than
        the ideal normal would (Mironov, CCS 2012). Here noised vectors are averaged over many
        patients and rounded at random to the ring's coarse grid before anyone sees them; noise
        whose proof must hold to the last bit is drawn as whole numbers instead.
        """
        half = -(-count // 2)
        both = box_muller(self.uniform_u64(half), self.uniform_u64(half))
        return both[:count]

    def _fill(self, words: NDArray[Any]) -> None:
        room = words.view(np.uint8).data
        self._read += len(room)
        zeros = _zeros(min(len(room), 4 * PIECE_WORDS))
        for first in range(0, len(room), 4 * PIECE_WORDS):
            part = room[first : first + 4 * PIECE_WORDS]
            self._encryptor.update_into(zeros[: len(part)], part)


def _zeros(count: int) -> memoryview:
    """That many zero bytes; encrypted, they are the stream."""
    return _ZEROS[:count] if count <= len(_ZEROS) else memoryview(bytes(count))
