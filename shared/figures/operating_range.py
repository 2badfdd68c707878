"""What a model's risks meant for patients it was not trained on: bands of risk, and thresholds.

A risk alone does not say how far to trust it. The bands say, for risks near it, how often the
outcome happened among the patients counted, with Wilson's 95 % interval (1927; recommended by
Brown, Cai and DasGupta, Stat Sci 2001;16:101-133). That covers the sampling of those patients and
the privacy noise in their counts; it does not cover that tomorrow's patients may be different ones.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from consilium.shared.figures.risk_curves import operating_points, point_at, wilson
from consilium.shared.figures.score_counts import Edges
from consilium.shared.figures.survival_counts import curve_of
from consilium.shared.files.strict_toml import StrictTable

BANDS = 10
SENSITIVITIES = (0.9, 0.8)
ALARM_RATES = (0.1, 0.05)
LARGEST_NOISE = 0.05


class Band(StrictTable):
    """Risks from ``low`` to ``high`` (excluded): the share that had the outcome, and its interval.

    ``patients`` is their number, not whole where the counts carry privacy noise.
    """

    low: float
    high: float
    patients: float
    observed: float
    observed_low: float
    observed_high: float


class Threshold(StrictTable):
    """An alarm at risks of at least ``threshold``, and what it did among the patients counted."""

    name: str
    threshold: float
    sensitivity: float
    specificity: float
    alarm_rate: float


def bands(
    counts_2B: NDArray[np.float64], edges_L: Edges, *, noise: float = 0.0
) -> tuple[Band, ...]:
    """Return about ``BANDS`` bands of nearly equal numbers of patients that cover 0 to 1.

    Args:
        counts_2B: patients by outcome and bin.
        edges_L: of the bins.
        noise: standard deviation of the privacy noise on each count; it widens the intervals.
    """
    found = []
    for begin, end, inside in _neighbours(counts_2B.sum(axis=0), edges_L):
        part = counts_2B[:, inside]
        negatives, positives = np.maximum(part.sum(axis=1), 0.0)
        value, low, high = _share(positives, negatives, noise**2 * part.shape[1])
        found.append(
            Band(
                low=begin,
                high=end,
                patients=negatives + positives,
                observed=value,
                observed_low=low,
                observed_high=high,
            )
        )
    return tuple(found)


def survival_bands(
    counts_K2B: NDArray[np.float64], edges_L: Edges, *, noise: float = 0.0
) -> tuple[Band, ...]:
    """Return such bands of the risk by the horizon; ``observed`` is by Kaplan and Meier.

    Args:
        counts_K2B: as :func:`consilium.shared.figures.survival_counts.count_intervals` has them.
        edges_L: of the bins.
        noise: standard deviation of the privacy noise on each count; it widens the intervals.
    """
    found = []
    for low, high, inside in _neighbours(counts_K2B[0].sum(axis=0), edges_L):
        part = counts_K2B[:, :, inside]
        lived_K, came_K = part.sum(axis=2).T
        deviation = noise * math.sqrt(part.shape[2])
        end = curve_of(lived_K + came_K, came_K, noise=deviation)[-1]
        found.append(
            Band(
                low=low,
                high=high,
                patients=max(float(part[0].sum()), 0.0),
                observed=1 - end.value,
                observed_low=1 - end.high,
                observed_high=1 - end.low,
            )
        )
    return tuple(found)


def _neighbours(
    total_B: NDArray[np.float64], edges_L: Edges
) -> Iterator[tuple[float, float, slice]]:
    """Yield about ``BANDS`` ranges of risks, of nearly equal numbers, with their bins."""
    below_B = np.maximum.accumulate(np.cumsum(total_B))
    if not below_B[-1] > 0:
        return
    middle_B = 0.5 * (below_B + np.append(0.0, below_B[:-1])) / below_B[-1]
    group_B = np.clip((middle_B * BANDS).astype(np.int64), 0, BANDS - 1)
    first = np.flatnonzero(np.diff(group_B, prepend=-1))
    edges = np.concatenate([[0.0], edges_L[first[1:] - 1], [1.0]]).tolist()
    for place, start in enumerate(first):
        end = first[place + 1] if place + 1 < len(first) else None
        yield edges[place], edges[place + 1], slice(start, end)


def thresholds(
    counts_2B: NDArray[np.float64],
    edges_L: Edges,
    declared: Sequence[float] = (),
    *,
    noise: float = 0.0,
) -> tuple[Threshold, ...]:
    """Return ``declared`` thresholds, and one for each of ``SENSITIVITIES`` and ``ALARM_RATES``.

    For a sensitivity it is the highest threshold that reaches it; for a rate of alarms, the lowest
    that keeps to it.

    Empty where an outcome does not occur, and where privacy noise of standard deviation ``noise``
    on each count hides more than ``LARGEST_NOISE`` of those with the outcome.
    """
    positives = float(counts_2B[1].sum())
    if noise * math.sqrt(counts_2B.shape[1]) > LARGEST_NOISE * positives:
        return ()
    points = operating_points(counts_2B, edges_L)
    chosen = [(f"risk {risk:g}", point_at(points, risk)) for risk in declared if points]
    for wanted in SENSITIVITIES:
        fitting = [point for point in points if point.sensitivity.value >= wanted]
        chosen += [(f"sensitivity {wanted:g}", fitting[-1])] if fitting else []
    for wanted in ALARM_RATES:
        fitting = [point for point in points if point.alarm_rate.value <= wanted]
        chosen += [(f"alarms {wanted:g}", fitting[0])] if fitting else []
    return tuple(
        Threshold(
            name=name,
            threshold=point.threshold,
            sensitivity=point.sensitivity.value,
            specificity=point.specificity.value,
            alarm_rate=point.alarm_rate.value,
        )
        for name, point in chosen
    )


def band_of(found: tuple[Band, ...], risk: float) -> Band | None:
    """Return the band a risk lies in; None where there are no bands."""
    for band in found:
        if risk < band.high:
            return band
    return found[-1] if found else None


def _share(positives: float, negatives: float, variance: float) -> tuple[float, float, float]:
    """The share of positives and its interval; ``variance`` is the noise's on each number."""
    patients = positives + negatives
    if patients <= 0:
        return 0.5, 0.0, 1.0
    smooth = (positives + 1) / (patients + 2)
    of_sampling = smooth * (1 - smooth) / patients
    of_noise = variance * (smooth**2 + (1 - smooth) ** 2) / patients**2
    worth = of_sampling / (of_sampling + of_noise)
    share = wilson(worth * positives, worth * patients)
    return share.value, share.low, share.high
