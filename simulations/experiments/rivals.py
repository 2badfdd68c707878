"""Models without recurrence as rivals of the study's model: their names, and who is better.

The difference of two models is judged on the same resamples of test patients (paired bootstrap,
Efron and Tibshirani 1993, chapter 16): it may be certain though the two intervals overlap.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from consilium.simulations.figures.metrics import HeldOutMetrics, difference

LOGISTIC, RIDGE, BOOSTING = "logistic-regression", "ridge-regression", "gradient-boosting"
HAZARD = "logistic-hazard-regression"
AGAINST = "against"
BETTER, WORSE, ALIKE = "better", "worse", "no difference beyond noise"
_OURS = ("local", "pooled", "federated")
_TITLES = {
    LOGISTIC: "a logistic regression",
    RIDGE: "a ridge regression",
    HAZARD: "a logistic regression of the hazards",
    BOOSTING: "gradient boosting",
}


def rivals_among(settings: Iterable[str]) -> list[str]:
    """Return the names of the settings of a comparison that are models without recurrence."""
    return [name for name in settings if name.split("-")[0] not in _OURS]


def rival_title(name: str) -> str:
    """Return what a rival is called within a sentence."""
    return _TITLES.get(name, f"the forecast {name.replace('-', ' ')}")


def against(
    ours: HeldOutMetrics, rivals: Mapping[str, HeldOutMetrics]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return by rival and figure how much better our model is, with intervals.

    Args:
        ours: figures of our model.
        rivals: figures of each rival on the same test patients, resampled with the same seed.
    """
    return {
        name: {figure: asdict(one) for figure, one in difference(ours, theirs).items()}
        for name, theirs in rivals.items()
    }


def standing(gain: Mapping[str, Any]) -> str:
    """Return whether a difference is ``better``, ``worse``, or within its 95 % interval nothing."""
    low, high = (math.nan if gain[bound] is None else gain[bound] for bound in ("low", "high"))
    return BETTER if low > 0 else WORSE if high < 0 else ALIKE
