"""One kind of release of a study, as a site computes it: from a cohort to the vector it would mask.

What is called is :class:`consilium.client.round.contribution.Contributor`, with nothing replaced,
on two kinds of settings. *As released*: the study's own noise, sampling and rounds. *Quiet*: the
same study with so large an epsilon that a patient's part stands out of the noise, without dropout.
In privacy mode ``site`` the optimiser is plain gradient descent with small steps in both, and
weights count alike: all that follows clipping and noise is post-processing, and it would hide them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.records.cohort import Cohort
from consilium.client.records.declared_size import usual_size
from consilium.client.round.contribution import Contributor
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.errors import SettingsError
from consilium.shared.model.normalisation import Normalisation, statistics_clip
from consilium.shared.privacy.accounting import PrivacyPlan, plan
from consilium.shared.privacy.calibration import calibration_bound
from consilium.shared.rounds.attribution_bands import PARTS
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    metrics_sensitivity,
    sum_parameters,
)
from consilium.shared.secure_sum.fixed_point import decode
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study, with_changes

QUIET_EPSILON = 300.0
QUIET_SHARE, QUIET_CALIBRATION = 0.5, 0.4  # of it, for the statistics and for one calibration
USUAL_COHORT = 20.0  # patients; steps of training are made for about so many
STEP = 1e-3  # how far a clip norm moves the weights, in mode site: their gradient then stays
UPDATE_NORM = 10.0
EXPLAINED = 100  # patients; nobody is left out at random then
RUN = bytes(16)


@dataclass(frozen=True, kw_only=True)
class Release:
    """One kind of release.

    Attributes:
        name: what is released.
        study: the study with its settings for the audit.
        asked: what the coordinator asks for.
        received: the weights that it sends.
        segments: of the vector that are looked at.
        noise: claimed standard deviation of one site's noise, in units of the claimed largest shift
            by one patient in one step.
        reach: claimed largest shift by one patient, in the same unit.
    """

    name: str
    study: Study
    asked: RoundConfiguration
    received: NDArray[np.float32]
    segments: tuple[str, ...]
    noise: float
    reach: float = 1.0

    def draws(
        self, cohort: Cohort, folder: Path, *, site: int = 0
    ) -> Iterator[NDArray[np.float64]]:
        """Yield what the site would release, again and again, in the unit of ``noise``."""
        name = self.study.sites[site]
        contributor = Contributor(name, self.study, cohort, Policy(), PersonalStore(folder))
        run, unit = self._run(cohort, name), self._unit(cohort)
        spec = contributor.spec(self.asked, run.roster)
        number = 0
        while True:
            number += 1
            ring = contributor.vector(self.asked, self.received, number, run)
            parts = decode(ring, spec)
            yield np.concatenate([parts[name][:] for name in self.segments]) / unit

    def matrix(
        self, cohort: Cohort, folder: Path, count: int, *, site: int = 0
    ) -> NDArray[np.float64]:
        """Return ``count`` draws, shape (count, coordinates)."""
        draws = self.draws(cohort, folder, site=site)
        return np.stack([next(draws) for _ in range(count)])

    def _run(self, cohort: Cohort, site: str) -> SumParameters:
        """Return a run in which every site declares this cohort's size."""
        keys = {name: IdentityKey.generate() for name in self.study.sites}
        size, digest = usual_size(cohort.training.patients, self.study), self.study.digest
        roster = Roster(
            tuple((name, key.public) for name, key in keys.items()),
            tuple(
                Declaration.signed(size, study_digest=digest, site=name, sign=key.sign)
                for name, key in keys.items()
            ),
        )
        return sum_parameters(self.study, roster, RUN, site=site)

    def _unit(self, cohort: Cohort) -> float:
        """Return the claimed largest shift by one patient, as the decoded vector shows it."""
        study = self.study
        if self.asked.purpose is Purpose.STATISTICS:
            return statistics_clip(study)
        if self.asked.purpose is Purpose.CALIBRATION:
            return calibration_bound(study)
        if "update" not in self.segments:
            return metrics_sensitivity(study, final=self.asked.purpose is Purpose.EVALUATION)
        if study.privacy.mode == "distributed":
            return study.privacy.clip_norm
        expected = study.training.sampling_rate * usual_size(cohort.training.patients, study)
        return -study.training.learning_rate * study.privacy.clip_norm / expected


def as_released(study: Study) -> Study:
    """Return the study with its own noise, and post-processing that does not hide it."""
    if study.privacy.mode != "site":
        return study
    expected = study.training.sampling_rate * USUAL_COHORT
    return with_changes(
        study,
        training={
            "optimizer": "sgd",
            "learning_rate": STEP * expected / study.privacy.clip_norm,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "l1": 0.0,
            "gradient_clip": 0.0,
            "proximal": 0.0,
        },
        aggregation={"weighting": "uniform", "update_norm": UPDATE_NORM},
    )


def quiet(study: Study, *, sampling: bool) -> Study:
    """Return the study with very little noise, without dropout, with one evaluation.

    Args:
        study: from :func:`as_released`.
        sampling: keep the sampling rate and the steps; otherwise everybody takes part in the fewest
            steps that the study allows.
    """
    steps = 2 if study.training.control_variates else 1
    most = study.evaluation.explained_patients
    explained = {"explained_patients": max(most, EXPLAINED)} if most else {}
    return with_changes(
        study,
        study={"rounds": 1},
        training={} if sampling else {"sampling_rate": 1.0, "local_steps": steps},
        model=study.model.without_dropout(),
        privacy={
            "epsilon": QUIET_EPSILON,
            "statistics_fraction": QUIET_SHARE,
            "calibration_fraction": QUIET_CALIBRATION,
            **({"calibration_rounds": 1} if study.calibration_rounds else {}),
        },
        evaluation={"every": 1, "passes": 1, **explained},
    )


def costs_of(study: Study) -> PrivacyPlan:
    """Return the study's plan.

    Raises:
        SettingsError: the study has no privacy to audit.
    """
    costs = plan(study)
    if costs is None:
        raise SettingsError(
            f"study {study.name}: privacy mode none claims no epsilon to audit; set [privacy] mode"
        )
    return costs


def honest_sites(study: Study) -> int:
    """Return how many sites' noise the claim for a training round counts."""
    if study.privacy.mode == "site":
        return 1
    return study.minimum_sites - study.aggregation.tolerated_collusion


def statistics(study: Study, weights_D: NDArray[np.float32]) -> Release:
    """Return the release of normalisation statistics."""
    return Release(
        name="statistics",
        study=study,
        asked=RoundConfiguration(purpose=Purpose.STATISTICS),
        received=weights_D,
        segments=("statistics",),
        noise=costs_of(study).statistics.noise_multiplier,
    )


def training(study: Study, weights_D: NDArray[np.float32]) -> Release:
    """Return a training round; its shift and noise are those of all local steps together."""
    steps = study.training.local_steps
    noise = costs_of(study).training_round.noise_multiplier
    return Release(
        name="training",
        study=study,
        asked=_asked(study, Purpose.TRAINING),
        received=_with_control(study, weights_D),
        segments=("update",),
        noise=noise * (steps / honest_sites(study)) ** 0.5,
        reach=float(steps),
    )


def calibration(study: Study, weights_D: NDArray[np.float32]) -> Release | None:
    """Return a calibration round; None if the study has none."""
    event = costs_of(study).calibration
    if event is None:
        return None
    return Release(
        name="calibration",
        study=study,
        asked=_asked(study, Purpose.CALIBRATION),
        received=weights_D,
        segments=("calibration",),
        noise=event.noise_multiplier / honest_sites(study) ** 0.5,
    )


def with_control(release: Release) -> Release:
    """Return a training round with SCAFFOLD's control variate after the update."""
    return replace(release, segments=("update", "control"))


def evaluation_in_training(study: Study, weights_D: NDArray[np.float32]) -> Release:
    """Return the figures on held-out patients that a training round brings."""
    return Release(
        name="evaluation in training",
        study=study,
        asked=_asked(study, Purpose.TRAINING, evaluate=True),
        received=_with_control(study, weights_D),
        segments=_figures(study),
        noise=costs_of(study).metrics.noise_multiplier,
    )


def final_evaluation(study: Study, weights_D: NDArray[np.float32]) -> Release:
    """Return the figures of the finished model, without attributions."""
    return Release(
        name="final evaluation",
        study=study,
        asked=_asked(study, Purpose.EVALUATION),
        received=weights_D,
        segments=_figures(study, final=True),
        noise=costs_of(study).metrics.noise_multiplier,
        reach=math.sqrt(1 - _explained_share(study)),
    )


def attributions(study: Study, weights_D: NDArray[np.float32]) -> Release:
    """Return what leaves with the final evaluation about what the model looks at."""
    return Release(
        name="attributions",
        study=study,
        asked=_asked(study, Purpose.EVALUATION),
        received=weights_D,
        segments=("attributions",),
        noise=costs_of(study).metrics.noise_multiplier,
        reach=math.sqrt(_explained_share(study)),
    )


def _explained_share(study: Study) -> float:
    """Return which part of the squared sensitivity of a final evaluation is attributions'."""
    if not study.evaluation.explained_patients:
        return 0.0
    return PARTS / metrics_sensitivity(study, final=True) ** 2


def _figures(study: Study, *, final: bool = False) -> tuple[str, ...]:
    """Return the names of an evaluation's segments, without attributions."""
    return (
        "loss",
        *(("scores",) if study.task.kind != "regression" else ()),
        *(("hits",) if study.task.kind in ("regression", "multiclass") else ()),
        *(
            ("groups",)
            if final and (study.evaluation.subgroups or study.evaluation.per_site)
            else ()
        ),
    )


def _asked(study: Study, purpose: Purpose, *, evaluate: bool = False) -> RoundConfiguration:
    normalisation = Normalisation.reference(study).to_bytes()
    return RoundConfiguration(purpose=purpose, evaluate=evaluate, normalisation=normalisation)


def _with_control(study: Study, weights_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the weights, followed by a control variate of zero where the study has one."""
    if not study.training.control_variates:
        return weights_D
    return np.concatenate([weights_D, np.zeros_like(weights_D)])
