"""A site's figures on a model: bounded sums over its validation patients, no patient's score.

Guarantee: one patient changes the vector of :func:`validation_sums` by at most
:func:`consilium.shared.rounds.contents.metrics_sensitivity` in L2 norm, however many stays and
hours the patient has.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.features import PatientTensors
from consilium.client.round.predictions import predict_with_loss
from consilium.client.round.subgroups import Members, group_blocks
from consilium.shared.figures.score_counts import count_scores
from consilium.shared.figures.survival_counts import count_intervals
from consilium.shared.model.branch import Branch
from consilium.shared.rounds.contents import LARGEST_ERROR, LARGEST_LOSS, counts_shape, hits_size
from consilium.shared.rounds.patient_groups import block_size, group_edges, patient_groups
from consilium.shared.study.definition import Study


def validation_sums(
    model: Branch,
    patients: PatientTensors | None,
    study: Study,
    edges_KL: NDArray[np.float32],
    members: Sequence[Members | None] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return the segments of a round's validation, all zero if there are no patients.

    A patient has weight 1, which the patient's stays and hours share.

    Args:
        model: the model to be judged.
        patients: the validation patients, if there are any.
        study: the approved study.
        edges_KL: edges of each output's bins.
        members: the stays of each of the study's groups; None leaves the groups out.

    Returns:
        Four segments.

        - ``loss``: sum of patients' mean losses (each at most LARGEST_LOSS) / LARGEST_LOSS, and the
          number of patients.
        - ``scores``: K * 2 * B weights of risks, by outcome; in survival of the risk by the
          horizon, by whether the event came in each of K intervals, where that is known.
        - ``hits``: see :func:`consilium.shared.rounds.contents.hits_size`.
        - ``groups``: one block per group, see :mod:`consilium.shared.rounds.patient_groups`.
    """
    outputs, _, bins = counts_shape(study)
    sums = {"loss": np.zeros(2)}
    if outputs:
        sums["scores"] = np.zeros(outputs * 2 * bins)
    if hits := hits_size(study):
        sums["hits"] = np.zeros(hits)
    if members is not None and (groups := len(patient_groups(study))):
        sums["groups"] = np.zeros(groups * block_size(study))
    if patients is None:
        return sums
    scores, loss_N = predict_with_loss(model, patients)
    patient_N = patients.patient_N.numpy()
    stays_P = np.bincount(patient_N)
    loss_P = np.bincount(patient_N, weights=loss_N) / stays_P
    sums["loss"][:] = np.clip(loss_P, 0, LARGEST_LOSS).sum() / LARGEST_LOSS, loss_P.size
    weight_N = stay_weights(patients)
    if outputs:
        sums["scores"][:] = _tables(scores, patients, weight_N, study, edges_KL).ravel()
    if study.task.kind == "multiclass":
        sums["hits"][:] = _confusion(scores, patients, weight_N, study).ravel()
    if study.task.kind == "regression":
        sums["hits"][:] = _errors(scores, patients, study).ravel()
    if members:
        counted, weight = row_weights(patients, weight_N, study)
        edges_L = group_edges(study, edges_KL)
        y = patients.y_N.numpy()
        blocks = group_blocks(scores, y, weight, counted, members, study, edges_L)
        sums["groups"][:] = blocks.ravel()
    return sums


def stay_weights(patients: PatientTensors) -> NDArray[np.float64]:
    """Return the weight (N,) of each stay; the weights of a patient's stays sum to 1."""
    patient_N = patients.patient_N.numpy()
    weight_N: NDArray[np.float64] = 1.0 / np.bincount(patient_N)[patient_N]
    return weight_N


def row_weights(
    patients: PatientTensors, weight_N: NDArray[np.float64], study: Study
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which rows (N,) or (N, T) count, and their weights; steps share the stay's weight."""
    if not study.task.per_step:
        return np.ones(weight_N.shape, dtype=np.bool_), weight_N
    counted_NT = patients.mask_NT.numpy()
    steps_N1 = np.maximum(counted_NT.sum(axis=1, keepdims=True), 1)
    return counted_NT, np.broadcast_to(weight_N[:, None], counted_NT.shape) / steps_N1


def _tables(
    scores: NDArray[np.float64],
    patients: PatientTensors,
    weight_N: NDArray[np.float64],
    study: Study,
    edges_KL: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Return the summed weights (K, 2, B) of scores by outcome, without unknown labels.

    For survival see :func:`consilium.shared.figures.survival_counts.count_intervals`.
    """
    outputs, _, bins = counts_shape(study)
    y = patients.y_N.numpy()
    counted, weight = row_weights(patients, weight_N, study)
    if study.task.kind == "survival":
        return count_intervals(scores[:, -1], y, weight, edges_KL)
    tables_K2B = np.zeros((outputs, 2, bins))
    for output in range(outputs):
        label = y[..., output] if study.task.kind == "multilabel" else y
        outcome = label == (output if study.task.kind == "multiclass" else 1)
        used = counted & ~np.isnan(label)
        risks = scores[..., output][used]
        tables_K2B[output] = count_scores(risks, outcome[used], weight[used], edges_KL[output])
    return tables_K2B


def _confusion(
    scores: NDArray[np.float64],
    patients: PatientTensors,
    weight_N: NDArray[np.float64],
    study: Study,
) -> NDArray[np.float64]:
    """Return summed weights (K, K) by true class (first axis) and most likely class."""
    classes = study.task.outputs
    y = patients.y_N.numpy()
    counted, weight = row_weights(patients, weight_N, study)
    used = counted & (y >= 0) & (y < classes)
    cell = y[used].astype(np.int64) * classes + scores.argmax(axis=-1)[used]
    flat = np.bincount(cell, weights=weight[used], minlength=classes**2).astype(np.float64)
    return flat.reshape(classes, classes)


def _errors(
    scores: NDArray[np.float64], patients: PatientTensors, study: Study
) -> NDArray[np.float64]:
    """Return (K, 3): sums of patients' mean absolute and mean squared errors; number of patients.

    Errors are divided by the task's spread times LARGEST_ERROR; a patient's mean counts at most 1.
    """
    y = patients.y_N.numpy().reshape(scores.shape)
    counted, _ = row_weights(patients, np.ones(len(y)), study)
    known = np.isfinite(y) & counted[..., None]
    error = np.abs(np.where(known, scores - np.where(known, y, 0.0), 0.0)) / (
        study.task.spread * LARGEST_ERROR
    )
    patient_N = patients.patient_N.numpy()
    steps = tuple(range(1, known.ndim - 1))
    sums_K3 = np.zeros((study.task.outputs, 3))
    for output in range(study.task.outputs):
        known_P = np.bincount(patient_N, weights=known[..., output].sum(axis=steps))
        for place, power in enumerate((1, 2)):
            powers_N = (error[..., output] ** power).sum(axis=steps)
            mean_P = np.bincount(patient_N, weights=powers_N) / np.maximum(known_P, 1)
            sums_K3[output, place] = np.minimum(mean_P, 1.0).sum()
        sums_K3[output, 2] = (known_P > 0).sum()
    return sums_K3
