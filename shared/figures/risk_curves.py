"""What counts of risks give beside single figures: alarms at a threshold, net benefit, calibration.

Thresholds are bin edges, where counts are exact. Counts that privacy noise made negative are taken
as zero. Intervals are of 95 %: Wilson (1927) for shares, normal for the rest. They take every unit
of weight as one patient; scale the counts down where rows of a patient were counted as several.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.shared.figures.score_counts import NORMAL_95, Edges, bin_centers


@dataclass(frozen=True)
class Share:
    """A share, or another figure, with the bounds of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What an alarm at risks of at least ``threshold`` would do, among the patients counted.

    ``precision`` is None where there is no alarm; ``net_benefit`` is that of Vickers and
    Elkin (2006), per patient, with the threshold as the exchange rate.
    """

    threshold: float
    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float
    sensitivity: Share
    specificity: Share
    alarm_rate: Share
    precision: Share | None
    net_benefit: Share


@dataclass(frozen=True, kw_only=True)
class CalibrationGroup:
    """Neighbouring bins together: mean predicted risk, and the share that had the outcome."""

    predicted: float
    observed: Share
    patients: float


def operating_points(counts_2B: NDArray[np.float64], edges_L: Edges) -> tuple[OperatingPoint, ...]:
    """Return the point of every edge below 1, ascending; none when an outcome does not occur."""
    counts_2B = np.maximum(counts_2B, 0.0)
    if not (counts_2B.sum(axis=1) > 0).all():
        return ()
    alarms_2L = counts_2B[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    negatives, positives = (float(total) for total in counts_2B.sum(axis=1))
    return tuple(
        _point(float(edge), float(true), float(false), positives, negatives)
        for edge, false, true in zip(edges_L, *alarms_2L, strict=True)
        if edge < 1
    )


def point_at(points: tuple[OperatingPoint, ...], threshold: float) -> OperatingPoint:
    """Return the point whose threshold is the nearest in log-odds."""
    wanted = math.log(threshold / (1 - threshold))
    return min(points, key=lambda p: abs(math.log(p.threshold / (1 - p.threshold)) - wanted))


def calibration_groups(
    counts_2B: NDArray[np.float64], edges_L: Edges, groups: int = 10
) -> tuple[CalibrationGroup, ...]:
    """Return about as many groups of neighbouring bins, of nearly equal size, risks ascending."""
    negative_B, positive_B = np.maximum(counts_2B, 0.0)
    total_B = negative_B + positive_B
    if not total_B.sum() > 0:
        return ()
    middle_B = (np.cumsum(total_B) - 0.5 * total_B) / total_B.sum()
    group_B = np.minimum((middle_B * groups).astype(np.int64), groups - 1)
    centers_B = bin_centers(edges_L)
    found: list[CalibrationGroup] = []
    for group in np.unique(group_B[total_B > 0]):
        mine = group_B == group
        patients = float(total_B[mine].sum())
        found.append(
            CalibrationGroup(
                predicted=float((total_B * centers_B)[mine].sum() / patients),
                observed=wilson(float(positive_B[mine].sum()), patients),
                patients=patients,
            )
        )
    return tuple(found)


def observed_over_expected(
    observed: float, patients: float, expected: float, *, noise: tuple[float, float] = (0.0, 0.0)
) -> Share | None:
    """Return how much more often the outcome occurred than was predicted; None if undefined.

    Args:
        observed: patients with the outcome.
        patients: all of them.
        expected: sum of their risks.
        noise: standard deviations of the privacy noise on ``observed`` and on ``expected``.
    """
    if not (0 <= observed <= patients and patients > 0 and expected > 0):
        return None
    seen, scale = wilson(observed, patients), patients / expected
    value = seen.value * scale
    added = NORMAL_95 * math.hypot(noise[0] / expected, value * noise[1] / expected)
    return Share(
        value=value,
        low=max(value - math.hypot(value - seen.low * scale, added), 0.0),
        high=value + math.hypot(seen.high * scale - value, added),
    )


def wilson(part: float, whole: float) -> Share:
    """Return a share with Wilson's interval; ``whole`` must be positive."""
    value = part / whole
    reach = NORMAL_95**2 / whole
    middle = (value + reach / 2) / (1 + reach)
    half = math.sqrt(value * (1 - value) * reach + reach**2 / 4) / (1 + reach)
    return Share(value=value, low=max(middle - half, 0.0), high=min(middle + half, 1.0))


def _point(
    threshold: float, true: float, false: float, positives: float, negatives: float
) -> OperatingPoint:
    alarms, patients = true + false, positives + negatives
    exchange = threshold / (1 - threshold)
    benefit = (true - exchange * false) / patients
    square = (true + exchange**2 * false) / patients
    reach = NORMAL_95 * math.sqrt(max(square - benefit**2, 0.0) / patients)
    return OperatingPoint(
        threshold=threshold,
        true_positives=true,
        false_positives=false,
        false_negatives=positives - true,
        true_negatives=negatives - false,
        sensitivity=wilson(true, positives),
        specificity=wilson(negatives - false, negatives),
        alarm_rate=wilson(alarms, patients),
        precision=wilson(true, alarms) if alarms > 0 else None,
        net_benefit=Share(value=benefit, low=benefit - reach, high=benefit + reach),
    )
