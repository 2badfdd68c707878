"""Predictions for patients, computed for a bounded number of stays at a time."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilium.client.records.features import PatientTensors
from consilium.shared.model.network import RecurrentModel


def predict(
    model: RecurrentModel, x_NTF: Tensor, mask_NT: Tensor, *, rows: int = 512
) -> NDArray[np.float64]:
    """Return scores (N, K), or (N, T, K) per step, ``rows`` stays at a time."""
    model.eval()
    with torch.no_grad():
        parts = [
            model.scores(model(x_NTF[start : start + rows], mask_NT[start : start + rows]))
            for start in range(0, len(x_NTF), rows)
        ]
    scores: NDArray[np.float64] = torch.cat(parts).double().numpy()
    return scores


def predict_with_loss(
    model: RecurrentModel, patients: PatientTensors, *, rows: int = 512
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores as :func:`predict` does, and every stay's loss (N,)."""
    model.eval()
    scores, losses = [], []
    with torch.no_grad():
        for start in range(0, len(patients.x_NTF), rows):
            piece = slice(start, start + rows)
            mask_NT = patients.mask_NT[piece]
            logits = model(patients.x_NTF[piece], mask_NT)
            scores.append(model.scores(logits))
            losses.append(model.loss_per_stay(logits, patients.y_N[piece], mask_NT))
    return torch.cat(scores).double().numpy(), torch.cat(losses).double().numpy()
