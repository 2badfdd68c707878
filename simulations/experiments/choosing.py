"""Which of the settings tried is taken: the study's own, unless another is better beyond noise.

The rule of one standard error (Breiman et al. 1984, Classification and Regression Trees, section
3.4.3; Hastie, Tibshirani and Friedman 2009, section 7.10): all settings whose mean lies within one
standard error of the best mean are as good as the best. Among these the study's own comes first,
then the smallest model, then the fewest rounds. The best of many is best partly by chance, so a
gain that the rule does not see is no reason to change a study.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a setting did on the folds.

    Attributes:
        by_fold: its figure in each fold.
        parameters: number of its model's parameters.
        rounds: its training rounds.
    """

    by_fold: tuple[float, ...]
    parameters: int
    rounds: int

    @property
    def mean(self) -> float:
        """The mean over folds."""
        return float(np.mean(self.by_fold))

    @property
    def standard_error(self) -> float:
        """The standard error of the mean over folds."""
        return standard_error(self.by_fold)


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of two or more values."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def gain(one: Score, other: Score, *, higher_is_better: bool) -> tuple[float, float]:
    """Return how much better ``one`` is in the mean, fold by fold, and the standard error of it."""
    sign = 1.0 if higher_is_better else -1.0
    differences = [
        sign * (mine - theirs) for mine, theirs in zip(one.by_fold, other.by_fold, strict=True)
    ]
    return float(np.mean(differences)), standard_error(differences)


def choose(scores: Sequence[Score], *, higher_is_better: bool) -> int:
    """Return the index of the setting to take; the first is the study's own.

    Args:
        scores: of all settings that could be judged, the study's own first.
        higher_is_better: whether the figure is better where it is higher.
    """
    sign = 1.0 if higher_is_better else -1.0
    best = max(scores, key=lambda one: sign * one.mean)
    within = [
        number
        for number, one in enumerate(scores)
        if sign * one.mean >= sign * best.mean - best.standard_error
    ]
    if 0 in within:
        return 0
    return min(
        within,
        key=lambda k: (scores[k].parameters, scores[k].rounds, -sign * scores[k].mean),
    )
