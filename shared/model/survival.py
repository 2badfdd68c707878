"""Survival in discrete time: a logit is an interval's hazard in log-odds; the one place for it.

With hazards h_k the risk by the end of interval k is 1 - prod_(j <= k) (1 - h_j), and log(1 - h) is
-softplus(logit). A stay's loss is the sum of the cross entropies of its known intervals: the
negative log-likelihood of the hazards, with patients who were lost leaving it from then on (Cox
1972; Singer and Willett 1993, J Educ Stat 18:155).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from consilium.shared.model.losses import in_whole_vectors
from consilium.shared.study.training import Task

_LEAST = 1e-30  # of a summed hazard: below it a risk has no logarithm in single precision


def hazards(logits: Tensor) -> Tensor:
    """Return the hazard of each interval (..., K)."""
    return in_whole_vectors(torch.sigmoid, logits)


def summed_hazards(logits: Tensor) -> Tensor:
    """Return -log of the chance of being without the event at the end of each interval (..., K)."""
    every = in_whole_vectors(functional.softplus, logits)
    total = [every[..., 0]]
    for interval in range(1, every.shape[-1]):  # one after the other: the same bits for any row
        total.append(total[-1] + every[..., interval])
    return torch.stack(total, dim=-1)


def risks_by_cut(logits: Tensor) -> Tensor:
    """Return the risk of the event by the end of each interval (..., K); the last is the horizon's.

    Guarantee: they lie within 0 and 1 and never fall.
    """
    return in_whole_vectors(lambda total: -torch.expm1(-total), summed_hazards(logits))


def log_odds_by_cut(logits: Tensor) -> Tensor:
    """Return the log-odds (..., K) of :func:`risks_by_cut`."""
    total = summed_hazards(logits).clamp(min=_LEAST)
    return total + torch.log(-torch.expm1(-total))


def first_log_odds(task: Task) -> float:
    """Return the log-odds of the hazard that, the same in every interval, gives ``prevalence``."""
    prevalence = 0.5 if task.prevalence is None else task.prevalence
    hazard = -math.expm1(math.log1p(-prevalence) / task.outputs)
    return math.log(hazard / (1 - hazard))
