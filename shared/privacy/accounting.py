"""What a release costs, and how much noise a study needs to keep to its epsilon.

A *privacy event* records what happened: a mechanism, how it sampled, how much noise, how often.
What events cost together is computed here, for the patient as the unit and "add or remove one
patient" as the neighbouring relation. Figures are upper bounds (see
:mod:`consilium.shared.privacy.loss`).
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from consilium.shared.errors import PrivacyError
from consilium.shared.privacy.loss import (
    Repeated,
    epsilon_estimate,
    epsilon_upper_bound,
    merge_repeated,
)
from consilium.shared.study.definition import Study
from consilium.shared.study.training import Privacy, Training

NOISE_TOLERANCE = 1e-4  # relative; calibrated noise errs upwards
LARGEST_NOISE = 1e7


@dataclass(frozen=True, kw_only=True, order=True)
class PrivacyEvent:
    """``steps`` releases of a sum over patients, each patient's part bounded and noise added.

    sampling_rate: probability that a patient takes part in a release (Poisson sampling), 1 for all.
    noise_multiplier: noise standard deviation / bound on one patient's part (L2).
    """

    mechanism: Literal["gaussian"] = "gaussian"
    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        for name, value, ok, bound in (
            ("sampling_rate", self.sampling_rate, 0 < self.sampling_rate <= 1, "in (0, 1]"),
            ("noise_multiplier", self.noise_multiplier, self.noise_multiplier > 0, "above 0"),
            ("steps", self.steps, self.steps >= 1, "at least 1"),
        ):
            if not (ok and math.isfinite(value)):
                raise PrivacyError(
                    f"privacy event: {name} {value} must be finite and {bound}; correct the study"
                )

    def repeated(self, times: int) -> "PrivacyEvent":
        """The same event ``times`` times over."""
        return PrivacyEvent(
            mechanism=self.mechanism,
            sampling_rate=self.sampling_rate,
            noise_multiplier=self.noise_multiplier,
            steps=self.steps * times,
        )


Events = tuple[PrivacyEvent, ...]


def epsilon_spent(events: Events, delta: float) -> float:
    """Return an upper bound on epsilon at ``delta`` of all events together.

    By numerical composition of the privacy loss, within about 0.1 % of the truth up to some ten
    thousand steps; about 30 ms for each kind of event, then cached.

    Raises:
        PrivacyError: delta is not in (0, 1).
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"delta {delta} must be above 0 and below 1; choose 1e-5, say")
    return _epsilon_of(events, delta)


@lru_cache(maxsize=256)  # all sites of a simulation are charged the same events
def _epsilon_of(events: Events, delta: float) -> float:
    return _epsilon_spent(merge_repeated(_parts(events)), delta)


@lru_cache(maxsize=4096)
def calibrate_noise(
    epsilon: float, delta: float, sampling_rate: float, steps: int, beside: Events = ()
) -> float:
    """Return the smallest noise multiplier with which ``steps`` releases keep to the budget.

    Args:
        epsilon: budget for these releases and the events ``beside`` them, together.
        delta: the budget's delta.
        sampling_rate: Poisson sampling rate of the releases.
        steps: number of releases.
        beside: events that are paid from the same budget.

    Guarantee: epsilon_spent(beside + these, delta) <= epsilon.

    Raises:
        PrivacyError: the events beside already use the budget up.
    """
    already = epsilon_spent(beside, delta)
    if already >= epsilon:
        raise PrivacyError(
            f"epsilon {already:.4g} is already spent beside, out of {epsilon:.4g}; "
            "raise [privacy] epsilon or lower the fractions beside training"
        )

    from scipy.optimize import brentq  # 25 MiB, which a site that plans no study does without

    def excess(log_noise: float, estimate: Callable[[Events, float], float]) -> float:
        event = PrivacyEvent(
            sampling_rate=sampling_rate, noise_multiplier=math.exp(log_noise), steps=steps
        )
        return math.log(min(estimate((*beside, event), delta), 1e6) / epsilon + 1e-12)

    low = high = math.log(max(0.3, math.sqrt(steps) * sampling_rate / epsilon))
    while excess(low, _epsilon_roughly) <= 0:
        low -= 1.0
    while excess(high, _epsilon_roughly) > 0:
        high += 1.0
        if high > math.log(LARGEST_NOISE):
            raise PrivacyError(
                f"epsilon {epsilon:.4g} needs a noise multiplier above {LARGEST_NOISE:.0e}; "
                "raise [privacy] epsilon or lower rounds"
            )
    root = float(brentq(excess, low, high, args=(_epsilon_roughly,), xtol=NOISE_TOLERANCE / 2))
    while excess(root, epsilon_spent) > 0:
        root += NOISE_TOLERANCE / 2
    return math.exp(root)


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """The events of a whole study at one site, and what they cost.

    Attributes:
        feasibility: the one count of the cohort, of training and validation patients; None if the
            study asks for none.
        statistics: the one release of normalisation statistics.
        calibration: what one calibration round releases; None if the study has none.
        calibrations: how many there are.
        training: all rounds of training together.
        training_round: what one round of training releases.
        metrics: what one evaluation releases about validation patients.
        evaluations: how many there are: one every so many rounds, and all passes over the final
            model.
        epsilon: spent on a training patient by the whole study, at most the study's.
    """

    statistics: PrivacyEvent
    calibration: PrivacyEvent | None
    calibrations: int
    training: PrivacyEvent
    training_round: PrivacyEvent
    metrics: PrivacyEvent
    evaluations: int
    epsilon: float
    delta: float
    feasibility: PrivacyEvent | None = None

    @property
    def counted(self) -> Events:
        """What was charged to every patient before statistics: the feasibility round, if any."""
        return () if self.feasibility is None else (self.feasibility,)

    def training_events(self, rounds: int, calibrations: int = 0, *, statistics: int = 1) -> Events:
        """All events that include a training patient, after so many rounds of each kind."""
        done = ((self.statistics, statistics), (self.training_round, rounds),
                (self.calibration, calibrations))  # fmt: skip
        return (
            *self.counted,
            *(event.repeated(times) for event, times in done if event and times),
        )

    def epsilon_after(self, rounds: int, calibrations: int = 0) -> float:
        """Epsilon spent on a training patient after so many rounds, statistics included."""
        return epsilon_spent(self.training_events(rounds, calibrations), self.delta)


def plan(study: Study) -> PrivacyPlan | None:
    """Return the noise a study needs so that its whole run keeps to its epsilon and delta.

    Statistics get ``statistics_fraction`` of epsilon on their own, all calibration rounds together
    ``calibration_fraction``, and a feasibility round the epsilon that it names; training gets the
    noise with which all together reach epsilon. Validation patients are never trained on, so their
    metrics have what the feasibility round leaves of epsilon to themselves. None in privacy mode
    ``none``.

    Raises:
        PrivacyError: the budget cannot be met with any reasonable noise.
    """
    return _plan(
        study.privacy,
        study.training,
        study.rounds,
        study.evaluation.every,
        study.passes,
        study.calibration_rounds,
        None if study.feasibility is None else study.feasibility.epsilon,
    )


def affordable_rounds(study: Study, statistics: int) -> int:
    """Return how many training rounds a study's epsilon pays for beside releases of statistics.

    Args:
        study: its rounds are the most.
        statistics: releases of normalisation statistics, at least 1; void rounds are charged too.
    """
    costs = plan(study)
    if costs is None:
        return study.rounds

    def beyond(rounds: int) -> bool:
        events = costs.training_events(rounds, costs.calibrations, statistics=statistics)
        return epsilon_spent(events, costs.delta) > study.privacy.epsilon

    return bisect.bisect_left(range(1, study.rounds + 1), True, key=beyond)


@lru_cache(maxsize=256)
def _plan(
    privacy: Privacy,
    training: Training,
    rounds: int,
    every: int,
    passes: int,
    calibrations: int,
    counted: float | None,
) -> PrivacyPlan | None:
    if privacy.mode == "none":
        return None
    epsilon, delta, steps = privacy.epsilon, privacy.delta, training.local_steps
    feasibility = None if counted is None else _of_everybody(counted, delta)
    before: Events = () if feasibility is None else (feasibility,)
    statistics = _of_everybody(epsilon * privacy.statistics_fraction, delta)
    beside: Events = (*before, statistics)
    calibration = None
    if calibrations:
        share = epsilon * privacy.calibration_fraction
        calibration = PrivacyEvent(
            sampling_rate=1.0,
            noise_multiplier=calibrate_noise(share, delta, 1.0, calibrations),
            steps=1,
        )
        beside = (*beside, calibration.repeated(calibrations))
    training_round = PrivacyEvent(
        sampling_rate=training.sampling_rate,
        noise_multiplier=calibrate_noise(
            epsilon, delta, training.sampling_rate, steps * rounds, beside
        ),
        steps=steps,
    )
    evaluations = math.ceil(rounds / every) + passes
    metrics = PrivacyEvent(
        sampling_rate=1.0,
        noise_multiplier=calibrate_noise(epsilon, delta, 1.0, evaluations, before),
        steps=1,
    )
    whole = training_round.repeated(rounds)
    return PrivacyPlan(
        statistics=statistics,
        calibration=calibration,
        calibrations=calibrations,
        training=whole,
        training_round=training_round,
        metrics=metrics,
        evaluations=evaluations,
        epsilon=epsilon_spent((*beside, whole), delta),
        delta=delta,
        feasibility=feasibility,
    )


def _of_everybody(epsilon: float, delta: float) -> PrivacyEvent:
    """One release about everybody that costs this epsilon on its own."""
    noise = calibrate_noise(epsilon, delta, 1.0, 1)
    return PrivacyEvent(sampling_rate=1.0, noise_multiplier=noise, steps=1)


def _parts(events: Events) -> tuple[Repeated, ...]:
    return tuple(
        Repeated(event.sampling_rate, event.noise_multiplier, event.steps) for event in events
    )


def _epsilon_roughly(events: Events, delta: float) -> float:
    return epsilon_estimate(_parts(events), delta)


@lru_cache(maxsize=16384)
def _epsilon_spent(parts: tuple[Repeated, ...], delta: float) -> float:
    return epsilon_upper_bound(parts, delta)
