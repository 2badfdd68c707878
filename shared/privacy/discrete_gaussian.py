"""Whole-number noise drawn exactly: the discrete Gaussian, from a cryptographic stream.

The discrete Gaussian of variance parameter v takes the whole number x with probability
proportional to exp(-x^2 / (2 v)) (Canonne, Kamath & Steinke 2020). It is drawn by their rejection
from the discrete Laplace distribution (algorithm 3). Every decision compares a uniform *real*
number, known so far to 64 bits, with a bound computed in floating point whose error is known. Where
the two are too close to tell, about once in ten million draws, the decision is made with as many
more random bits and digits as it takes. So the distribution is exact, not merely close.

The compiled kernel makes the decisions that are certain by a wider margin, nearly all of them, and
NumPy the rest; without the kernel NumPy makes all. The same stream gives the same numbers both
ways.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import PrivacyError
from consilium.shared.kernels.discrete import certain_floors, certainly_accepted

LARGEST_VARIANCE = 1 << 50
FLOAT_SLACK = 2.0**-46  # floating-point error of what is compared, generously: 64 units in the last
MORE_BITS = 64
DIGITS_PER_BIT = 0.302  # log10(2), rounded up
GUARD_DIGITS = 20
KERNEL_SLACK = 2.0  # the kernel leaves to NumPy whatever NumPy might find doubtful

T = TypeVar("T")
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Exponentials:
    """-ln of uniform reals: 64 bits of each real, the float value, and how far off that may be."""

    word_X: NDArray[np.uint64]
    value_X: Floats
    slack_X: Floats

    @classmethod
    def of(cls, word_X: NDArray[np.uint64]) -> "_Exponentials":
        uniform_X = (word_X.astype(np.float64) + 0.5) * 2.0**-64
        value_X = -np.log(uniform_X)
        slack_X = FLOAT_SLACK * (1 + value_X) + 2.0**-64 / uniform_X
        return cls(word_X, value_X, slack_X)


def discrete_gaussian(variance: int, count: int, source: Keystream) -> Integers:
    """Draw ``count`` independent whole numbers from the discrete Gaussian.

    Args:
        variance: the parameter v, a whole number; the true variance is a little below it.
        count: how many, shape of the result (count,).
        source: secret and fresh.

    Guarantee: the distribution is exact, given that the stream is uniform.

    Raises:
        PrivacyError: the variance is below 1 or above 2^50.
    """
    if not 1 <= variance <= LARGEST_VARIANCE:
        raise PrivacyError(
            f"noise variance {variance} must be from 1 to {LARGEST_VARIANCE}; change the scale"
        )
    scale = math.isqrt(variance) + 1
    parts, missing = [], count
    while missing > 0:
        tries = missing + missing // 2 + 16  # about three in four are accepted
        size_X = _geometric(scale, tries, source)
        negative_X = np.unpackbits(np.frombuffer(source.bytes(-(-tries // 8)), np.uint8))[:tries]
        keep_X = _accept(size_X, scale, variance, source) & ~((size_X == 0) & (negative_X == 1))
        part = np.where(negative_X == 1, -size_X, size_X)[keep_X][:missing]
        parts.append(part)
        missing -= len(part)
    return np.concatenate([np.empty(0, np.int64), *parts])


def _geometric(scale: int, count: int, source: Keystream) -> Integers:
    """floor(scale * E) for exponential E: at least k with probability exp(-k / scale)."""
    word_X = source.uniform_u64(count)
    size_X, unsure_X = certain_floors(word_X, scale, KERNEL_SLACK * FLOAT_SLACK)
    drawn = _Exponentials.of(word_X[unsure_X])
    product_X, slack_X = scale * drawn.value_X, scale * drawn.slack_X
    found_X = np.floor(product_X - slack_X)
    doubtful_X = np.floor(product_X + slack_X) != found_X
    size_X[unsure_X] = found_X.astype(np.int64)
    for place in unsure_X[doubtful_X]:
        size_X[place] = _floor_exactly(int(word_X[place]), scale, source)
    return size_X


def _accept(size_X: Integers, scale: int, variance: int, source: Keystream) -> NDArray[np.bool_]:
    """True with probability exp(-(size - variance / scale)^2 / (2 variance)), each on its own."""
    word_X = source.uniform_u64(len(size_X))
    accept_X, unsure_X = certainly_accepted(
        word_X, size_X, scale, variance, KERNEL_SLACK * FLOAT_SLACK
    )
    drawn, whole_X = _Exponentials.of(word_X[unsure_X]), size_X[unsure_X].astype(np.float64)
    cost_X = (whole_X - variance / scale) ** 2 / (2 * variance)
    slack_X = drawn.slack_X + FLOAT_SLACK * (1 + whole_X**2 / variance)
    accept_X[unsure_X] = drawn.value_X > cost_X
    for place in unsure_X[np.abs(drawn.value_X - cost_X) <= slack_X]:
        accept_X[place] = _exceeds_exactly(
            int(word_X[place]), int(size_X[place]), scale, variance, source
        )
    return accept_X


def _floor_exactly(word: int, scale: int, source: Keystream) -> int:
    """floor(-scale * ln U) of the uniform real U that begins with these 64 bits."""

    def decide(low: Decimal, high: Decimal) -> int | None:
        at_least, at_most = math.floor(scale * low), math.floor(scale * high)
        return at_least if at_least == at_most else None

    return _decide_exactly(word, source, decide)


def _exceeds_exactly(word: int, size: int, scale: int, variance: int, source: Keystream) -> bool:
    """Whether -ln U exceeds the cost, for the uniform real U that begins with these 64 bits."""
    top, bottom = (size * scale - variance) ** 2, 2 * variance * scale**2

    def decide(low: Decimal, high: Decimal) -> bool | None:
        if low * bottom > top:
            return True
        return False if high * bottom < top else None

    return _decide_exactly(word, source, decide)


def _decide_exactly(
    word: int, source: Keystream, decide: Callable[[Decimal, Decimal], T | None]
) -> T:
    """Draw more bits of U until bounds on -ln U settle the matter."""
    bits = 64
    while True:
        if word:
            with localcontext() as context:
                context.prec = int(bits * DIGITS_PER_BIT) + 2 * GUARD_DIGITS
                error = Decimal(10) ** -(int(bits * DIGITS_PER_BIT) + GUARD_DIGITS)
                unit = Decimal(1 << bits).ln()
                high = unit - Decimal(word).ln() + error
                low = unit - Decimal(word + 1).ln() - error
                decision = decide(max(low, Decimal(0)), high)
            if decision is not None:
                return decision
        word = word << MORE_BITS | int.from_bytes(source.bytes(MORE_BITS // 8), "little")
        bits += MORE_BITS
