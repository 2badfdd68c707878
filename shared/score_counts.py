"""Counts of predicted risks per bin and outcome: all that evaluation needs to leave a site.

Bins lie between log-odds of -12 and 12, fine in the middle, where clinical risks live, and wider
outwards (equally wide in asinh(log-odds / 2)), with one open bin at each end. Sums of counts over
sites give the metrics of the pooled patients, up to ties within bins: with ``p_B`` and ``n_B`` the
shares of positives and negatives in each bin, the AUROC is off by at most ``0.5 * sum(p_B * n_B)``
(all pairs that share a bin counted one half). Above and below an edge nothing is lost: sensitivity
and alarms at an edge are exact (:mod:`shared.risk_curves`).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_LOGIT = 12.0
_BEND = 2.0  # log-odds where bins begin to widen
NORMAL_95 = 1.959963984540054  # two-sided 95 % quantile of the standard normal


@dataclass(frozen=True, kw_only=True)
class BinaryMetrics:
    """Discrimination and calibration of risks.

    ``auroc_low`` and ``auroc_high`` bound a 95 % interval of sampling and of privacy noise;
    ``auroc_error`` bounds the effect of binning, which comes on top.
    """

    auroc: float
    auroc_low: float
    auroc_high: float
    auprc: float
    brier: float
    log_loss: float
    auroc_error: float
    positives: float
    negatives: float


def bin_edges(bins: int) -> NDArray[np.float64]:
    """Return the ``bins - 1`` inner edges, as risks in (0, 1)."""
    reach = math.asinh(LARGEST_LOGIT / _BEND)
    return _sigmoid(_BEND * np.sinh(np.linspace(-reach, reach, bins - 1)))


def bin_centers(bins: int) -> NDArray[np.float64]:
    """Return one representative risk for each bin, the middle of the bin on the bins' scale."""
    reach = math.asinh(LARGEST_LOGIT / _BEND)
    width = 2 * reach / max(bins - 2, 1)
    return _sigmoid(_BEND * np.sinh(-reach - width / 2 + width * np.arange(bins)))


def count_scores(
    scores_N: NDArray[np.float64],
    outcomes_N: NDArray[np.bool_],
    weights_N: NDArray[np.float64],
    bins: int,
) -> NDArray[np.float64]:
    """Return the weight of scores in each bin: row 0 for outcome 0, row 1 for outcome 1.

    Args:
        scores_N: predicted risks in [0, 1].
        outcomes_N: what happened.
        weights_N: weight of each score; a patient's weights sum to one, however many stays.
        bins: number of bins B.

    Returns:
        Array of shape (2, B).
    """
    index_N = np.searchsorted(bin_edges(bins), scores_N, side="right")
    flat = np.bincount(
        index_N + bins * outcomes_N.astype(np.int64), weights=weights_N, minlength=2 * bins
    )
    return flat.astype(np.float64).reshape(2, bins)


def metrics_from_counts(
    counts_2B: NDArray[np.float64], *, noise: float = 0.0
) -> BinaryMetrics | None:
    """Return the metrics of the pooled scores, or None when an outcome does not occur.

    AUROC is the Mann-Whitney statistic with ties one half; AUPRC is average precision over the bin
    edges. Counts may be negative where privacy noise was added. Sums over bins take them as they
    are, because cutting them at zero would shift every empty bin upwards; AUPRC, which divides bin
    by bin, takes them as zero.

    Args:
        counts_2B: as :func:`count_scores` returns them, summed over patients.
        noise: standard deviation of the privacy noise on each count.
    """
    negative_B, positive_B = counts_2B
    negatives, positives = float(negative_B.sum()), float(positive_B.sum())
    if negatives <= 0 or positives <= 0:
        return None
    share_n_B, share_p_B = negative_B / negatives, positive_B / positives
    below_B = np.cumsum(share_n_B) - 0.5 * share_n_B
    above_B = 1.0 - np.cumsum(share_p_B) + 0.5 * share_p_B
    auroc = float(np.clip(np.sum(share_p_B * below_B), 0.0, 1.0))
    variance = _auroc_variance(counts_2B, below_B, above_B, auroc, noise)
    low, high = _logit_interval(auroc, math.sqrt(variance))
    centers_B = bin_centers(counts_2B.shape[1])
    total = negatives + positives
    squares = positive_B * (1 - centers_B) ** 2 + negative_B * centers_B**2
    logs = positive_B * np.log(centers_B) + negative_B * np.log1p(-centers_B)
    return BinaryMetrics(
        auroc=auroc,
        auroc_low=low,
        auroc_high=high,
        auprc=_average_precision(*np.maximum(counts_2B, 0.0)),
        brier=float(np.clip(squares.sum() / total, 0.0, 1.0)),
        log_loss=float(max(-logs.sum() / total, 0.0)),
        auroc_error=float(0.5 * np.sum(np.maximum(share_p_B, 0) * np.maximum(share_n_B, 0))),
        positives=positives,
        negatives=negatives,
    )


def _auroc_variance(
    counts_2B: NDArray[np.float64],
    below_B: NDArray[np.float64],
    above_B: NDArray[np.float64],
    auroc: float,
    noise: float,
) -> float:
    """Return the variance of the AUROC: DeLong et al. (1988), and by propagation that of noise.

    ``below_B`` and ``above_B`` are the placement values: the share of negatives below, and of
    positives above, a score in each bin. Each unit of weight counts as one independent patient.
    """
    negatives, positives = counts_2B.sum(axis=1)
    of_positive_B, of_negative_B = (below_B - auroc) ** 2, (above_B - auroc) ** 2
    negative_B, positive_B = counts_2B
    sampling = (
        max(float(np.sum(positive_B * of_positive_B)), 0.0) / (positives * max(positives - 1, 1))
    ) + max(float(np.sum(negative_B * of_negative_B)), 0.0) / (negatives * max(negatives - 1, 1))
    added = noise**2 * (np.sum(of_positive_B) / positives**2 + np.sum(of_negative_B) / negatives**2)
    return float(sampling + added)


def _logit_interval(value: float, deviation: float) -> tuple[float, float]:
    """Return a 95 % interval inside [0, 1], symmetric in log-odds (Pepe 2003, section 5.2.4).

    At 0 and 1 log-odds are infinite: what sampling or noise could do is then not known, and the
    interval is whole.
    """
    if not 0 < value < 1:
        return 0.0, 1.0
    logit = math.log(value / (1 - value))
    reach = NORMAL_95 * deviation / (value * (1 - value))
    low, high = (0.5 * (1 + math.tanh(0.5 * (logit + sign * reach))) for sign in (-1, 1))
    return low, high


def _average_precision(negative_B: NDArray[np.float64], positive_B: NDArray[np.float64]) -> float:
    """Sum of precision times recall gained, thresholds from high to low."""
    true_B = np.cumsum(positive_B[::-1])
    flagged_B = true_B + np.cumsum(negative_B[::-1])
    precision_B = np.divide(true_B, flagged_B, out=np.zeros_like(true_B), where=flagged_B > 0)
    return float(np.sum(precision_B * positive_B[::-1]) / true_B[-1])


def _sigmoid(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    risks: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits))
    return risks
