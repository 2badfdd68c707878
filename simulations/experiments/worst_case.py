"""What a study's releases cost if the coordinator lies and as many sites as tolerated help it.

The claim is made when noise is calibrated, before anything runs. Here it is checked from the other
end: from the noise that one site draws, as its own code is told to, and the fewest honest sites
whose noise can be in a sum that opens. A lying coordinator picks the survivors, so there may be
``minimum_sites`` of them, and ``tolerated_collusion`` of those know, or leave out, their own noise:

- training in mode ``distributed``: the noise of M - c sites, each a discrete Gaussian of the
  share's variance, against one patient's part of scale * clip_norm + sqrt(d) whole numbers
  (:mod:`consilium.shared.privacy.shared_noise`, steps 1 to 3);
- a calibration round in mode ``distributed``: likewise, against its own bound;
- everything else, and all of mode ``site``: the noise of the patient's own site alone, as if all
  others were known, against the bound on one patient's part.

What the ledger claims for these releases is not read here, but for training and calibration in mode
``site``, where a site draws exactly that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from consilium.shared.errors import SettingsError, StudyError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.model.normalisation import statistics_clip
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import parameter_count
from consilium.shared.privacy.accounting import PrivacyEvent, epsilon_spent, plan
from consilium.shared.privacy.calibration import calibration_bound
from consilium.shared.privacy.shared_noise import (
    CONVOLUTION_VARIANCE,
    NoiseShare,
    calibration_share,
    noise_share,
)
from consilium.shared.rounds.contents import metrics_noise, metrics_sensitivity, statistics_noise
from consilium.shared.study.definition import Study

TOLERANCE = 1e-3
"""Relative; the accountant's own width."""

BEGIN = "<!-- worst cases: made by `consilium-simulate worst-case`, not by hand -->"
END = "<!-- end of worst cases -->"


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """A study's cost when the coordinator lies and c sites help it.

    Attributes:
        study: its name.
        mode: of privacy.
        sites: n, in each group that is summed.
        minimum_sites: M, fewest survivors whose sum opens.
        threshold: t, sites that must agree to a sum.
        collusion: c, sites that help the coordinator.
        counted: sites whose noise is in the training rounds' sums for certain.
        claimed: the study's epsilon, at its delta.
        delta: the same for both.
        statistics: epsilon of the one release of statistics.
        round: epsilon of one training round.
        calibration: epsilon of one calibration round; None if the study has none.
        training: epsilon on a training patient, of statistics and all rounds together, those of
            calibration too.
        evaluation: epsilon of one evaluation, attributions included.
        validation: epsilon on a validation patient, of all evaluations together; None if the study
            holds nobody out.
    """

    study: str
    mode: str
    sites: int
    minimum_sites: int
    threshold: int
    collusion: int
    counted: int
    claimed: float
    delta: float
    statistics: float
    round: float
    calibration: float | None
    training: float
    evaluation: float | None
    validation: float | None

    @property
    def worst(self) -> float:
        """The largest epsilon on anybody."""
        return max(self.training, self.validation or 0.0)

    @property
    def holds(self) -> bool:
        """Whether the worst case costs no more than is claimed."""
        return self.worst <= self.claimed * (1 + TOLERANCE)


def worst_case(study: Study) -> WorstCase:
    """Return what the study costs in the worst case.

    Raises:
        StudyError: the study has no privacy.
        PrivacyError: its noise does not fit its ring.
    """
    private, how = study.privacy, study.aggregation
    if private.mode == "none":
        raise StudyError(f"study {study.name}: has privacy mode none, so it claims nothing")
    statistics = _event(statistics_noise(study) / statistics_clip(study))
    counted, training_noise = _training_noise(study)
    training = PrivacyEvent(
        sampling_rate=study.training.sampling_rate,
        noise_multiplier=training_noise,
        steps=study.training.local_steps,
    )
    calibration = _calibration(study)
    finals = [_evaluation(study, final=True)] * study.passes
    others = [_evaluation(study, final=False)] * math.ceil(study.rounds / study.evaluation.every)
    held_out = study.evaluation.validation_fraction > 0

    def spent(*events: PrivacyEvent) -> float:
        return epsilon_spent(events, private.delta)

    return WorstCase(
        study=study.name,
        mode=private.mode,
        sites=study.group_size,
        minimum_sites=study.minimum_sites,
        threshold=study.threshold,
        collusion=how.tolerated_collusion,
        counted=counted,
        claimed=private.epsilon,
        delta=private.delta,
        statistics=spent(statistics),
        round=spent(training),
        calibration=spent(calibration[0]) if calibration else None,
        training=spent(statistics, training.repeated(study.rounds), *calibration),
        evaluation=max(spent(finals[0]), spent(others[0])) if held_out else None,
        validation=spent(*others, *finals) if held_out else None,
    )


def _event(noise_multiplier: float) -> PrivacyEvent:
    return PrivacyEvent(sampling_rate=1.0, noise_multiplier=noise_multiplier, steps=1)


def _evaluation(study: Study, *, final: bool) -> PrivacyEvent:
    """One evaluation: a site's own noise on every count, over one patient's share of the counts."""
    return _event(metrics_noise(study, final=final) / metrics_sensitivity(study, final=final))


def _training_noise(study: Study) -> tuple[int, float]:
    """Return the sites whose noise counts, and its deviation over one patient's part."""
    parameters = parameter_count(study_model(study))
    if study.privacy.mode == "site":
        costs = plan(study)
        if costs is None:
            raise ValueError("a study without privacy has no noise")
        return 1, costs.training_round.noise_multiplier
    share = noise_share(study, parameters)
    return _honest(study), _multiplier(study, share, study.privacy.clip_norm)


def _calibration(study: Study) -> list[PrivacyEvent]:
    """Return the calibration rounds, each with its noise over one patient's part."""
    rounds, costs = study.calibration_rounds, plan(study)
    if not rounds or costs is None or costs.calibration is None:
        return []
    if study.privacy.mode == "site":
        return [_event(costs.calibration.noise_multiplier)] * rounds
    share = calibration_share(study)
    return [_event(_multiplier(study, share, calibration_bound(study)))] * rounds


def _honest(study: Study) -> int:
    return study.minimum_sites - study.aggregation.tolerated_collusion


def _multiplier(study: Study, share: NoiseShare, bound: float) -> float:
    """Return the deviation of the honest sites' noise over one patient's part of the sum."""
    gaussian = _honest(study) * share.variance - CONVOLUTION_VARIANCE
    part = share.scale * bound + math.sqrt(share.segment.length)
    return math.sqrt(gaussian) / part


def worst_cases_table(cases: Sequence[WorstCase]) -> str:
    """Return a Markdown table of the cases; epsilons rounded up to three digits after the point."""
    lines = [
        "| study | mode | n | M | t | c | noise counted of | ε claimed | statistics | one round "
        "| one calibration | all training | one evaluation | all evaluations | worst |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        epsilons = (
            case.statistics, case.round, case.calibration, case.training, case.evaluation,
            case.validation, case.worst,
        )  # fmt: skip
        lines.append(
            f"| {case.study} | {case.mode} | {case.sites} | {case.minimum_sites} "
            f"| {case.threshold} | {case.collusion} | {case.counted} | {case.claimed:g} | "
            + " | ".join("–" if epsilon is None else f"{_up(epsilon):.3f}" for epsilon in epsilons)
            + " |"
        )
    return "\n".join(lines)


def _up(epsilon: float) -> float:
    """Round up to three digits, but for what calibration leaves below a ten-thousandth."""
    return math.ceil(epsilon * 1000 - 0.1) / 1000


def write_table(page: Path, table: str) -> None:
    """Put the table between the page's two marks.

    Raises:
        SettingsError: the page cannot be read, or lacks the marks.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{page}: cannot be read as text; name the page to write") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SettingsError(f"{page}: lacks the lines {BEGIN!r} and {END!r}; add them")
    write_atomically(page, f"{before}{begin}\n{table}\n{end}{after}".encode())
