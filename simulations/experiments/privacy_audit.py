"""An empirical lower bound on epsilon: attack the training that sites really run, and count.

The attack is the strongest that fits the threat (:mod:`consilium.simulations.experiments.canary`):
a canary patient whose statistics and gradient are known, among patients who contribute nothing, and
an attacker who sees everything that leaves. The training runs many times with the canary's records
and many times without; a threshold on the attacker's score tells the two apart. By the definition
of differential privacy, true-positive rate <= exp(epsilon) * false-positive rate + delta, so the
counts bound epsilon from below (Jagielski, Ullman & Oprea 2020, "Auditing Differentially Private
Machine Learning", section 4). A bound above the claimed epsilon proves the claim wrong; one below
it proves nothing.
"""

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.experiments.canary import (
    AttackedTraining,
    Statistic,
    canary_statistic,
    honest_training,
)

THRESHOLDS = 201


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of an audit.

    Attributes:
        epsilon_low: with probability ``confidence``, the mechanism's epsilon is at least this.
        claimed: the epsilon that the study claims, at ``delta``.
        delta: the study's.
        confidence: of the lower bound, between 0 and 1.
        runs: number of trainings, half with the canary and half without.
    """

    epsilon_low: float
    claimed: float
    delta: float
    confidence: float
    runs: int

    @property
    def refuted(self) -> bool:
        """Whether the claim is proved wrong, with probability ``confidence``."""
        return self.epsilon_low > self.claimed


def audit_study(study: Study, *, runs: int = 1000, confidence: float = 0.95) -> Audit:
    """Audit the training that a study prescribes against the epsilon it claims.

    Raises:
        SettingsError: the study has no privacy to audit, or there are fewer than 40 runs.
    """
    training, claimed = honest_training(study)
    return audit_training(training, claimed=claimed, runs=runs, confidence=confidence)


def audit_training(
    training: AttackedTraining, *, claimed: float, runs: int = 1000, confidence: float = 0.95
) -> Audit:
    """Audit a training as it is really done against the epsilon claimed for it.

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


def epsilon_lower_bound(
    with_canary: NDArray[np.float64],
    without: NDArray[np.float64],
    *,
    delta: float,
    confidence: float,
) -> float:
    """Return a lower bound on epsilon from scores with and without the canary.

    A high score suggests the canary. The first half of the scores chooses a threshold, the second
    half is counted at it. Both error rates get a Clopper-Pearson bound at half of 1 -
    ``confidence``, and both directions of the definition are used. 0 if nothing is proved.
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
    """Return a lower bound on epsilon at each threshold: the better of the two directions."""
    missed = _upper_rate(
        np.searchsorted(np.sort(part_in), thresholds, "right"), part_in, confidence
    )
    caught_not = np.searchsorted(np.sort(part_out), thresholds, "right")
    alarms = _upper_rate(len(part_out) - caught_not, part_out, confidence)
    return np.maximum(_epsilon(1 - missed, alarms, delta), _epsilon(1 - alarms, missed, delta))


def _epsilon(
    true_rate: NDArray[np.float64], false_rate: NDArray[np.float64], delta: float
) -> NDArray[np.float64]:
    """Return the epsilon with true_rate = exp(epsilon) * false_rate + delta, at least 0."""
    ratio = np.maximum(true_rate - delta, 0.0) / false_rate
    return np.log(np.maximum(ratio, 1.0))


def _upper_rate(
    events: NDArray[np.int64], trials: NDArray[np.float64], confidence: float
) -> NDArray[np.float64]:
    """Return Clopper-Pearson's upper bound on a rate, at half the error, as two are bounded."""
    rest = len(trials) - events
    level = 1 - (1 - confidence) / 2
    rate = np.where(rest > 0, beta.ppf(level, events + 1, np.maximum(rest, 1)), 1.0)
    return np.asarray(rate, dtype=np.float64)


def _repeat(statistic: Statistic, present: bool, times: int) -> NDArray[np.float64]:
    return np.array([statistic(present, Keystream(secrets.token_bytes(32))) for _ in range(times)])
