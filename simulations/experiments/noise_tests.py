"""What draws of a release say of its noise: size, shape, independence; and of a patient's shift.

Every test errs with probability at most ``level`` where the noise is as claimed: exactly for the
standard deviation, by the normal approximation of sums of thousands of numbers for the rest.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, kstest, norm

Draws = NDArray[np.float64]  # (draws, coordinates)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate, and the ends of its confidence interval."""

    low: float
    estimate: float
    high: float


def deviation(draws: Draws, level: float, *, fitted: int = 0) -> Interval:
    """Return the standard deviation of draws of mean zero, by the chi-square distribution.

    Args:
        draws: independent Gaussian numbers.
        level: probability that the interval misses the truth.
        fitted: numbers that were estimated from these draws and subtracted.
    """
    freedom = draws.size - fitted
    squares = float((draws**2).sum())
    low, high = (math.sqrt(squares / chi2.isf(tail, freedom)) for tail in _tails(level))
    return Interval(low=low, estimate=math.sqrt(squares / freedom), high=high)


def mean(draws: Draws, level: float) -> Interval:
    """Return the mean of all numbers, in their standard deviations."""
    spread = float(draws.std())
    center = 0.0 if spread == 0 else float(draws.mean()) / spread
    wide = float(norm.isf(level / 2)) / math.sqrt(draws.size)
    return Interval(low=center - wide, estimate=center, high=center + wide)


def distance_from_normal(draws: Draws) -> float:
    """Return Kolmogorov and Smirnov's distance between the draws and a Gaussian of their size.

    1 if the draws are all equal.
    """
    spread = float(draws.std())
    return 1.0 if spread == 0 else float(kstest((draws / spread).ravel(), "norm").statistic)


def largest_distance(numbers: int, level: float) -> float:
    """Return what :func:`distance_from_normal` exceeds with probability at most ``level``.

    The inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990); fitting the
    Gaussian's size to the draws only makes the distance smaller.
    """
    return math.sqrt(math.log(2 / level) / (2 * numbers))


def largest_correlation(pairs: list[tuple[Draws, Draws]], level: float) -> Interval:
    """Return the correlation of the pair that is farthest from independent, with its interval.

    Each pair has a third, say, of ``level``. Numbers that do not vary correlate by 1.
    """
    found = [_correlation(*pair) for pair in pairs]
    strength = [
        abs(each) * math.sqrt(pair[0].size) for each, pair in zip(found, pairs, strict=True)
    ]
    worst = int(np.argmax(strength))
    wide = float(norm.isf(level / len(pairs) / 2)) / math.sqrt(pairs[worst][0].size)
    return Interval(low=found[worst] - wide, estimate=found[worst], high=found[worst] + wide)


def shift(having: Draws, lacking: Draws, level: float) -> Interval:
    """Return the L2 norm of the difference of the two means, whatever its direction.

    The pairs' differences are split in halves; the product of the halves' means estimates the
    squared norm without bias, as their noises are independent.

    Args:
        having: draws (R, D) with the patient; R even.
        lacking: draws (R, D) without.
        level: probability that the interval misses the truth.
    """
    differences = having - lacking
    half = len(differences) // 2
    first_D, second_D = differences[:half].mean(axis=0), differences[half:].mean(axis=0)
    noise = residual_deviation(having, lacking) ** 2 * 2 / half
    squared = float(first_D @ second_D)
    spread = math.sqrt(2 * max(squared, 0.0) * noise + first_D.size * noise**2)
    wide = float(norm.isf(level / 2)) * spread
    low, estimate, high = (
        math.sqrt(max(0.0, value)) for value in (squared - wide, squared, squared + wide)
    )
    return Interval(low=low, estimate=estimate, high=high)


def residuals(*groups: Draws) -> tuple[Draws, int]:
    """Return each group's draws less their mean, and how many means were subtracted."""
    parts = [draws - draws.mean(axis=0) for draws in groups]
    return np.concatenate(parts), len(groups) * groups[0].shape[1]


def residual_deviation(*groups: Draws) -> float:
    """Return the standard deviation of the draws about their group's mean."""
    rest, fitted = residuals(*groups)
    return math.sqrt(float((rest**2).sum()) / (rest.size - fitted))


def _tails(level: float) -> tuple[float, float]:
    return level / 2, 1 - level / 2


def _correlation(first: Draws, second: Draws) -> float:
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return 1.0 if lengths == 0 else float((first * second).sum()) / lengths
