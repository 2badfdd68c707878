"""Counts of predicted risks per bin and outcome: all that evaluation needs to leave a site.

Sums of counts over sites give the metrics of the pooled patients, up to ties within bins: with
``p_B`` and ``n_B`` the shares of positives and negatives in each bin, the AUROC is off by at most
``0.5 * sum(p_B * n_B)`` (all pairs that share a bin counted one half; a bin that is one float32
number wide loses nothing). Above and below an edge nothing is lost: sensitivity and alarms at an
edge are exact (:mod:`consilium.shared.figures.risk_curves`).

Bins are first placed where clinical risks lie (:func:`first_edges`), and then where the last
counts found risks (:func:`finer_edges`): a model of few rounds gives everybody nearly the same
risk, and no fixed bins tell such risks apart. With every bin holding the same share of positives
and negatives taken together, that bound is ``0.5 / B`` at most.

Edges are ascending float32 risks; a risk on an edge is above it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_LOGIT = 12.0
_BEND = 2.0  # log-odds where bins begin to widen
_REACH = (-104.0, 17.5)  # log-odds beyond which float32 has no risk but 0 and 1
_SPURIOUS = 2.0  # standard deviations of privacy noise below which a count attracts no edges
_LEAST = np.finfo(np.float32).smallest_subnormal  # only 0 is below it
NORMAL_95 = 1.959963984540054  # two-sided 95 % quantile of the standard normal

Edges = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BinaryMetrics:
    """Discrimination and calibration of risks.

    ``auroc_low`` and ``auroc_high`` bound a 95 % interval of sampling and of privacy noise;
    ``auroc_error`` bounds the effect of binning, which comes on top. Where counts carry privacy
    noise the bound is itself an estimate, on the high side.
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


def first_edges(bins: int, thresholds: Sequence[float] = ()) -> Edges:
    """Return the edges of a first look, all thresholds among them.

    Bins lie between log-odds of -12 and 12, fine in the middle and wider outwards (equally wide in
    asinh(log-odds / 2)), with one open bin at each end.
    """
    return _complete(_spread(bins - 1 - len(thresholds)), thresholds, bins)


def finer_edges(
    counts_2B: NDArray[np.float64],
    edges_L: Edges,
    thresholds: Sequence[float] = (),
    *,
    noise: float = 0.0,
) -> Edges:
    """Return as many edges, dense where the counts found risks, all thresholds among them.

    The new bins share positives and negatives, each outcome weighing one half, equally, as far as
    counts within the old bins can be taken as even in log-odds. Repeated, that narrows in on any
    crowd of risks, by about B times each time. Without counts of both outcomes the edges stay.

    Args:
        counts_2B: as :func:`count_scores` returns them, by these edges.
        edges_L: the old edges.
        thresholds: risks that stay edges.
        noise: standard deviation of the privacy noise on each count.
    """
    bins = len(edges_L) + 1
    counts_2B = np.where(counts_2B > _SPURIOUS * noise, counts_2B, 0.0)
    totals_2 = counts_2B.sum(axis=1)
    if not (totals_2 > 0).all():
        return edges_L
    share_B = (counts_2B / totals_2[:, None]).sum(axis=0) / 2
    bounds = np.concatenate(([_REACH[0]], np.clip(_logits(edges_L), *_REACH), [_REACH[1]]))
    below = np.concatenate(([0.0], np.cumsum(share_B)))
    wanted = np.arange(1, bins - len(thresholds)) / (bins - len(thresholds))
    place = np.searchsorted(below[1:], wanted, side="left").clip(0, bins - 1)
    inside = (wanted - below[place]) / np.maximum(share_B[place], 1e-300)
    logits = bounds[place] + np.clip(inside, 0, 1) * (bounds[place + 1] - bounds[place])
    return _complete(_sigmoid(logits), thresholds, bins)


def bin_centers(edges_L: Edges) -> NDArray[np.float64]:
    """Return one representative risk for each bin: its middle in log-odds; (B,).

    Of the open bins, half the risk below the first edge and half of what is above the last.
    """
    logit_L = np.clip(_logits(edges_L), *_REACH)
    inner = _sigmoid((logit_L[1:] + logit_L[:-1]) / 2)
    low, high = float(edges_L[0]) / 2, 1 - (1 - float(edges_L[-1])) / 2
    return np.concatenate(([low], inner, [min(high, float(_sigmoid(np.array(_REACH[1]))))]))


def count_scores(
    scores_R: NDArray[np.float64],
    outcomes_R: NDArray[np.bool_],
    weights_R: NDArray[np.float64],
    edges_L: Edges,
) -> NDArray[np.float64]:
    """Return the weight of scores in each bin: row 0 for outcome 0, row 1 for outcome 1.

    Args:
        scores_R: predicted risks in [0, 1].
        outcomes_R: what happened.
        weights_R: weight of each score; a patient's weights sum to one, however many stays.
        edges_L: of the bins.

    Returns:
        Array of shape (2, B).
    """
    bins = len(edges_L) + 1
    index_R = np.searchsorted(edges_L.astype(np.float64), scores_R, side="right")
    flat = np.bincount(
        index_R + bins * outcomes_R.astype(np.int64), weights=weights_R, minlength=2 * bins
    )
    return flat.astype(np.float64).reshape(2, bins)


def metrics_from_counts(
    counts_2B: NDArray[np.float64], edges_L: Edges, *, noise: float = 0.0
) -> BinaryMetrics | None:
    """Return the metrics of the pooled scores, or None when an outcome does not occur.

    AUROC is the Mann-Whitney statistic with ties one half; AUPRC is average precision over the bin
    edges. Counts may be negative where privacy noise was added. Sums over bins take them as they
    are, because cutting them at zero would shift every empty bin upwards; AUPRC, which divides bin
    by bin, takes them as zero.

    Args:
        counts_2B: as :func:`count_scores` returns them, summed over patients.
        edges_L: of the bins.
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
    low, high = logit_interval(auroc, math.sqrt(variance))
    centers_B = bin_centers(edges_L)
    total = negatives + positives
    squares = positive_B * (1 - centers_B) ** 2 + negative_B * centers_B**2
    logs = positive_B * np.log(centers_B) + negative_B * np.log1p(-centers_B)
    tied_B = np.maximum(share_p_B, 0) * np.maximum(share_n_B, 0) * _holds_several(edges_L)
    return BinaryMetrics(
        auroc=auroc,
        auroc_low=low,
        auroc_high=high,
        auprc=_average_precision(*np.maximum(counts_2B, 0.0)),
        brier=float(np.clip(squares.sum() / total, 0.0, 1.0)),
        log_loss=float(max(-logs.sum() / total, 0.0)),
        auroc_error=float(0.5 * np.sum(tied_B)),
        positives=positives,
        negatives=negatives,
    )


def _spread(edges: int) -> NDArray[np.float64]:
    reach = math.asinh(LARGEST_LOGIT / _BEND)
    return _sigmoid(_BEND * np.sinh(np.linspace(-reach, reach, edges)))


def _complete(
    risks: NDArray[np.float64], thresholds: Sequence[float], bins: int
) -> NDArray[np.float32]:
    """Return ``bins - 1`` different float32 edges: the thresholds, the risks, others if need be."""
    fixed = np.array(thresholds, dtype=np.float32)
    edges_L = np.union1d(np.clip(risks, _LEAST, 1.0).astype(np.float32), fixed)
    spare = 2 * bins
    while len(edges_L) < bins - 1:
        others = np.setdiff1d(_spread(spare).astype(np.float32), edges_L)
        missing = bins - 1 - len(edges_L)
        chosen = others[np.linspace(0, len(others) - 1, min(missing, len(others))).astype(int)]
        edges_L = np.union1d(edges_L, chosen)
        spare *= 2
    return np.asarray(edges_L[: bins - 1], dtype=np.float32)


def _holds_several(edges_L: Edges) -> NDArray[np.bool_]:
    """Whether two different risks fit into each bin; (B,)."""
    inner = np.nextafter(edges_L[:-1], np.float32(np.inf)) < edges_L[1:]
    return np.concatenate(([bool(edges_L[0] > _LEAST)], inner, [bool(edges_L[-1] < 1)]))


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


def logit_interval(value: float, deviation: float) -> tuple[float, float]:
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


def _logits(risks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        risks64 = risks.astype(np.float64)
        logits: NDArray[np.float64] = np.log(risks64) - np.log1p(-risks64)
    return logits
