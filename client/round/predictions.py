"""Predictions for patients, computed for a bounded number of stays at a time.

Guarantee: every score and loss is finite, also where the model's are not, as with weights made to
overflow; a probability lies within [0, 1], and a loss is at least 0. So nothing that is computed
from them can fail for one patient and not for another.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilium.client.records.features import PatientTensors
from consilium.shared.model.branch import Branch
from consilium.shared.model.survival import hazards
from consilium.shared.rounds.contents import LARGEST_LOSS


def predict(
    model: Branch, x_NTF: Tensor, mask_NT: Tensor, *, rows: int = 512
) -> NDArray[np.float64]:
    """Return scores (N, K), or (N, T, K) per step, ``rows`` stays at a time."""
    return _predicted(model, x_NTF, mask_NT, model.scores, rows)


def predict_hazards(
    model: Branch, x_NTF: Tensor, mask_NT: Tensor, *, rows: int = 512
) -> NDArray[np.float64]:
    """Return the hazards (N, K) of a survival model's intervals, ``rows`` stays at a time."""
    return _predicted(model, x_NTF, mask_NT, hazards, rows)


def _predicted(
    model: Branch, x_NTF: Tensor, mask_NT: Tensor, of: Callable[[Tensor], Tensor], rows: int
) -> NDArray[np.float64]:
    """Return what a function makes of the logits, ``rows`` stays at a time."""
    model.eval()
    with torch.no_grad():
        parts = [
            of(model(x_NTF[start : start + rows], mask_NT[start : start + rows]))
            for start in range(0, len(x_NTF), rows)
        ]
    return _finite_scores(model, torch.cat(parts))


def predict_with_loss(
    model: Branch, patients: PatientTensors, *, rows: int = 512
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores as :func:`predict` does, and every stay's loss (N,).

    A loss that is not a number counts ``LARGEST_LOSS``.
    """
    model.eval()
    scores, losses = [], []
    with torch.no_grad():
        for start in range(0, len(patients.x_NTF), rows):
            piece = slice(start, start + rows)
            mask_NT = patients.mask_NT[piece]
            logits = model(patients.x_NTF[piece], mask_NT)
            scores.append(model.scores(logits))
            losses.append(model.loss_per_stay(logits, patients.y_N[piece], mask_NT))
    loss_N = torch.cat(losses).double().nan_to_num(nan=LARGEST_LOSS).clamp(min=0)
    return _finite_scores(model, torch.cat(scores)), loss_N.numpy()


def _finite_scores(model: Branch, scores: Tensor) -> NDArray[np.float64]:
    """Return scores that are numbers: else probability 0, or in regression the task's center."""
    regression = model.task.kind == "regression"
    finite = scores.nan_to_num(nan=model.task.center if regression else 0.0).double()
    result: NDArray[np.float64] = finite.numpy()
    return result
