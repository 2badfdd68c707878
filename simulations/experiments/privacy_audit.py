"""An audit that convicts: what a site would release is measured, and compared with the claim.

Release by release, the code that hospitals run computes vectors on made-up patients
(:mod:`consilium.simulations.experiments.audited_release`), and these are measured directly:

- *Noise*: on patients who contribute nothing all that is left is noise. Thousands of coordinates
  give its standard deviation to a few percent, its shape, and whether it is drawn anew each time.
- *Shift*: with little noise, the mean with the canary less the mean without it is as long as the
  clip norm allows; with 64 equal stays it is no longer than with one.
- *Sampling*: with little noise, the number of sampled canaries is seen; it must be binomial.
- *Epsilon*: the worst that noise, shift and sampling can be within their intervals bounds epsilon
  from below (:func:`consilium.simulations.experiments.epsilon_bounds.attack_epsilon`).
- *Ledger*: what it says was spent must be no less than such a bound.

One bound of error covers the whole audit: each of at most ``MOST_TESTS`` tests has its share
(Bonferroni), so that an honest build is convicted with probability at most 1 - ``confidence``.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from consilium.client.records.features import TimeGrid
from consilium.shared.errors import SettingsError
from consilium.shared.model.normalisation import statistics_clip, statistics_size
from consilium.shared.privacy.accounting import epsilon_spent
from consilium.shared.privacy.calibration import calibration_size
from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.experiments import audited_release as released
from consilium.simulations.experiments.audit_findings import Audit, Finding, verdict
from consilium.simulations.experiments.audited_release import Release
from consilium.simulations.experiments.canary import (
    MANY_STAYS,
    Exposed,
    blank_grid,
    canary_grid,
    cohort_of,
    expose,
    joined,
    loud_weights,
    statistics_reach,
    usual_grid,
    without_stays,
)
from consilium.simulations.experiments.epsilon_bounds import attack_epsilon
from consilium.simulations.experiments.ledger_audit import ledger_findings
from consilium.simulations.experiments.release_tests import (
    PAIRS,
    Measured,
    measure_control,
    measure_noise,
    measure_sampling,
    measure_shift,
)

CONFIDENCE = 0.999
MOST_TESTS = 80
OTHERS = 6  # patients beside the canary
HELD_OUT_OTHERS, HELD_OUT_STAYS = 1, 4  # in evaluation; explaining a stay takes its time
EXPLAINED_PAIRS = 12
COUNTED_PAIRS = 500  # of counts of persons, which keep more noise and are quickly made
FEW_STATISTICS = 500  # numbers in half the draws; a study of one variable has three a draw
FEW_CALIBRATIONS = 800  # likewise; of many sites each one's little noise is mostly rounding
MARKERS = 100  # equal patients of whom a training round samples some


def audit_study(study: Study, *, confidence: float = CONFIDENCE) -> Audit:
    """Measure every release of a study on made-up patients, and its ledger.

    Args:
        study: any study with privacy; its records are not needed.
        confidence: probability, at least, with which an honest build is convicted of nothing.

    Raises:
        SettingsError: the study has no privacy to audit, or the confidence is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise SettingsError(f"confidence {confidence:g} must be above 0 and below 1; take 0.999")
    claimed = released.costs_of(study)
    with TemporaryDirectory(prefix="consilium-audit-") as made:
        bench = _Bench.of(study, Path(made), level=(1 - confidence) / MOST_TESTS)
        statistics, training = _statistics(bench), _training(bench)
        calibration = _calibration(bench)
        found = [*_feasibility(bench), *statistics.findings, *training.findings]
        found += [finding for part in calibration for finding in part.findings]
        found += _evaluations(bench)
        found += ledger_findings(study, bench.folder)
    event = claimed.training_round
    low = attack_epsilon(
        (statistics.multiplier, *(part.multiplier for part in calibration)),
        (training.multiplier, training.rate, event.steps * study.rounds),
        claimed.delta,
    )
    what = f"epsilon, {study.rounds} rounds"
    found.append(_epsilon("whole study", what, study.privacy.epsilon, low))
    return Audit(
        study=study.name,
        confidence=confidence,
        delta=claimed.delta,
        epsilon_claimed=study.privacy.epsilon,
        epsilon_low=low,
        findings=tuple(found),
    )


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """The study as released and with little noise, and a canary that stands out in both."""

    own: Study
    still: Study
    sampling: Study
    exposed: Exposed
    folder: Path
    level: float

    @classmethod
    def of(cls, study: Study, folder: Path, *, level: float) -> "_Bench":
        own = released.as_released(study)
        still = released.quiet(own, sampling=False)
        return cls(
            own=own,
            still=still,
            sampling=released.quiet(own, sampling=True),
            exposed=expose(still),
            folder=folder,
            level=level,
        )

    def canary(self, stays: int, *, patients: int = 1) -> TimeGrid:
        return canary_grid(self.still, self.exposed.y, stays=stays, patients=patients)


@dataclass(frozen=True, kw_only=True)
class _Audited:
    """A release's findings, and the largest multiplier and least rate within their intervals."""

    findings: tuple[Finding, ...]
    multiplier: float
    rate: float = 1.0


def _feasibility(bench: _Bench) -> tuple[Finding, ...]:
    """Audit the count of persons, if the study asks for one; nobody's rows are left of a blank."""
    if bench.own.feasibility is None:
        return ()
    weights_D = bench.exposed.weights_D
    own, quiet = (released.feasibility(one, weights_D) for one in (bench.own, bench.still))
    nobody = without_stays(blank_grid(bench.own, patients=1), 0)
    noise = measure_noise(own, cohort_of(nobody), bench.folder, bench.level)
    others = usual_grid(bench.still, patients=OTHERS)
    shift = measure_shift(
        quiet,
        quiet.matrix(
            cohort_of(joined(others, bench.canary(MANY_STAYS))), bench.folder, COUNTED_PAIRS
        ),
        quiet.matrix(cohort_of(others), bench.folder, COUNTED_PAIRS),
        bench.level,
        what=f"{MANY_STAYS} stays",
        exceeds=float(MANY_STAYS),
    )
    costs = released.costs_of(bench.own)
    multiplier = _largest_multiplier(own.noise, noise, shift)
    low = attack_epsilon((multiplier,), None, costs.delta)
    claim = epsilon_spent(costs.counted, costs.delta)
    return (*noise.findings, *shift.findings, _epsilon(own.name, "epsilon", claim, low))


def _statistics(bench: _Bench) -> _Audited:
    weights_D = bench.exposed.weights_D
    own = released.statistics(bench.own, weights_D)
    noise = measure_noise(own, cohort_of(blank_grid(bench.own)), bench.folder, bench.level)
    quiet = released.statistics(bench.still, weights_D)
    others = usual_grid(bench.still, patients=OTHERS)
    having = joined(others, bench.canary(MANY_STAYS))
    pairs = max(PAIRS, 2 * (FEW_STATISTICS // statistics_size(bench.still)))
    shift = measure_shift(
        quiet,
        quiet.matrix(cohort_of(having), bench.folder, pairs),
        quiet.matrix(cohort_of(others), bench.folder, pairs),
        bench.level,
        what=f"{MANY_STAYS} stays",
        exceeds=statistics_reach(bench.still) / statistics_clip(bench.still),
    )
    costs = released.costs_of(bench.own)
    multiplier = _largest_multiplier(costs.statistics.noise_multiplier, noise, shift)
    low = attack_epsilon((multiplier,), None, costs.delta)
    epsilon = _epsilon(own.name, "epsilon", epsilon_spent((costs.statistics,), costs.delta), low)
    findings = (*noise.findings, *shift.findings, epsilon)
    return _Audited(findings=findings, multiplier=multiplier)


def _training(bench: _Bench) -> _Audited:
    weights_D, clip = bench.exposed.weights_D, bench.own.privacy.clip_norm
    own, blank = released.training(bench.own, weights_D), cohort_of(blank_grid(bench.own))
    noise = measure_noise(own, blank, bench.folder, bench.level)
    shifts = [_training_shift(bench, stays) for stays in (1, MANY_STAYS)]
    sampling = measure_sampling(
        released.training(bench.sampling, weights_D),
        cohort_of(bench.canary(1, patients=MARKERS)),
        bench.exposed.gradient_D / max(bench.exposed.length, clip),
        bench.folder,
        bench.level,
    )
    findings = [*noise.findings, *(each for part in shifts for each in part.findings)]
    findings += sampling.findings
    if bench.own.training.control_variates:
        findings.append(measure_control(released.with_control(own), blank, bench.folder))
    costs = released.costs_of(bench.own)
    event = costs.training_round
    widest = max(shifts, key=lambda shift: shift.share.low)
    multiplier = _largest_multiplier(event.noise_multiplier, noise, widest)
    rate = float(np.clip(sampling.share.low, 0.0, 1.0))
    low = attack_epsilon((), (multiplier, rate, event.steps), costs.delta)
    claim = epsilon_spent((event,), costs.delta)
    findings.append(_epsilon(own.name, "epsilon, one round", claim, low))
    return _Audited(findings=tuple(findings), multiplier=multiplier, rate=rate)


def _calibration(bench: _Bench) -> list[_Audited]:
    """Audit a calibration round; return it as often as the study has such rounds.

    Its canary stands alone: it has the outcome that its log-odds speak against.
    """
    weights_D = bench.exposed.weights_D
    own, quiet = (released.calibration(each, weights_D) for each in (bench.own, bench.still))
    claimed = released.costs_of(bench.own)
    if own is None or quiet is None or claimed.calibration is None:
        return []
    blank = cohort_of(blank_grid(bench.own))
    noise = measure_noise(own, blank, bench.folder, bench.level, size_alone=True)
    having = cohort_of(bench.canary(MANY_STAYS))
    lacking = cohort_of(without_stays(bench.canary(MANY_STAYS), 0))
    pairs = max(PAIRS, 2 * (FEW_CALIBRATIONS // calibration_size(bench.still)))
    shift = measure_shift(
        quiet,
        quiet.matrix(having, bench.folder, pairs),
        quiet.matrix(lacking, bench.folder, pairs),
        bench.level,
        what=f"{MANY_STAYS} stays",
        exceeds=float(MANY_STAYS),
    )
    multiplier = _largest_multiplier(claimed.calibration.noise_multiplier, noise, shift)
    low = attack_epsilon((multiplier,), None, claimed.delta)
    claim = epsilon_spent((claimed.calibration,), claimed.delta)
    epsilon = _epsilon(own.name, "epsilon, one round", claim, low)
    part = _Audited(findings=(*noise.findings, *shift.findings, epsilon), multiplier=multiplier)
    return [part, *[replace(part, findings=())] * (claimed.calibrations - 1)]


def _training_shift(bench: _Bench, stays: int) -> Measured:
    """Measure a canary's shift; without it, a patient without stays takes its place."""
    quiet = released.training(bench.still, bench.exposed.weights_D)
    having = joined(usual_grid(bench.still, patients=OTHERS), bench.canary(stays))
    lacking = without_stays(having, OTHERS)
    return measure_shift(
        quiet,
        quiet.matrix(cohort_of(having), bench.folder, PAIRS),
        quiet.matrix(cohort_of(lacking), bench.folder, PAIRS),
        bench.level,
        what=f"{stays} stay{'s' if stays > 1 else ''}",
        exceeds=stays * bench.exposed.length / bench.still.privacy.clip_norm,
    )


def _evaluations(bench: _Bench) -> list[Finding]:
    """Audit evaluation in training and at the end, and attributions, as far as they leave.

    Each is measured with little noise in a study that releases no more than it must beside it.
    """
    study, still, weights_D = bench.own, bench.still, bench.exposed.weights_D
    if not study.evaluation.validation_fraction:
        return []
    bare = with_changes(still, evaluation={"explained_patients": 0})
    alone = with_changes(still, evaluation={"subgroups": {}, "per_site": False})
    in_training = _evaluation(
        bench,
        released.evaluation_in_training(study, weights_D),
        released.evaluation_in_training(still, weights_D),
    )
    final = [
        _evaluation(
            bench,
            released.final_evaluation(study, weights_D),
            released.final_evaluation(bare, weights_D),
        )
    ]
    if study.evaluation.explained_patients:
        loud_D = loud_weights(still)
        own, quiet = (released.attributions(each, loud_D) for each in (study, alone))
        final.append(_evaluation(bench, own, quiet, pairs=EXPLAINED_PAIRS))
    costs = released.costs_of(study)
    noiseless = any(part.multiplier <= 0 for part in final)
    together = 0.0 if noiseless else sum(part.multiplier**-2 for part in final) ** -0.5
    multipliers = (in_training.multiplier,) * (costs.evaluations - study.passes)
    low = attack_epsilon((*multipliers, *(together,) * study.passes), None, costs.delta)
    what = f"epsilon, {costs.evaluations} evaluations"
    return [
        *(each for part in (in_training, *final) for each in part.findings),
        _epsilon("all evaluations", what, study.privacy.epsilon, low),
    ]


def _evaluation(bench: _Bench, own: Release, quiet: Release, *, pairs: int = PAIRS) -> _Audited:
    """Audit one kind of evaluation; the multiplier is of the whole release's sensitivity."""
    blank = blank_grid(bench.own)
    others = usual_grid(bench.still, patients=HELD_OUT_OTHERS)
    noise = measure_noise(own, cohort_of(blank), bench.folder, bench.level)
    having = cohort_of(blank, joined(others, bench.canary(HELD_OUT_STAYS)))
    shift = measure_shift(
        quiet,
        quiet.matrix(having, bench.folder, pairs),
        quiet.matrix(cohort_of(blank, others), bench.folder, pairs),
        bench.level,
        what=f"{HELD_OUT_STAYS} stays",
        exceeds=float("inf"),
    )
    claimed = released.costs_of(bench.own).metrics.noise_multiplier
    return _Audited(
        findings=(*noise.findings, *shift.findings),
        multiplier=_largest_multiplier(claimed, noise, shift) / own.reach,
    )


def _largest_multiplier(claimed: float, noise: Measured, shift: Measured) -> float:
    """Return the noise multiplier that the intervals allow at most; infinity if nothing moved."""
    return claimed * noise.share.high / shift.share.low if shift.share.low > 0 else float("inf")


def _epsilon(release: str, what: str, claimed: float, low: float) -> Finding:
    return Finding(
        release=release,
        what=what,
        claimed=claimed,
        measured=low,
        low=low,
        high=float("inf"),
        verdict=verdict(refuted=low > claimed, powerful=low > claimed / 2),
        convicts="a lower bound above the claim",
    )
