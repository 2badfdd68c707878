"""Discrimination, calibration and Kaplan-Meier curves from counts of risks by interval and outcome.

Counts are tables (K, 2, B), one for each interval: in its row 1 the patients in whom the event came
in that interval, in row 0 those who lived through it, by the bin of their risk at the horizon.
Whoever was lost before is in neither. So an interval's patients at risk are the sum of its rows,
and every figure here is a function of sums over patients.

- *C-index*: of all pairs of which one had the event in an interval that the other lived through,
  the share in which the first had the higher risk, ties one half. It is Harrell's (Harrell et al.
  1982, JAMA 247:2543) for times told by interval, up to the horizon, and the mean of the
  incident/dynamic AUCs of the intervals, weighted by their pairs (Heagerty and Zheng 2005,
  Biometrics 61:92). Its variance is the infinitesimal jackknife's over patients (Hoeffding's
  projection).
- *Curves*: the product-limit estimate over intervals (Kaplan and Meier 1958), Greenwood's variance,
  and Wilson's interval at the number of patients that this variance would need (Dorey and Korn
  1987, Stat Med 6:679).

Counts that privacy noise made negative are taken as they are in sums over bins, and as zero where a
single one divides.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.shared.figures.risk_curves import Share, wilson
from consilium.shared.figures.score_counts import Edges, bin_centers, count_scores, logit_interval

RISK_GROUPS, CALIBRATION_GROUPS = 3, 10
_SURE = 3.0  # deviations of the noise below which a sum is not told from none

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RiskGroup:
    """Patients of neighbouring risks.

    predicted: mean risk by the horizon. patients: how many. curve: share without the event at the
    end of each interval.
    """

    predicted: float
    patients: float
    curve: tuple[Share, ...]

    @property
    def observed(self) -> Share:
        """The share with the event by the horizon, losses allowed for."""
        end = self.curve[-1]
        return Share(value=1 - end.value, low=1 - end.high, high=1 - end.low)


@dataclass(frozen=True, kw_only=True)
class SurvivalFigures:
    """What counts say of a survival model.

    Attributes:
        patients: whose first interval is known.
        events: that came within the horizon.
        c_index: with its interval.
        error: by how much bins may move the C-index.
        aucs: of each interval; None where nobody had the event or nobody lived through it.
        whole: all patients as one group.
        risk_groups: about thirds of the patients, risks ascending.
        calibration: about tenths.
    """

    patients: float
    events: float
    c_index: Share
    error: float
    aucs: tuple[float | None, ...]
    whole: RiskGroup
    risk_groups: tuple[RiskGroup, ...]
    calibration: tuple[RiskGroup, ...]

    @property
    def ratio(self) -> Share | None:
        """Observed over predicted risk by the horizon; None where nothing was predicted."""
        expected, seen = self.whole.predicted, self.whole.observed
        if not expected > 0:
            return None
        return Share(*(each / expected for each in (seen.value, seen.low, seen.high)))

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, as in ``run.json``."""
        return asdict(self)


def count_intervals(
    risk_R: Array, label_RK: NDArray[np.float32], weight_R: Array, edges_KL: NDArray[np.float32]
) -> Array:
    """Return the weight (K, 2, B) of risks by interval and outcome, without unknown labels.

    Args:
        risk_R: by the horizon.
        label_RK: of each interval, as :func:`consilium.shared.study.survival.interval_labels` has
            them.
        weight_R: of each row; those of a patient's rows sum to one.
        edges_KL: of the bins of each interval; all the same, for figures to be made of them.
    """
    tables = []
    for label_R, edges_L in zip(label_RK.T, edges_KL, strict=True):
        known_R = ~np.isnan(label_R)
        outcome_R = label_R[known_R] == 1
        tables.append(count_scores(risk_R[known_R], outcome_R, weight_R[known_R], edges_L))
    return np.stack(tables)


def figures_from_counts(
    counts_K2B: Array, edges_L: Edges, *, noise: float = 0.0, expected: float | None = None
) -> SurvivalFigures | None:
    """Return the figures of the patients counted, or None where no pair can be compared.

    Args:
        counts_K2B: as :func:`count_intervals` returns them, summed over patients.
        edges_L: of the bins.
        noise: standard deviation of the privacy noise on each count.
        expected: sum of the patients' risks, where it is known better than by bins.
    """
    found = _c_index(counts_K2B, noise)
    entered_B = counts_K2B[0].sum(axis=0)
    patients = float(entered_B.sum())
    deviation = noise * math.sqrt(2 * counts_K2B.shape[2])
    if found is None or patients <= _SURE * deviation:
        return None
    c_index, error, aucs = found
    everywhere = np.zeros(counts_K2B.shape[2], dtype=np.int64)
    (whole,) = _groups(counts_K2B, edges_L, everywhere, noise)
    if expected is not None:
        predicted = min(max(expected / patients, 0.0), 1.0)
        whole = RiskGroup(predicted=predicted, patients=whole.patients, curve=whole.curve)
    return SurvivalFigures(
        patients=patients,
        events=max(float(counts_K2B[:, 1].sum()), 0.0),
        c_index=c_index,
        error=error,
        aucs=aucs,
        whole=whole,
        risk_groups=_groups(counts_K2B, edges_L, _split(entered_B, RISK_GROUPS), noise),
        calibration=_groups(counts_K2B, edges_L, _split(entered_B, CALIBRATION_GROUPS), noise),
    )


def curve_of(at_risk_K: Array, events_K: Array, *, noise: float = 0.0) -> tuple[Share, ...]:
    """Return the share without the event at the end of each interval, with its 95 % interval.

    Args:
        at_risk_K: patients known through each interval or to have the event in it.
        events_K: of them, those who had it.
        noise: standard deviation of the privacy noise on each of the two outcomes' sums.
    """
    left, spread, found = 1.0, 0.0, []
    fewest = math.inf
    for at_risk, events in zip(at_risk_K.tolist(), events_K.tolist(), strict=True):
        events = min(max(events, 0.0), max(at_risk, 0.0))
        lived = max(at_risk, 0.0) - events
        if at_risk > 0:
            fewest = min(fewest, at_risk)
            left *= lived / at_risk
            if lived > 0:  # else the share is 0, and its deviation with it
                spread += events / (at_risk * lived)
                spread += noise**2 * (1 / at_risk**2 + (1 / lived - 1 / at_risk) ** 2)
        variance = left**2 * spread
        worth = fewest if math.isfinite(fewest) else 1.0
        if variance > 0 and left < 1:
            worth = left * (1 - left) / variance
        found.append(wilson(left * worth, worth))
    return tuple(found)


def _groups(
    counts_K2B: Array, edges_L: Edges, group_B: NDArray[np.int64], noise: float
) -> tuple[RiskGroup, ...]:
    """Return the groups of bins that hold anybody, in order."""
    centers_B, entered_B = bin_centers(edges_L), counts_K2B[0].sum(axis=0)
    found = []
    for group in range(int(group_B.max()) + 1):
        mine_B = group_B == group
        patients = float(entered_B[mine_B].sum())
        if patients <= _SURE * noise * math.sqrt(2 * mine_B.sum()):
            continue
        weight_B = np.maximum(entered_B[mine_B], 0.0)
        lived_K, came_K = counts_K2B[:, :, mine_B].sum(axis=2).T
        curve = curve_of(lived_K + came_K, came_K, noise=noise * math.sqrt(mine_B.sum()))
        predicted = float((weight_B * centers_B[mine_B]).sum() / weight_B.sum())
        found.append(RiskGroup(predicted=predicted, patients=patients, curve=curve))
    return tuple(found)


def _split(entered_B: Array, groups: int) -> NDArray[np.int64]:
    """Return the group (B,) of each bin: neighbours together, nearly equal numbers of patients."""
    total_B = np.maximum(entered_B, 0.0)
    middle_B = (np.cumsum(total_B) - 0.5 * total_B) / max(total_B.sum(), 1e-300)
    return np.asarray(np.clip(middle_B * groups, 0, groups - 1).astype(np.int64))


def _c_index(
    counts_K2B: Array, noise: float
) -> tuple[Share, float, tuple[float | None, ...]] | None:
    """Return the C-index, what bins may move it by, and the AUC of each interval."""
    lived_KB, came_KB = counts_K2B[:, 0], counts_K2B[:, 1]
    below_KB = np.cumsum(lived_KB, axis=1) - 0.5 * lived_KB  # lived through it at a lower risk
    above_KB = came_KB.sum(axis=1, keepdims=True) - np.cumsum(came_KB, axis=1) + 0.5 * came_KB
    right_K = (came_KB * below_KB).sum(axis=1)
    pairs_K = came_KB.sum(axis=1) * lived_KB.sum(axis=1)
    pairs_K = np.where((came_KB.sum(axis=1) > 0) & (lived_KB.sum(axis=1) > 0), pairs_K, 0.0)
    pairs = float(pairs_K.sum())
    if not pairs > 0:
        return None
    value = float(np.clip(right_K[pairs_K > 0].sum() / pairs, 0.0, 1.0))
    tied = (np.maximum(came_KB, 0) * np.maximum(lived_KB, 0)).sum() / pairs
    # what one more patient in each cell would move the C-index by
    of_came_KB = (below_KB - value * lived_KB.sum(axis=1, keepdims=True)) / pairs
    of_lived_KB = (above_KB - value * came_KB.sum(axis=1, keepdims=True)) / pairs
    lived_so_far_KB = np.cumsum(of_lived_KB, axis=0)
    before_KB = lived_so_far_KB - of_lived_KB
    next_KB = np.concatenate([counts_K2B[1:].sum(axis=1), np.zeros_like(lived_KB[:1])])
    lost_KB = np.maximum(lived_KB - next_KB, 0.0)  # after having lived through the interval
    variance = float(
        (np.maximum(came_KB, 0) * (of_came_KB + before_KB) ** 2).sum()
        + (lost_KB * lived_so_far_KB**2).sum()
        + noise**2 * ((of_came_KB**2).sum() + (of_lived_KB**2).sum())
    )
    aucs = tuple(
        float(np.clip(right / of, 0.0, 1.0)) if of > 0 else None
        for right, of in zip(right_K.tolist(), pairs_K.tolist(), strict=True)
    )
    low, high = logit_interval(value, math.sqrt(variance))
    return Share(value=value, low=low, high=high), 0.5 * float(tied), aucs
