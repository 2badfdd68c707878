"""What a site says about a model: bounded sums over its validation patients, no patient's score.

Guarantee: one patient changes the vector of :func:`validation_sums` by at most
:func:`shared.round_contents.metrics_sensitivity` in L2 norm, however many stays and hours the
patient has.
"""

import numpy as np
from numpy.typing import NDArray

from client.features import PatientTensors
from client.training import predict_with_loss
from shared.model import RecurrentModel
from shared.round_contents import LARGEST_LOSS, counts_shape
from shared.score_counts import count_scores
from shared.study import Study


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
    if patients is None:
        return sums
    scores, loss_N = predict_with_loss(model, patients)
    patient_N = patients.patient_N.numpy()
    stays_P = np.bincount(patient_N)
    loss_P = np.bincount(patient_N, weights=loss_N) / stays_P
    sums["loss"][:] = np.minimum(loss_P, LARGEST_LOSS).sum() / LARGEST_LOSS, loss_P.size
    if outputs:
        weight_N = 1.0 / stays_P[patient_N]
        tables_K2B = _tables(scores, patients, weight_N, study)
        sums["scores"][:] = tables_K2B.ravel()
    return sums


def _tables(
    scores: NDArray[np.float64],
    patients: PatientTensors,
    weight_N: NDArray[np.float64],
    study: Study,
) -> NDArray[np.float64]:
    """Return (K, 2, B) weights of scores; steps share their stay's weight, unknown labels none."""
    outputs, _, bins = counts_shape(study)
    y = patients.y_N.numpy()
    weight = np.broadcast_to(weight_N[:, None], y.shape[:2]) if study.task.per_step else weight_N
    counted = np.ones(weight.shape, dtype=bool)
    if study.task.per_step:
        counted = patients.mask_NT.numpy()
        weight = weight / np.maximum(counted.sum(axis=1, keepdims=True), 1)
    tables_K2B = np.zeros((outputs, 2, bins))
    for output in range(outputs):
        label = y[..., output] if study.task.kind == "multilabel" else y
        outcome = label == (output if study.task.kind == "multiclass" else 1)
        used = counted & ~np.isnan(label)
        risks = scores[..., output][used]
        tables_K2B[output] = count_scores(risks, outcome[used], weight[used], bins)
    return tables_K2B
