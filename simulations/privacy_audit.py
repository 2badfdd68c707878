"""An empirical lower bound on epsilon: attack the training that sites really run, and count.

The attack is the strongest that fits the threat: a canary patient whose gradient is known, among
patients who contribute nothing, watched by someone who sees the weights after every round. The
training runs many times with the canary's records and many times without; a threshold on the
movement along the canary's gradient tells the two apart. By the definition of differential privacy,
true positives <= exp(epsilon) * false positives + delta, so the counts bound epsilon from below
(Jagielski, Ullman & Oprea 2020, "Auditing Differentially Private Machine Learning", section 4).
A bound above the claimed epsilon proves the claim wrong; one below it proves nothing.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta

from client.training import TrainingSet, train_locally
from shared.bookkeeping import Bookkeeping
from shared.errors import SettingsError
from shared.masks import Keystream
from shared.model import RecurrentModel, build_model
from shared.privacy import plan
from shared.study import Study, with_changes
from shared.weights import load_vector, to_vector

THRESHOLDS = 201
CANARY_FEATURES = 4
CANARY_STEPS = 6
STILL = 1e-4  # learning rate at which the canary's gradient keeps its direction

Statistic = Callable[[bool, Keystream], float]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    epsilon_low: with probability ``confidence``, the mechanism's epsilon is at least this.
    claimed: the epsilon it is sold for, at ``delta``.
    runs: trainings, half with the canary and half without.
    """

    epsilon_low: float
    claimed: float
    delta: float
    confidence: float
    runs: int

    @property
    def refuted(self) -> bool:
        """Whether the claim is proved wrong, at this confidence."""
        return self.epsilon_low > self.claimed


@dataclass(frozen=True, kw_only=True)
class Training:
    """A site's training as it is really done; what it claims stands apart.

    noise_multiplier and sampling_rate: those used. rounds: how many are released.
    patient_of_stay: groups the canary's stays into patients; all 0 is honest.
    """

    study: Study
    noise_multiplier: float
    sampling_rate: float
    rounds: int
    patient_of_stay: tuple[int, ...]
    patients: int = 20


def honest_training(study: Study, *, stays: int = 4) -> tuple[Training, float]:
    """Return the training that the study's plan prescribes, and the epsilon it claims.

    Raises:
        SettingsError: the study has no privacy to audit.
    """
    costs = plan(study)
    if costs is None:
        raise SettingsError(
            f"study {study.name}: privacy mode none claims no epsilon to audit; set [privacy] mode"
        )
    training = Training(
        study=study,
        noise_multiplier=costs.training_round.noise_multiplier,
        sampling_rate=study.training.sampling_rate,
        rounds=study.rounds,
        patient_of_stay=(0,) * stays,
    )
    return training, costs.epsilon


def audit_study(study: Study, *, runs: int = 1000, confidence: float = 0.95) -> Audit:
    """Audit the training that a study prescribes against the epsilon it claims.

    Raises:
        SettingsError: the study has no privacy to audit, or there are fewer than 40 runs.
    """
    training, claimed = honest_training(study)
    return audit_training(training, claimed=claimed, runs=runs, confidence=confidence)


def audit_training(
    training: Training, *, claimed: float, runs: int = 1000, confidence: float = 0.95
) -> Audit:
    """Audit a training as it is done against the epsilon it claims.

    Raises:
        SettingsError: there are fewer than 40 runs.
    """
    if runs < 40:
        raise SettingsError(f"runs {runs} must be at least 40 to prove anything; raise it")
    statistic = canary_statistic(training)
    with_canary = _repeat(statistic, True, runs // 2)
    without = _repeat(statistic, False, runs // 2)
    delta = training.study.privacy.delta
    return Audit(
        epsilon_low=epsilon_lower_bound(with_canary, without, delta=delta, confidence=confidence),
        claimed=claimed,
        delta=delta,
        confidence=confidence,
        runs=runs,
    )


def canary_statistic(training: Training) -> Statistic:
    """Return the attacker's test: train with or without the canary, measure along its gradient.

    Without the canary its place is held by a patient without stays, so that both worlds have the
    same number of patients: their number is public.
    """
    study = with_changes(
        training.study,
        training={
            "sampling_rate": training.sampling_rate,
            "optimizer": "sgd",
            "learning_rate": STILL,
            "momentum": 0.0,
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

    def statistic(present: bool, source: Keystream) -> float:
        load_vector(model, start_D)
        for _ in range(training.rounds):
            train_locally(
                model,
                canary if present else nobody,
                study,
                noise_multiplier=training.noise_multiplier,
                source=source,
            )
        return float((start_D - to_vector(model)).astype(np.float64) @ direction_D)

    return statistic


def epsilon_lower_bound(
    with_canary: NDArray[np.float64],
    without: NDArray[np.float64],
    *,
    delta: float,
    confidence: float,
) -> float:
    """Return a lower bound on epsilon from statistics of both worlds, larger ones being suspect.

    The first half chooses a threshold, the second half is counted at it; both error rates get a
    Clopper-Pearson bound at half of 1 - ``confidence``, and both directions of the definition are
    used. Zero if nothing is proved.
    """
    half_in, half_out = len(with_canary) // 2, len(without) // 2
    first_half = np.concatenate([with_canary[:half_in], without[:half_out]])
    candidates = np.quantile(first_half, np.linspace(0, 1, THRESHOLDS))
    scores = _bounds(with_canary[:half_in], without[:half_out], candidates, delta, confidence)
    chosen = candidates[[int(np.argmax(scores))]]
    return float(_bounds(with_canary[half_in:], without[half_out:], chosen, delta, confidence)[0])


def _bounds(
    part_in: NDArray[np.float64],
    part_out: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    delta: float,
    confidence: float,
) -> NDArray[np.float64]:
    """Lower bound on epsilon at each threshold, the better of the definition's two directions."""
    missed = _upper_rate(
        np.searchsorted(np.sort(part_in), thresholds, "right"), part_in, confidence
    )
    caught_not = np.searchsorted(np.sort(part_out), thresholds, "right")
    alarms = _upper_rate(len(part_out) - caught_not, part_out, confidence)
    return np.maximum(_epsilon(1 - missed, alarms, delta), _epsilon(1 - alarms, missed, delta))


def _epsilon(
    true_rate: NDArray[np.float64], false_rate: NDArray[np.float64], delta: float
) -> NDArray[np.float64]:
    """The epsilon at which true_rate = exp(epsilon) * false_rate + delta, at least 0."""
    ratio = np.maximum(true_rate - delta, 0.0) / false_rate
    return np.log(np.maximum(ratio, 1.0))


def _upper_rate(
    events: NDArray[np.int64], trials: NDArray[np.float64], confidence: float
) -> NDArray[np.float64]:
    """Clopper-Pearson upper bound on a rate; two rates are bounded, so half the error each."""
    rest = len(trials) - events
    level = 1 - (1 - confidence) / 2
    rate = np.where(rest > 0, beta.ppf(level, events + 1, np.maximum(rest, 1)), 1.0)
    return np.asarray(rate, dtype=np.float64)


def _repeat(statistic: Statistic, present: bool, times: int) -> NDArray[np.float64]:
    return np.array([statistic(present, Keystream(secrets.token_bytes(32))) for _ in range(times)])


def _canary(training: Training) -> TrainingSet:
    """A patient of equal, extreme stays, in a study whose other patients have none."""
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


def _direction(model: RecurrentModel, canary: TrainingSet) -> NDArray[np.float64]:
    """Unit vector along the canary's gradient at the first weights."""
    books = Bookkeeping()
    logits = model(canary.x_NTF, canary.mask_NT, books=books)
    loss = model.loss_per_stay(logits, canary.y, canary.mask_NT).sum()
    torch.autograd.backward(loss)
    sums = books.weighted_sums(model.parameters(), torch.ones(len(canary.x_NTF)))
    gradient = torch.cat([part.flatten() for part in sums]).double().numpy()
    unit: NDArray[np.float64] = gradient / np.linalg.norm(gradient)
    return unit
