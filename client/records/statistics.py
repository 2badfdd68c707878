"""Statistics: each patient's bounded contribution to the federation's normalisation.

A patient contributes three numbers per variable, over all of the patient's stays: whether the
variable was ever measured, the mean of its reference score z, and the mean of z squared; then, in
a study that counts classes, those of the labels (:mod:`consilium.shared.model.class_shares`). Each
patient's vector is scaled to an L2 norm of at most ``clip_norm``; the vectors are added up,
Gaussian noise of standard deviation ``clip_norm`` * noise multiplier is added, and the sum leaves
as part of the secure sum.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.declared_size import shortened
from consilium.client.records.features import TimeGrid
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import PrivacyError
from consilium.shared.model.class_shares import class_scale, class_sums
from consilium.shared.model.normalisation import reference_scores, statistics_clip
from consilium.shared.study.definition import Study

_ROUNDING = 1 - 1e-9  # keeps the norm under the bound after float64 rounding


def patient_contributions(grid: TimeGrid, study: Study) -> NDArray[np.float64]:
    """Return each patient's contribution, zero where a variable was never measured.

    Returns:
        (P, S) float64: present_V, mean of z_V, mean of z squared_V, what is counted of classes; one
        row per patient, whatever the number of stays.
    """
    variables = len(study.variables)
    sums_P3V = np.zeros((grid.patients, 3, variables))
    for index, variable in enumerate(study.variables.values()):
        z_NT = reference_scores(grid.value_NTV[:, :, index], variable).astype(np.float64)
        measured_NT = ~np.isnan(z_NT)
        z_NT = np.where(measured_NT, z_NT, 0.0)
        for kind, per_stay_N in enumerate(
            (measured_NT.sum(axis=1), z_NT.sum(axis=1), (z_NT**2).sum(axis=1))
        ):
            sums_P3V[:, kind, index] = np.bincount(
                grid.patient_N, weights=per_stay_N, minlength=grid.patients
            )
    count_P1V = sums_P3V[:, :1]
    of_variables = (sums_P3V / np.maximum(count_P1V, 1)).reshape(grid.patients, 3 * variables)
    if not class_sums(study):
        return of_variables
    return np.concatenate([of_variables, class_scale(study) * _classes(grid, study)], axis=1)


def _classes(grid: TimeGrid, study: Study) -> NDArray[np.float64]:
    """Return each patient's shares of classes (P, K), or known and present labels (P, 2 K).

    A row of the second kind has an L2 norm of at most sqrt(2 K), of the first at most 1.
    """
    outputs, counted = study.task.outputs, np.ones(grid.y_N.shape[:1], dtype=np.bool_)
    patient = grid.patient_N
    if study.task.per_step:
        counted, patient = grid.mask_NT, np.broadcast_to(patient[:, None], grid.mask_NT.shape)
    columns = 1 if study.task.kind == "multiclass" else outputs
    y_RK, patient_R = grid.y_N[counted].reshape(-1, columns), patient[counted]
    if study.task.kind == "multiclass":
        y_RK = np.where(y_RK == np.arange(outputs), 1.0, 0.0)
        known_RK = np.broadcast_to(y_RK.any(axis=1, keepdims=True), y_RK.shape)
    else:
        known_RK = np.isfinite(y_RK)
        y_RK = np.where(y_RK == 1, 1.0, 0.0)

    def by_patient(values_RK: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        sums_PK = np.zeros((grid.patients, outputs))
        np.add.at(sums_PK, patient_R, values_RK)
        return sums_PK

    rows_PK = by_patient(known_RK.astype(np.float64))
    share_PK = by_patient(y_RK) / np.maximum(rows_PK, 1)
    if study.task.kind == "multiclass":
        return share_PK
    return np.concatenate([(rows_PK > 0).astype(np.float64), share_PK], axis=1)


def clipped_sum(contribution_PS: NDArray[np.float64], clip_norm: float) -> NDArray[np.float64]:
    """Return the sum (S,) of contributions, each scaled to an L2 norm of at most ``clip_norm``.

    Guarantee: adding or removing one patient changes the sum by at most ``clip_norm`` in L2 norm.

    Raises:
        PrivacyError: the bound is not above 0.
    """
    if not (np.isfinite(clip_norm) and clip_norm > 0):
        raise PrivacyError(f"clip_norm {clip_norm} must be finite and above 0; correct it")
    return np.asarray(clip_rows(contribution_PS, clip_norm).sum(axis=0))


def statistics_release(
    contribution_PS: NDArray[np.float64],
    study: Study,
    *,
    size: int,
    deviation: float,
    source: Keystream,
) -> NDArray[np.float64]:
    """Return the site's statistics (S,) as they leave: clipped per patient, summed, with noise.

    Guarantee: noise aside, their L2 norm is at most that of ``size`` patients.

    Args:
        contribution_PS: from :func:`patient_contributions`.
        study: its number of variables sets the clip norm.
        size: the site's declared size, in patients.
        deviation: standard deviation of the Gaussian noise on each coordinate; 0 without privacy.
        source: secret and fresh; the noise is drawn from it.

    Raises:
        PrivacyError: as :func:`clipped_sum`.
    """
    clip = statistics_clip(study)
    sum_S = shortened(clipped_sum(contribution_PS, clip), size * clip)
    return sum_S if deviation == 0 else sum_S + deviation * source.standard_normal(sum_S.size)


def clip_rows(rows_PS: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
    """Scale rows whose L2 norm is above ``norm`` down to it; a row that is not finite counts as 0.

    Guarantee: every row's L2 norm is at most ``norm``, and no row changes another.
    """
    rows_PS = np.where(np.isfinite(rows_PS).all(axis=1, keepdims=True), rows_PS, 0.0)
    with np.errstate(over="ignore"):  # a row too long for float64 is scaled by 0
        length_P = np.linalg.norm(rows_PS, axis=1)
    longer_P = np.maximum(length_P, norm)
    scale_P = np.where(length_P > norm * _ROUNDING, norm * _ROUNDING / longer_P, 1.0)
    return np.asarray(rows_PS * scale_P[:, None])
