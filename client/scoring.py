"""What a site says about a model: bounded sums over its validation patients, no patient's score.

Guarantee: one patient changes the vector of :func:`validation_sums` by at most
:func:`sensitivity` in L2 norm, however many stays and hours the patient has.
"""

import math

import numpy as np
from numpy.typing import NDArray

from client.features import PatientTensors
from shared.model import RecurrentModel
from shared.round_contents import LARGEST_LOSS, counts_shape
from shared.study import Study


def sensitivity(study: Study) -> float:
    """Return the largest L2 norm of one patient's share: K tables, a loss and a count."""
    outputs, _, _ = counts_shape(study)
    return math.sqrt(outputs + 2)


def validation_sums(
    model: RecurrentModel, patients: PatientTensors | None, study: Study
) -> dict[str, NDArray[np.float64]]:
    """Return the segments ``loss`` (loss sum / LARGEST_LOSS, patients) and ``scores`` (K * 2 * B).

    A patient's stays and hours share the patient's weight of one; its mean loss counts up to
    ``LARGEST_LOSS``. Without patients all sums are zero.
    """
    outputs, _, bins = counts_shape(study)
    sums = {"loss": np.zeros(2)}
    if outputs:
        sums["scores"] = np.zeros(outputs * 2 * bins)
    if patients is None or patients.patients == 0:
        return sums
    scores_NK, loss_N = predict_with_loss(model, patients)
    weight_N = 1.0 / np.bincount(patients.patient_N)[patients.patient_N]
    loss_P = np.bincount(patients.patient_N, weights=loss_N * weight_N)
    sums["loss"][:] = np.minimum(loss_P, LARGEST_LOSS).sum() / LARGEST_LOSS, loss_P.size
    if outputs:
        tables = _tables(scores_NK, patients, weight_N, study)
        sums["scores"][:] = np.concatenate([table.ravel() for table in tables])
    return sums
