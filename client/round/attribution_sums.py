"""Which inputs drive the model, over a site's patients: bounded sums, no patient's attributions.

Guarantee: one patient changes each of the three parts of :func:`attribution_sums` (number of
patients, number clipped, clipped attributions) by at most 1 in L2 norm, whatever the weights; a
patient whose attributions are not finite counts as zero. The path is never split further for one
patient than for another, so that hostile weights cannot make a patient take long.
"""

import numpy as np
from numpy.typing import NDArray

from consilium.client.explain.integrated_gradients import inputs_of_columns, integrated_gradients
from consilium.client.records.features import PatientTensors
from consilium.client.records.statistics import clip_rows
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.export.signed_model import Trained
from consilium.shared.rounds.attribution_bands import (
    attribution_bands,
    attributions_size,
    band_starts,
    effect_unit,
)

MOST_STAYS = 8  # explained per patient, drawn at random; more cost time and change little


def attribution_sums(
    trained: Trained, patients: PatientTensors | None, source: Keystream, *, smallest: int
) -> NDArray[np.float64]:
    """Return [patients, clipped patients, V * B sums of absolute attributions], as floats.

    Args:
        trained: the model, and the study, which sets how many patients are explained at most.
        patients: the patients to choose from; None gives zeros.
        source: draws the patients.
        smallest: with fewer chosen patients than this, all sums are zero.
    """
    study = trained.study
    sums = np.zeros(attributions_size(study))
    chosen = _draw(0 if patients is None else patients.patients,
                    study.evaluation.explained_patients, source)  # fmt: skip
    if patients is None or len(chosen) < smallest:
        return sums
    patient_N = patients.patient_N.numpy()
    rows = np.stack([
        _mean_of_patient(trained, patients, np.flatnonzero(patient_N == patient), source)
        for patient in chosen
    ])  # fmt: skip
    clipped = clip_rows(rows, 1.0)
    sums[0] = len(chosen)
    with np.errstate(over="ignore", invalid="ignore"):
        sums[1] = (np.linalg.norm(rows, axis=1) > 1.0).sum()
    sums[2:] = clipped.sum(axis=0)
    return sums


def _mean_of_patient(
    trained: Trained, patients: PatientTensors, stays: NDArray[np.int64], source: Keystream
) -> NDArray[np.float64]:
    """Return mean absolute attributions (V * B,) over the patient's stays, in the sums' unit.

    All zero if one is not finite, as with weights made to overflow: a failure would be seen.
    """
    study = trained.study
    stays = stays[_draw(len(stays), MOST_STAYS, source)]
    column_VJ = inputs_of_columns(trained)[: len(study.variables)]
    total_VA = np.zeros((len(study.variables), attribution_bands(study)))
    for stay in stays:
        steps = int(patients.mask_NT[stay].sum())
        if steps == 0:
            continue
        x_TF = patients.x_NTF[stay, :steps]
        effect_TJ, _ = integrated_gradients(trained, x_TF, output=0, halvings=0)
        effect_TV = np.zeros((study.data.steps, len(study.variables)))
        effect_TV[:steps] = effect_TJ @ column_VJ.T
        total_VA += np.abs(np.add.reduceat(effect_TV, band_starts(study), axis=0)).T
    mean: NDArray[np.float64] = total_VA.ravel() / (len(stays) * effect_unit(study))
    return mean if np.isfinite(mean).all() else np.zeros_like(mean)


def _draw(size: int, most: int, source: Keystream) -> NDArray[np.int64]:
    """Return ``most`` indices below ``size``, drawn at random; all if there are no more."""
    if size <= most:
        return np.arange(size)
    return np.sort(np.argsort(source.standard_normal(size))[:most])
