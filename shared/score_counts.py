"""Counts of predicted risks per bin and outcome: all that evaluation needs to leave a site.

Bins are equally wide in log-odds between -6 and 6, where clinical risks live, with one open bin at
each end. Sums of counts over sites give the metrics of the pooled patients, up to ties within bins:
with ``p_B`` and ``n_B`` the shares of positives and negatives in each bin, the AUROC is off by at
most ``0.5 * sum(p_B * n_B)`` (all pairs that share a bin counted one half).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_LOGIT = 6.0


@dataclass(frozen=True, kw_only=True)
class BinaryMetrics:
    """Discrimination and calibration of risks; ``auroc_error`` bounds the effect of binning."""

    auroc: float
    auprc: float
    brier: float
    log_loss: float
    auroc_error: float
    positives: float
    negatives: float


def bin_edges(bins: int) -> NDArray[np.float64]:
    """Return the ``bins - 1`` inner edges, as risks in (0, 1)."""
    return _sigmoid(np.linspace(-LARGEST_LOGIT, LARGEST_LOGIT, bins - 1))


def bin_centers(bins: int) -> NDArray[np.float64]:
    """Return one representative risk for each bin, the middle of the bin in log-odds."""
    width = 2 * LARGEST_LOGIT / max(bins - 2, 1)
    first = -LARGEST_LOGIT - width / 2
    return _sigmoid(first + width * np.arange(bins))


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


def metrics_from_counts(counts_2B: NDArray[np.float64]) -> BinaryMetrics | None:
    """Return the metrics of the pooled scores, or None when an outcome does not occur.

    Counts may be negative where privacy noise was added; they are taken as zero. AUROC is the
    Mann-Whitney statistic with ties one half; AUPRC is average precision over the bin edges.
    """
    counts_2B = np.maximum(counts_2B, 0.0)
    negative_B, positive_B = counts_2B
    negatives, positives = float(negative_B.sum()), float(positive_B.sum())
    if negatives <= 0 or positives <= 0:
        return None
    share_n_B, share_p_B = negative_B / negatives, positive_B / positives
    below_B = np.cumsum(share_n_B) - share_n_B
    centers_B = bin_centers(counts_2B.shape[1])
    total = negatives + positives
    return BinaryMetrics(
        auroc=float(np.sum(share_p_B * (below_B + 0.5 * share_n_B))),
        auprc=_average_precision(negative_B, positive_B),
        brier=float(np.sum(positive_B * (1 - centers_B) ** 2 + negative_B * centers_B**2) / total),
        log_loss=float(
            -np.sum(positive_B * np.log(centers_B) + negative_B * np.log1p(-centers_B)) / total
        ),
        auroc_error=float(0.5 * np.sum(share_p_B * share_n_B)),
        positives=positives,
        negatives=negatives,
    )


def _average_precision(negative_B: NDArray[np.float64], positive_B: NDArray[np.float64]) -> float:
    """Sum of precision times recall gained, thresholds from high to low."""
    true_B = np.cumsum(positive_B[::-1])
    flagged_B = true_B + np.cumsum(negative_B[::-1])
    precision_B = np.divide(true_B, flagged_B, out=np.zeros_like(true_B), where=flagged_B > 0)
    return float(np.sum(precision_B * positive_B[::-1]) / true_B[-1])


def _sigmoid(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    risks: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits))
    return risks
