"""Recalibration: log-odds corrected by patients whom the model was not trained on.

How much is corrected is chosen by the closed test of Vergouwe et al. (Stat Med 2017;36:4529-4539):
nothing, unless slope and intercept together fit better than chance explains; then the intercept
alone, unless the slope improves the fit further. The level is 1 %, since every hospital of a
federation runs this test, and each chance finding makes a good model worse (docs/decisions/115).

Counts may carry privacy noise and be negative. The equations of the fit are linear in the counts,
so they are taken as they are: cutting them at zero would shift every empty bin upwards.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from consilium.shared.figures.score_counts import NORMAL_95, Edges, bin_centers

if TYPE_CHECKING:
    from consilium.shared.model.branch import Branch

_STEPS = 50  # of Newton's method; it converges in fewer than ten where it converges
_LARGEST_STEP = 2.0  # in log-odds, so that a fit to separated outcomes does not run away at once
_LEAST_RISK = 1e-12
_CHI2_99 = (6.635, 9.210)  # 99 % quantiles of chi squared with one and with two degrees of freedom

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """Platt scaling: calibrated log-odds = ``slope`` * log-odds + ``intercept``.

    A temperature is ``1 / slope`` with an intercept of 0.
    """

    slope: float
    intercept: float

    def apply(self, risks: NDArray[np.floating[Any]]) -> Array:
        """Return calibrated risks."""
        calibrated: Array = 1 / (1 + np.exp(-self.slope * logits_of(risks) - self.intercept))
        return calibrated


NEUTRAL = Recalibration(slope=1.0, intercept=0.0)


def logits_of(risks: NDArray[np.floating[Any]]) -> Array:
    """Return log-odds; risks of 0 and 1 count as their nearest neighbours."""
    inside = np.clip(risks.astype(np.float64), _LEAST_RISK, 1 - _LEAST_RISK)
    logits: Array = np.log(inside) - np.log1p(-inside)
    return logits


def fit_recalibration(
    counts_2B: Array, edges_L: Edges, *, with_intercept: bool = True
) -> Recalibration | None:
    """Fit Platt's slope and intercept (1999) to the bins by maximum likelihood.

    Args:
        counts_2B: scores by outcome, of patients that the model was not trained on.
        edges_L: of the bins.
        with_intercept: without one this is temperature scaling (Guo et al. 2017).

    Returns:
        None where an outcome does not occur or the likelihood has no maximum, as when the
        outcomes are separated.
    """
    return _fit(logits_of(bin_centers(edges_L)), counts_2B, free=(True, with_intercept))


def recalibrate_counts(counts_2B: Array, edges_L: Edges, *, noise: float = 0.0) -> Recalibration:
    """Return what these counts justify, ``NEUTRAL`` where they justify nothing.

    Args:
        counts_2B: as in :func:`fit_recalibration`.
        edges_L: of the bins.
        noise: standard deviation of the privacy noise on each count; a better fit must
            exceed what it explains, too.
    """
    return _chosen(logits_of(bin_centers(edges_L)), counts_2B, noise)


def recalibrate_risks(
    risks_B: Array, outcomes_B: NDArray[np.bool_], weights_B: Array
) -> Recalibration:
    """Return what single risks justify; a patient's weights add up to one."""
    counts_2B = np.stack([weights_B * ~outcomes_B, weights_B * outcomes_B])
    return _chosen(logits_of(risks_B), counts_2B, 0.0)


def with_recalibration(model: "Branch", recalibrations: Sequence[Recalibration]) -> "Branch":
    """Return a copy of ``model`` whose weights give the recalibrated log-odds.

    The last layers are scaled, so whatever runs the weights (batch, stream, ONNX) says the same.

    Args:
        model: of a binary or multilabel task, whose outputs' log-odds are linear in those layers.
        recalibrations: of each output.
    """
    import torch

    changed = copy.deepcopy(model)
    slope_K = torch.tensor([r.slope for r in recalibrations])
    with torch.no_grad():
        for layer in changed.output_layers:
            layer.weight.mul_(slope_K[:, None])
            if layer.bias is not None:
                layer.bias.mul_(slope_K).add_(torch.tensor([r.intercept for r in recalibrations]))
    return changed


def _chosen(logit_B: Array, counts_2B: Array, noise: float) -> Recalibration:
    both = _fit(logit_B, counts_2B, free=(True, True))
    level = _fit(logit_B, counts_2B, free=(False, True))
    if both is not None and both.slope > 0:  # a slope below 0 would turn the order of risks round
        if not _better(both, NEUTRAL, logit_B, counts_2B, noise, _CHI2_99[1]):
            return NEUTRAL
        if level is None or _better(both, level, logit_B, counts_2B, noise, _CHI2_99[0]):
            return both
        return level
    if level is not None and _better(level, NEUTRAL, logit_B, counts_2B, noise, _CHI2_99[0]):
        return level
    return NEUTRAL


def _better(
    one: Recalibration,
    other: Recalibration,
    logit_B: Array,
    counts_2B: Array,
    noise: float,
    quantile: float,
) -> bool:
    """Whether twice the gain in log-likelihood is beyond chance, and beyond privacy noise."""
    gain_2B = 2 * (_logs(one, logit_B) - _logs(other, logit_B))
    by_noise = NORMAL_95 * noise * float(np.sqrt((gain_2B**2).sum()))
    return float((counts_2B * gain_2B).sum()) > quantile + by_noise


def _logs(known: Recalibration, logit_B: Array) -> Array:
    """Logarithms (2, B) of the chance of no outcome and of the outcome."""
    logit_B = known.slope * logit_B + known.intercept
    return -np.stack([np.logaddexp(0, logit_B), np.logaddexp(0, -logit_B)])


def _fit(logit_B: Array, counts_2B: Array, *, free: tuple[bool, bool]) -> Recalibration | None:
    """Maximum-likelihood slope and intercept; what is not ``free`` stays at 1 and 0."""
    negative_B, positive_B = counts_2B
    total_B = negative_B + positive_B
    if not (positive_B.sum() > 0 and negative_B.sum() > 0):
        return None
    chosen = np.flatnonzero(free)
    design_B2 = np.stack([logit_B, np.ones_like(logit_B)], axis=1)
    fitted = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        risk_B = 1 / (1 + np.exp(-np.clip(design_B2 @ fitted, -500, 500)))
        gradient = (design_B2.T @ (positive_B - total_B * risk_B))[chosen]
        weighted_B2 = design_B2 * (total_B * risk_B * (1 - risk_B))[:, None]
        curvature = (weighted_B2.T @ design_B2)[np.ix_(chosen, chosen)]
        strength = np.linalg.eigvalsh(curvature)
        if strength[0] <= max(1e-12 * strength[-1], 0.0):
            return None
        step = np.linalg.solve(curvature, gradient)
        fitted[chosen] += np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        if np.abs(step).max() < 1e-9:
            return Recalibration(slope=float(fitted[0]), intercept=float(fitted[1]))
    return None
