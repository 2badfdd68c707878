"""What is reported with each output: its value, and how such values turned out in validation.

For a risk: the share of validation patients in the same band of risk who had the outcome, with its
95 % interval (:mod:`consilium.shared.figures.operating_range`). If the interval does not contain
the risk itself, the model is not calibrated there, and the share is the better number. For a
predicted
quantity: the interval that would hold 95 % of errors if these were normal with the validation
patients' mean square error.
"""

from typing import Any

import torch
from torch import Tensor

from consilium.shared.export.signed_model import SignedModel
from consilium.shared.figures.operating_range import band_of
from consilium.shared.figures.score_counts import NORMAL_95
from consilium.shared.model.branch import Branch
from consilium.shared.model.survival import log_odds_by_cut

MEANING = {
    "share": "observed: share of validation patients with a risk like this who had the outcome; "
    "low and high: its 95 % Wilson interval",
    "errors": "low and high: value +- 1.96 times the root of the validation patients' mean "
    "squared error, which holds 95 % of normal errors",
    "none": "no interval: the study kept no validation patients",
}


def meaning(signed: SignedModel) -> str:
    """Return one line that explains the intervals in this model's answers."""
    validation = signed.trained.validation
    if validation is None:
        return MEANING["none"]
    return MEANING["errors" if signed.trained.study.task.kind == "regression" else "share"]


def answer(signed: SignedModel, output: int, value: float) -> dict[str, Any]:
    """Return one output as plain data: ``name``, ``value``, and what validation says of it.

    A risk has ``observed``, ``low``, ``high``, and ``alarms``, the names of the thresholds that it
    reaches; a predicted quantity has ``low`` and ``high``. Unknown fields are left out.
    """
    validation = signed.trained.validation
    found: dict[str, Any] = {"name": signed.manifest.outputs[output], "value": value}
    if validation is None:
        return found
    if signed.trained.study.task.kind == "regression":
        error = validation.errors[output] if validation.errors else None
        if error is not None:
            found |= {"low": value - NORMAL_95 * error, "high": value + NORMAL_95 * error}
        return found
    band = band_of(validation.bands[output], value) if validation.bands else None
    if band is not None:
        found |= {
            "observed": band.observed,
            "low": band.observed_low,
            "high": band.observed_high,
        }
    points = validation.thresholds[output] if validation.thresholds else ()
    return found | {"alarms": [point.name for point in points if value >= point.threshold]}


def effect_scale(model: Branch, logits: Tensor) -> Tensor:
    """Return outputs on the scale on which effects add up: log-odds, or the predicted quantity.

    Args:
        model: its task says what the logits (..., O) are.
        logits: for classes, each output's log-odds are those against all other classes; for
            survival, of the risk by the end of each interval.
    """
    if model.task.kind == "survival":
        return log_odds_by_cut(logits)
    if model.task.kind == "regression":
        return model.scores(logits)
    if model.task.kind != "multiclass":
        return logits
    outputs = logits.shape[-1]
    own = torch.eye(outputs, dtype=torch.bool)
    others = logits.unsqueeze(-2).expand(*logits.shape[:-1], outputs, outputs)
    return logits - torch.logsumexp(others.masked_fill(own, -torch.inf), dim=-1)
