"""The canary: an artificial patient who is easy to detect, and the attacker's score of a release.

Everything that leaves a site is attacked together: the normalisation statistics once, and every
round of training, made by the code that sites run. The attacker knows the canary's statistics and
gradient, the site's other patients contribute nothing, and the attacker sees the weights after
every round. In mode ``distributed`` the attacker has the sum of the honest sites' vectors, which is
all that the coordinator and colluding sites can get.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from consilium.client.records.statistics import statistics_release
from consilium.client.round.gradients import clipped_gradient_sum
from consilium.client.round.training import train_locally
from consilium.client.round.training_set import TrainingSet
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import SettingsError
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.network import RecurrentModel, build_model
from consilium.shared.model.normalisation import CLIP, statistics_clip
from consilium.shared.model.weight_vector import load_vector, to_vector
from consilium.shared.privacy.accounting import plan
from consilium.shared.privacy.shared_noise import NoiseShare, noise_share, noisy_sum
from consilium.shared.study.definition import Study, with_changes

CANARY_FEATURES = 4
CANARY_STEPS = 6
STILL = 1e-4  # a learning rate so low that the canary's gradient keeps its direction

Vector = NDArray[np.float64]
Statistic = Callable[[bool, Keystream], float]


@dataclass(frozen=True, kw_only=True)
class AttackedTraining:
    """How a site's releases are really made, which may differ from what the study claims.

    Attributes:
        noise_multiplier: used in training; noise standard deviation / clip norm.
        sampling_rate: used in training.
        rounds: how many are released.
        statistics_multiplier: standard deviation of the noise used on the statistics / their clip
            norm.
        patient_of_stay: the patient, from 0, that each of the canary's stays counts as: all 0 if
            honest; else the site takes one patient for several.
        patients: patients at the site, with the canary.
    """

    study: Study
    noise_multiplier: float
    sampling_rate: float
    rounds: int
    statistics_multiplier: float
    patient_of_stay: tuple[int, ...]
    patients: int = 20


def honest_training(study: Study, *, stays: int = 4) -> tuple[AttackedTraining, float]:
    """Return the releases that the study's plan prescribes, and the epsilon they claim.

    Raises:
        SettingsError: the study has no privacy to audit.
    """
    costs = plan(study)
    if costs is None:
        raise SettingsError(
            f"study {study.name}: privacy mode none claims no epsilon to audit; set [privacy] mode"
        )
    training = AttackedTraining(
        study=study,
        noise_multiplier=costs.training_round.noise_multiplier,
        sampling_rate=study.training.sampling_rate,
        rounds=study.rounds,
        statistics_multiplier=costs.statistics.noise_multiplier,
        patient_of_stay=(0,) * stays,
    )
    return training, costs.epsilon


def canary_statistic(training: AttackedTraining) -> Statistic:
    """Return the attacker's score of a release made with or without the canary.

    The score is the release projected on the canary's own vectors. Without the canary, a patient
    without stays takes its place, so that the number of patients, which is public, is the same. The
    statistics and the training are weighted by shift / variance, as in the log-likelihood ratio of
    Gaussians (exact without sampling).
    """
    of_statistics, of_training = _statistics_score(training), _training_score(training)
    statistics_weight = training.statistics_multiplier**-2
    training_weight = training.sampling_rate * training.noise_multiplier**-2

    def statistic(present: bool, source: Keystream) -> float:
        return statistics_weight * of_statistics(present, source) + training_weight * of_training(
            present, source
        )

    return statistic


def _statistics_score(training: AttackedTraining) -> Statistic:
    """Return the score of the statistics: projected on the canary's, in clip norms."""
    study = training.study
    variables, clip = len(study.variables), statistics_clip(study)
    row_S = np.repeat([1.0, CLIP, CLIP**2], variables)
    canary_PS = np.zeros((training.patients, len(row_S)))
    canary_PS[0] = row_S
    nobody_PS = np.zeros_like(canary_PS)
    unit_S = row_S / np.linalg.norm(row_S)

    def score(present: bool, source: Keystream) -> float:
        release_S = statistics_release(
            canary_PS if present else nobody_PS,
            study,
            size=training.patients,
            deviation=training.statistics_multiplier * clip,
            source=source,
        )
        return float(release_S @ unit_S) / clip

    return score


def _training_score(training: AttackedTraining) -> Statistic:
    """Return the score of all rounds: gradient sums projected on the canary's, in clip norms."""
    study = with_changes(
        training.study,
        training={
            "sampling_rate": training.sampling_rate,
            "optimizer": "sgd",
            "learning_rate": STILL,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "l1": 0.0,
            "gradient_clip": 0.0,
        },
        model={"dropout": 0.0},
        task={"kind": "binary", "outputs": 1, "per_step": False, "center": 0.0, "spread": 1.0},
        study={"tokens": None},
    )
    model = build_model(study, CANARY_FEATURES, study.seed)
    start_D = to_vector(model)
    canary = _canary(training)
    direction_D = _direction(model, canary)
    nobody = _empty(canary)
    clip = study.privacy.clip_norm
    if study.privacy.mode == "distributed":
        share = _share(study, len(start_D), training.noise_multiplier)

        def shared(present: bool, source: Keystream) -> float:
            data = canary if present else nobody
            return sum(
                float(_honest_sum(model, data, study, share, source) @ direction_D)
                for _ in range(training.rounds)
            ) / (share.scale * clip)

        return shared

    def own(present: bool, source: Keystream) -> float:
        load_vector(model, start_D)
        for _ in range(training.rounds):
            train_locally(
                model,
                canary if present else nobody,
                study,
                noise_multiplier=training.noise_multiplier,
                source=source,
            )
        moved_D = (start_D - to_vector(model)).astype(np.float64)
        expected = study.training.sampling_rate * training.patients
        return float(moved_D @ direction_D) * expected / (STILL * clip)

    return own


def _share(study: Study, parameters: int, noise_multiplier: float) -> NoiseShare:
    """Return a site's share of the noise really used, which may differ from the study's."""
    share = noise_share(study, parameters)
    ratio = noise_multiplier / share.noise_multiplier
    return replace(share, variance=max(1, math.ceil(share.variance * ratio**2)))


def _honest_sum(
    model: RecurrentModel, data: TrainingSet, study: Study, share: NoiseShare, source: Keystream
) -> Vector:
    """Return one round's sum (D,) of the honest sites' integer vectors; one site has the data."""
    first_D = clipped_gradient_sum(model, data, study, source=source)
    total_D = noisy_sum(first_D, share, source)
    for _ in range(share.honest - 1):
        total_D = total_D + noisy_sum(np.zeros_like(first_D), share, source)
    return total_D.astype(np.float64)


def _canary(training: AttackedTraining) -> TrainingSet:
    """Return the canary, with equal, extreme stays, among patients without any."""
    stays = len(training.patient_of_stay)
    shape = (stays, CANARY_STEPS, CANARY_FEATURES)
    return TrainingSet(
        x_NTF=torch.full(shape, 3.0),
        mask_NT=torch.ones(shape[:2], dtype=torch.bool),
        y=torch.ones(stays),
        patient_N=torch.tensor(training.patient_of_stay),
        patients=training.patients,
    )


def _empty(canary: TrainingSet) -> TrainingSet:
    return TrainingSet(
        x_NTF=canary.x_NTF[:0],
        mask_NT=canary.mask_NT[:0],
        y=canary.y[:0],
        patient_N=canary.patient_N[:0],
        patients=canary.patients,
    )


def _direction(model: RecurrentModel, canary: TrainingSet) -> Vector:
    """Return the unit vector along the canary's gradient at the initial weights."""
    books = Bookkeeping()
    logits = model(canary.x_NTF, canary.mask_NT, books=books)
    loss = model.loss_per_stay(logits, canary.y, canary.mask_NT).sum()
    torch.autograd.backward(loss)
    sums = books.weighted_sums(model.parameters(), torch.ones(len(canary.x_NTF)))
    gradient = torch.cat([part.flatten() for part in sums]).double().numpy()
    unit: Vector = gradient / np.linalg.norm(gradient)
    return unit
