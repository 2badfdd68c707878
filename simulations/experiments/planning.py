"""What privacy would cost, before anything is run: noise and signal for several budgets.

The signal of a step is at most the clip norm C: the mean of gradients clipped to C, if all point in
the same direction. Its noise is a Gaussian vector of d coordinates, of length about sqrt(d) times
its standard deviation. Their ratio bounds how much of a step is signal. Over all steps of a study
noise adds up as a random walk, so the ratio grows with the square root of the number of steps.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from consilium.shared.errors import StudyError
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import parameter_count
from consilium.shared.privacy.accounting import PrivacyEvent, plan
from consilium.shared.privacy.shared_noise import noise_share
from consilium.shared.secure_sum.mask_graph import sharing_threshold, void_probability
from consilium.shared.study.definition import Study, with_changes
from consilium.shared.study.input_names import feature_names

EPSILONS = (8.0, 3.0, 1.0)
ROUND_FACTORS = (0.5, 1.0, 2.0)
DROPOUT_PARTS = (0.05, 0.1, 0.2, 0.3)
MEDIAN_DEVIATION = math.sqrt(math.pi / 2)
"""Standard deviation of the median of many Gaussians over that of their mean."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to run a study, and what its noise does.

    Attributes:
        epsilon: of the whole study, at the study's delta.
        rounds: training rounds.
        noise_multiplier: noise standard deviation / clip norm, in one step.
        step_noise: standard deviation of each coordinate of a step's mean gradient over all sites,
            in clip norms.
        step_signal_to_noise: clip norm / length of a step's noise, at best.
        study_signal_to_noise: the same over all steps of the study.
    """

    epsilon: float
    rounds: int
    noise_multiplier: float
    step_noise: float
    step_signal_to_noise: float
    study_signal_to_noise: float


@dataclass(frozen=True, kw_only=True)
class Margin:
    """How many sites' noise is counted on, in mode ``distributed``, and what that costs.

    Attributes:
        minimum_sites: fewest sites whose sum opens.
        colluding: of them, sites that may tell the coordinator their noise.
        counted: the others, on whose noise the guarantee counts.
        noise: all sites' noise at the study's epsilon, in units of what it would be if all were
            trusted to answer and to keep their noise secret.
        epsilon: what the study would cost instead if it had no more noise than that.
        own: whether it is the study as it stands.
    """

    minimum_sites: int
    colluding: int
    counted: int
    noise: float
    epsilon: float
    own: bool


@dataclass(frozen=True, kw_only=True)
class SumPlan:
    """How a study's secure sums are set up.

    Attributes:
        groups: number of groups, each with a sum of its own in every round.
        sites: number of sites in a group.
        neighbours: number of other sites with which each site shares masks.
        threshold: number of sites that must agree to a sum.
        sharing_threshold: number of shares that rebuild a secret.
        minimum_sites: fewest survivors whose sum is opened.
        affords: how many sites may fail and how many may collude, as one sentence.
        void_probability: by number of sites that fail at random, a bound on the probability that a
            round is void though ``minimum_sites`` survive; empty if all sites are neighbours.
    """

    groups: int
    sites: int
    neighbours: int
    threshold: int
    sharing_threshold: int
    minimum_sites: int
    affords: str
    void_probability: Mapping[int, float]


def sum_plan(study: Study) -> SumPlan:
    """Return how the study's secure sums are set up."""
    sites, degree, collusion = study.group_size, study.degree, study.aggregation.tolerated_collusion
    sparse = degree < sites - 1
    failing = sorted({math.ceil(part * sites) for part in DROPOUT_PARTS}) if sparse else []
    return SumPlan(
        groups=study.aggregation.groups,
        sites=sites,
        neighbours=degree,
        threshold=study.threshold,
        sharing_threshold=sharing_threshold(degree, collusion) if sparse else study.threshold,
        minimum_sites=study.minimum_sites,
        affords=study.affords,
        void_probability={
            failed: void_probability(sites, degree, collusion, failed)
            for failed in failing
            if failed <= study.dropouts_tolerated
        },
    )


def choices(study: Study, *, patients: int, epsilons: tuple[float, ...] = ()) -> list[Choice]:
    """Return the trade-off table of a study.

    Args:
        study: gives mode (``site`` if it has none), sampling, steps, rounds and sites.
        patients: training patients at each site.
        epsilons: budgets; 8, 3, 1 and the study's own unless given.

    Raises:
        PrivacyError: a budget cannot be met, or the ring cannot hold its noise.
    """
    study = _private(study)
    parameters = parameter_count(build_model(study, len(feature_names(study)), seed=0))
    wanted = epsilons or tuple(sorted({*EPSILONS, study.privacy.epsilon}, reverse=True))
    return [
        _choice(
            with_changes(study, study={"rounds": number}, privacy={"epsilon": epsilon}),
            patients,
            parameters,
        )
        for epsilon in wanted
        for number in _rounds(study)
    ]


def cost_of_noise(study: Study, noise_multiplier: float) -> dict[int, float]:
    """Return epsilon by number of rounds, for this noise in training and the study's statistics.

    Args:
        study: gives delta, sampling, steps, rounds, and what is paid beside training.
        noise_multiplier: noise standard deviation / clip norm on the sum of a step.

    Raises:
        PrivacyError: the noise is not above 0 and finite.
    """
    costs = plan(_private(study))
    if costs is None:
        raise ValueError("a study without privacy has no privacy costs")
    step = replace(costs.training_round, noise_multiplier=noise_multiplier)
    changed = replace(costs, training_round=step)
    return {rounds: changed.epsilon_after(rounds, costs.calibrations) for rounds in _rounds(study)}


def margins(study: Study) -> list[Margin]:
    """Return what trusting all sites, the study as it stands, and other margins cost.

    Only what a study may say is listed, dearest last; nothing in a mode that shares no noise.
    """
    if study.privacy.mode != "distributed":
        return []
    sites, own = study.group_size, (study.minimum_sites, study.aggregation.tolerated_collusion)
    answering = {own[0], *range(max(sites - 2, 0), sites + 1)}
    asked = {own, *((least, known) for least in answering for known in (0, 1, 2))}
    found = [margin for pair in sorted(asked) if (margin := _margin(study, *pair))]
    return sorted(found, key=lambda margin: (margin.noise, margin.colluding))


def _margin(study: Study, answering: int, colluding: int) -> Margin | None:
    """Return the price of one margin; None if the study's other numbers do not allow it."""
    own = (study.minimum_sites, study.aggregation.tolerated_collusion) == (answering, colluding)
    how: dict[str, object] = {"minimum_sites": answering, "tolerated_collusion": colluding}
    try:
        changed = study if own else with_changes(study, aggregation=how)
    except StudyError:
        return None
    costs, noise = plan(changed), math.sqrt(noise_carried(changed))
    if costs is None:
        raise ValueError("a study without privacy has no privacy costs")

    def weaker(event: PrivacyEvent) -> PrivacyEvent:
        return replace(event, noise_multiplier=event.noise_multiplier / noise)

    calibration = None if costs.calibration is None else weaker(costs.calibration)
    same = replace(costs, training_round=weaker(costs.training_round), calibration=calibration)
    return Margin(
        minimum_sites=answering,
        colluding=colluding,
        counted=answering - colluding,
        noise=noise,
        epsilon=same.epsilon_after(study.rounds, costs.calibrations),
        own=own,
    )


def noise_carried(study: Study) -> float:
    """Return variance of all sites' noise / variance of noise from the sites assumed honest."""
    if study.privacy.mode != "distributed":
        return 1.0
    return study.group_size / (study.minimum_sites - study.aggregation.tolerated_collusion)


def _private(study: Study) -> Study:
    if study.privacy.mode == "none":
        return with_changes(study, privacy={"mode": "site"})
    return study


def _rounds(study: Study) -> list[int]:
    return list(dict.fromkeys(max(1, round(factor * study.rounds)) for factor in ROUND_FACTORS))


def _choice(study: Study, patients: int, parameters: int) -> Choice:
    costs = plan(study)
    if costs is None:
        raise ValueError("a study without privacy has no privacy costs")
    multiplier = costs.training_round.noise_multiplier
    sites, expected = len(study.sites), study.training.sampling_rate * patients
    step_noise = multiplier / (expected * math.sqrt(sites))
    if study.privacy.mode == "distributed":
        share = noise_share(study, parameters)
        total = math.sqrt(sites * share.variance) / share.scale / study.privacy.clip_norm
        if study.aggregation.groups > 1:
            total *= MEDIAN_DEVIATION
        step_noise = total / (expected * sites)
    ratio = 1.0 / (step_noise * math.sqrt(parameters))
    return Choice(
        epsilon=study.privacy.epsilon,
        rounds=study.rounds,
        noise_multiplier=multiplier,
        step_noise=step_noise,
        step_signal_to_noise=ratio,
        study_signal_to_noise=ratio * math.sqrt(study.rounds * study.training.local_steps),
    )
