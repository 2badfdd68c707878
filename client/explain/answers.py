"""What a model's outputs mean, told with each of them: value, and how such values turned out.

For a risk: the share of validation patients in the same band of risk who had the outcome, with its
95 % interval (:mod:`consilium.shared.figures.operating_range`). Where it does not hold the risk
itself, the model is not calibrated there, and the share is the better number. For a predicted
quantity: an interval that holds 95 % of errors, were they normal with the validation patients' mean
square.
"""

from typing import Any

import torch
from torch import Tensor

from consilium.shared.export.signed_model import SignedModel
from consilium.shared.figures.operating_range import band_of
from consilium.shared.figures.score_counts import NORMAL_95
from consilium.shared.model.network import RecurrentModel

MEANING = {
    "share": "observed: share of validation patients with a risk like this who had the outcome; "
    "low and high: its 95 % Wilson interval",
    "errors": "low and high: value +- 1.96 times the root of the validation patients' mean "
    "squared error, which holds 95 % of normal errors",
    "none": "no interval: the study kept no validation patients",
}


def meaning(signed: SignedModel) -> str:
    """Say in one line what the intervals of this model's answers are."""
    told = signed.trained.validation
    if told is None:
        return MEANING["none"]
    return MEANING["errors" if signed.trained.study.task.kind == "regression" else "share"]


def answer(signed: SignedModel, output: int, value: float) -> dict[str, Any]:
    """Return one output's answer as plain data: ``name``, ``value``, and what is known of it.

    A risk has ``observed``, ``low``, ``high`` and ``alarms``, the names of the thresholds that it
    reaches; a predicted quantity has ``low`` and ``high``. What is not known is left out.
    """
    told = signed.trained.validation
    found: dict[str, Any] = {"name": signed.manifest.outputs[output], "value": value}
    if told is None:
        return found
    if signed.trained.study.task.kind == "regression":
        error = told.errors[output] if told.errors else None
        if error is not None:
            found |= {"low": value - NORMAL_95 * error, "high": value + NORMAL_95 * error}
        return found
    band = band_of(told.bands[output], value) if told.bands else None
    if band is not None:
        found |= {
            "observed": band.observed,
            "low": band.observed_low,
            "high": band.observed_high,
        }
    points = told.thresholds[output] if told.thresholds else ()
    return found | {"alarms": [point.name for point in points if value >= point.threshold]}


def effect_scale(model: RecurrentModel, logits: Tensor) -> Tensor:
    """Return outputs on the scale on which effects add up: log-odds, or the predicted quantity.

    Args:
        model: says what its logits (..., O) are.
        logits: a class's log-odds are those against all other classes.
    """
    if model.task.kind == "regression":
        return model.scores(logits)
    if model.task.kind != "multiclass":
        return logits
    outputs = logits.shape[-1]
    own = torch.eye(outputs, dtype=torch.bool)
    others = logits.unsqueeze(-2).expand(*logits.shape[:-1], outputs, outputs)
    return logits - torch.logsumexp(others.masked_fill(own, -torch.inf), dim=-1)
