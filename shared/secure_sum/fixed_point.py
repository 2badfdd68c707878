"""Real vectors as whole numbers modulo 2^k, such that the sum over all sites never wraps.

A coordinate x with |x| <= linf becomes floor(scale * x) or one more, at random with the mean
scale * x within 2^-21 (stochastic rounding), in two's complement. Guarantee: |q| <= qmax =
ceil(scale * linf), and sites * qmax < 2^(k-1), hence the sum over at most `sites` sites decodes
exactly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from consilium.shared.crypto.keystream import Keystream, over_spans
from consilium.shared.crypto.transcript import Encodable, digest
from consilium.shared.errors import EncodingError

RingBits = Literal[16, 20, 24, 28, 32]
RING_BITS = (16, 20, 24, 28, 32)

_SINGLE_SLACK = 1 + 2.0**-22
"""A vector clipped in single precision may exceed a double bound by the last digit's rounding."""

_PIECE = 1 << 15

_THREAD_WORDS = 1 << 18
"""Coordinates below which a second thread costs more than it brings."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A named run of coordinates with one bound and one scale.

    Attributes:
        name: what the coordinates are; unique in a `VectorSpec`.
        length: number of coordinates.
        linf: largest absolute value of a coordinate after clipping, in its own unit.
        scale: ring units per unit; 1 for counts and other whole numbers.
    """

    name: str
    length: int
    linf: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise EncodingError(f"segment {self.name} has length {self.length}; the least is 1")
        product = self.linf * self.scale
        if not (self.linf > 0 and self.scale > 0 and 0 < product <= 2**31 - 1):
            raise EncodingError(
                f"segment {self.name} has linf {self.linf} and scale {self.scale}; "
                "both must be positive and their product at most 2^31 - 1"
            )

    @property
    def qmax(self) -> int:
        """Largest magnitude of an encoded coordinate."""
        return math.ceil(self.linf * self.scale)


@dataclass(frozen=True, kw_only=True)
class VectorSpec:
    """Layout of the vector that is summed: ring size and segments, in order.

    Raises:
        EncodingError: an unsupported ring size, no segment, or two segments of one name.
    """

    ring_bits: RingBits
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if self.ring_bits not in RING_BITS:
            raise EncodingError(
                f"a ring of {self.ring_bits} bits is not supported; choose one of {RING_BITS}"
            )
        names = [segment.name for segment in self.segments]
        if not names or len(set(names)) != len(names):
            raise EncodingError(f"segments {names} must be at least one and named differently")

    @property
    def length(self) -> int:
        """Number of coordinates of all segments."""
        return sum(segment.length for segment in self.segments)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the layout, which both sides bind into the round; 32 bytes."""
        parts: list[Encodable] = [self.ring_bits]
        for segment in self.segments:
            parts += [segment.name, segment.length, float(segment.linf).hex()]
            parts.append(float(segment.scale).hex())
        return digest("vector-spec", *parts)

    def check_headroom(self, sites: int, max_weight: int) -> None:
        """Prove that no sum over `sites` sites can wrap.

        Raises:
            EncodingError: sites * qmax or sites * max_weight reaches 2^(ring_bits - 1).
        """
        bound = 1 << (self.ring_bits - 1)
        largest = {f"segment {segment.name}": segment.qmax for segment in self.segments}
        for what, magnitude in {**largest, "the weight": max_weight}.items():
            if sites * magnitude >= bound:
                raise EncodingError(
                    f"{sites} sites of up to {magnitude} in {what} reach {bound}, where a ring of "
                    f"{self.ring_bits} bits wraps; lower the scale or take a larger ring"
                )


def largest_scale(linf: float, *, sites: int, ring_bits: RingBits) -> float:
    """The largest scale with sites * ceil(scale * linf) < 2^(ring_bits - 1).

    Raises:
        EncodingError: not even the numbers -1, 0 and 1 fit for so many sites.
    """
    qmax = ((1 << (ring_bits - 1)) - 1) // sites
    if qmax < 1 or not 0 < linf < math.inf:
        raise EncodingError(
            f"no scale encodes magnitudes up to {linf} of {sites} sites in {ring_bits} bits; "
            "take a larger ring"
        )
    scale = qmax / linf
    while math.ceil(scale * linf) > qmax:
        scale = math.nextafter(scale, 0.0)
    return scale


def encode(
    parts: Mapping[str, NDArray[np.generic]],
    spec: VectorSpec,
    source: Keystream,
    *,
    threads: int = 1,
) -> NDArray[np.uint32]:
    """Encode one site's values.

    Args:
        parts: by segment name, one-dimensional; float32 or float64 are rounded at random,
            integers are taken as ring units already and only checked.
        spec: the layout.
        source: cryptographic randomness for the rounding.
        threads: cores to use; the result does not depend on it.

    Returns:
        Ring elements 0 <= q < 2^ring_bits, shape (spec.length,).

    Raises:
        EncodingError: missing or surplus parts, a wrong length or type, a value that is not
            finite or lies outside its bound. Nothing is clipped silently.
    """
    if set(parts) != {segment.name for segment in spec.segments}:
        raise EncodingError(
            f"the parts given are {sorted(parts)}, and the study's vector has "
            f"{[segment.name for segment in spec.segments]}"
        )
    encoded = np.empty(spec.length, np.int32)
    start = 0
    for segment in spec.segments:
        _encode_segment(
            parts[segment.name], segment, source, encoded[start : start + segment.length], threads
        )
        start += segment.length
    ring = encoded.view(np.uint32)
    if spec.ring_bits < 32:
        ring &= np.uint32((1 << spec.ring_bits) - 1)
    return ring


def _encode_segment(
    values: NDArray[np.generic],
    segment: Segment,
    source: Keystream,
    out: NDArray[np.int32],
    threads: int,
) -> None:
    if values.shape != (segment.length,):
        raise EncodingError(
            f"part {segment.name} has shape {values.shape}, and the study says ({segment.length},)"
        )
    if np.issubdtype(values.dtype, np.integer):
        low, high = int(values.min()), int(values.max())
        if low < -segment.qmax or high > segment.qmax:
            raise EncodingError(
                f"part {segment.name} has whole numbers from {low} to {high}, beyond its bound "
                f"of {segment.qmax}; clip them first"
            )
        out[:] = values
        return
    if values.dtype not in (np.float32, np.float64):
        raise EncodingError(f"part {segment.name} is {values.dtype}, neither float nor integer")

    def round_span(first: int, last: int) -> None:
        stream = source.ahead(4 * first)
        _encode_span(values[first:last], segment, stream, out[first:last])

    useful = threads if segment.length >= _THREAD_WORDS else 1
    over_spans(round_span, segment.length, _PIECE, threads=useful)
    source.skip(4 * segment.length)


def _encode_span(
    values: NDArray[np.generic], segment: Segment, source: Keystream, out: NDArray[np.int32]
) -> None:
    bound = segment.linf * (_SINGLE_SLACK if values.dtype == np.float32 else 1.0)
    for first in range(0, len(values), _PIECE):
        piece = values[first : first + _PIECE]
        peak = max(-float(piece.min()), float(piece.max()))
        if not peak <= bound:  # NaN compares false
            raise EncodingError(
                f"part {segment.name} has a value that is not finite or beyond its bound of "
                f"{segment.linf}; clip the vector before encoding it"
            )
        rounded = _round(piece, segment.scale, source)
        if peak > segment.linf:
            np.clip(rounded, -segment.qmax, segment.qmax, out=rounded)
        out[first : first + _PIECE] = rounded


def _round(piece: NDArray[np.generic], scale: float, source: Keystream) -> NDArray[np.float64]:
    """Stochastic rounding: floor(x + u), u uniform over the odd multiples of 2^-21 below one.

    Sums of a number below 2^31 and such a u fit a double's 53 bits, so whole numbers stay whole
    and no rounding goes past a neighbour; the mean is right to 2^-21 ring units.
    """
    scaled: NDArray[np.float64] = np.multiply(piece, scale, dtype=np.float64)
    random = source.uniform_u32(len(piece))
    random >>= np.uint32(11)
    random |= np.uint32(1)
    scaled += np.multiply(random, 2.0**-21, dtype=np.float64)
    return np.floor(scaled, out=scaled)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """One segment of a sum, decoded span by span where it is read.

    Attributes:
        ring_D: the segment of the sum of encodings modulo 2^ring_bits; not copied.
        ring_bits: of the ring.
        scale: ring units per unit.
    """

    ring_D: NDArray[np.uint32]
    ring_bits: RingBits
    scale: float

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.ring_D.size

    def __getitem__(self, span: slice, /) -> NDArray[np.float64]:
        """The sum of the sites' values in a span; whole numbers exactly where the scale is 1."""
        signed = self.ring_D[span].view(np.int32)
        if self.ring_bits < 32:  # the ring's top bit is the sign: move it up and back
            shift = 32 - self.ring_bits
            signed = (self.ring_D[span] << np.uint32(shift)).view(np.int32) >> np.int32(shift)
        return np.divide(signed, self.scale, dtype=np.float64)


def decode(total: NDArray[np.uint32], spec: VectorSpec) -> dict[str, Decoded]:
    """The sum of the sites' values, by segment.

    Args:
        total: sum of encodings modulo 2^ring_bits, shape (spec.length,); it must not change while
            the result is read.
        spec: the layout.
    """
    if total.shape != (spec.length,):
        raise EncodingError(f"the total has shape {total.shape}, and the study {spec.length}")
    parts = {}
    start = 0
    for segment in spec.segments:
        parts[segment.name] = Decoded(
            ring_D=total[start : start + segment.length],
            ring_bits=spec.ring_bits,
            scale=segment.scale,
        )
        start += segment.length
    return parts
