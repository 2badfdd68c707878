"""A site's part of a calibration round: bounded, noised sums over all of its training patients.

Guarantee: whatever the weights and the records, one patient changes the sums of
:func:`calibration_sums` by at most :func:`consilium.shared.privacy.calibration.calibration_bound`
in L2 norm, however many stays and hours the patient has; and what leaves has the noise that was
charged for it.
"""

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.declared_size import shortened
from consilium.client.records.features import PatientTensors
from consilium.client.records.statistics import clip_rows
from consilium.client.round.evaluation_round import noised
from consilium.client.round.predictions import predict, predict_hazards
from consilium.client.round.randomness import RoundRandomness
from consilium.client.round.training_round import Parts
from consilium.client.round.validation_sums import row_weights, stay_weights
from consilium.shared.model.branch import Branch
from consilium.shared.privacy.calibration import (
    calibration_bound,
    calibration_size,
    calibration_terms,
)
from consilium.shared.privacy.shared_noise import calibration_share, noisy_sum
from consilium.shared.rounds.contents import calibration_noise
from consilium.shared.study.definition import Study


def calibration_parts(
    model: Branch,
    patients: PatientTensors,
    study: Study,
    *,
    size: int,
    randomness: RoundRandomness,
) -> Parts:
    """Return the round's one part, ``calibration`` (3 K,), with this site's share of the noise.

    Args:
        model: whose risks are to be put right.
        patients: this site's training patients.
        study: the approved study, which has calibration rounds.
        size: this site's declared size, which bounds for how many patients it counts.
        randomness: the round's random numbers.
    """
    sums = shortened(calibration_sums(model, patients, study), size * calibration_bound(study))
    source = randomness.stream("noise")
    if study.privacy.mode == "distributed":
        return {"calibration": noisy_sum(sums, calibration_share(study), source)}
    return {**noised({"calibration": sums}, calibration_noise(study), source)}


def calibration_sums(model: Branch, patients: PatientTensors, study: Study) -> NDArray[np.float64]:
    """Return the sums (3 K,) over patients, without noise.

    A patient's stays and hours share a weight of 1; a label that is not known adds nothing. In
    survival the risks are the intervals' hazards, so that those add something who were at risk.
    """
    if not len(patients.x_NTF):
        return np.zeros(calibration_size(study))
    chances = predict_hazards if study.task.kind == "survival" else predict
    risk = chances(model, patients.x_NTF, patients.mask_NT)
    label = patients.y_N.numpy().reshape(risk.shape)
    terms = calibration_terms(risk, label == 1)
    counted, weight = row_weights(patients, stay_weights(patients), study)
    terms *= (weight * counted)[..., None, None] * ~np.isnan(label)[..., None]
    terms_NK3 = terms.sum(axis=tuple(range(1, terms.ndim - 2)))  # over the steps, if it has them
    part_PK3 = np.zeros((patients.patients, *terms_NK3.shape[1:]))
    np.add.at(part_PK3, patients.patient_N.numpy(), terms_NK3)
    parts = clip_rows(part_PK3.reshape(len(part_PK3), -1), calibration_bound(study))
    summed: NDArray[np.float64] = parts.sum(axis=0)
    return summed
