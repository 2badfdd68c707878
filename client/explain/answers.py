"""What is reported with each output: its value, and how such values turned out in validation.

For a risk: the share of validation patients in the same band of risk who had the outcome, with its
95 % interval (:mod:`consilium.shared.figures.operating_range`). If the interval does not contain
the risk itself, the model is not calibrated there, and the share is the better number. For a
predicted
quantity: the interval that would hold 95 % of errors if these were normal with the validation
patients' mean square error.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilium.shared.export.signed_model import SignedModel
from consilium.shared.figures.operating_range import band_of
from consilium.shared.figures.score_counts import NORMAL_95
from consilium.shared.model.branch import Branch
from consilium.shared.model.survival import log_odds_by_cut

TOP = 3
LEAST_EFFECT = 1e-9  # smaller effects are rounding errors
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


def answers_of(
    signed: SignedModel, logits_NK: NDArray[np.float64], columns: Sequence[str], *, reasons: bool
) -> list[dict[str, Any]]:
    """Return every output as :func:`answer` does, with ``reasons`` if asked.

    A reason is a ``variable`` and its ``effect``: how much lower the log-odds, or the predicted
    quantity, would be without it.

    Args:
        signed: the model.
        logits_NK: of the stay, then, for reasons, of the stay without each column.
        columns: names of the columns.
        reasons: whether to say them.
    """
    model, logits = signed.trained.model, torch.from_numpy(logits_NK)
    effect_NK = effect_scale(model, logits).numpy()
    effect_CK = effect_NK[0] - effect_NK[1:]
    found = []
    for output, score in enumerate(model.scores(logits[0]).tolist()):
        shown = answer(signed, output, score)
        if reasons:
            shown["reasons"] = _reasons(effect_CK[:, output], columns)
        found.append(shown)
    return found


def _reasons(effect_C: NDArray[np.float64], columns: Sequence[str]) -> list[dict[str, Any]]:
    order = np.argsort(-np.abs(effect_C), kind="stable")[:TOP]
    return [
        {"variable": columns[column], "effect": float(effect_C[column])}
        for column in order
        if abs(effect_C[column]) > LEAST_EFFECT
    ]


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
