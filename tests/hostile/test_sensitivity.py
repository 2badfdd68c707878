"""Whatever a coordinator sends, one patient changes what leaves by the claimed bound at most.

The vectors are compared in the clear: noise and rounding are drawn from the same keystreams with
the patient and without, so that the difference is the patient's alone.
"""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.records.cohort import Cohort
from consilium.client.round.contribution import Contributor
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.figures.score_counts import first_edges
from consilium.shared.model.normalisation import statistics_clip
from consilium.shared.privacy.calibration import calibration_bound
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    edges_to_bytes,
    metrics_sensitivity,
    sum_parameters,
)
from consilium.shared.secure_sum.fixed_point import decode
from consilium.shared.study.definition import Study, with_changes
from tests import outside_models as made
from tests.fixed_draws import fix_draws
from tests.hostile.neighbours import (
    BASE,
    PATIENTS,
    STUDIES,
    TASKS,
    hostile_normalisation,
    hostile_weights,
    pair,
)
from tests.rosters import sized_roster

KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in ("a", "b", "c")}
DECLARED = 20
WEIGHTS = range(5)


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_draws(monkeypatch)
    # a local step draws its noise behind the sample, from the same keystream
    monkeypatch.setattr("consilium.client.round.training._noised", lambda sum_D, *_: sum_D)


def asked(study: Study, purpose: Purpose, number: int) -> RoundConfiguration:
    edges = b""
    if number % 2 and study.task.kind != "regression":
        edges_L = first_edges(study.bins, study.evaluation.thresholds).astype(np.float32)
        edges = edges_to_bytes(np.tile(edges_L**3, (study.task.outputs, 1)), study)
    return RoundConfiguration(
        purpose=purpose,
        evaluate=purpose is Purpose.TRAINING,
        normalisation=hostile_normalisation(study, number),
        edges=edges,
    )


def parts(
    cohort: Cohort, study: Study, purpose: Purpose, number: int, folder: Path
) -> dict[str, np.ndarray]:
    """Return the site's vector, decoded by segment."""
    one = Contributor("a", study, cohort, Policy(), PersonalStore(folder))
    asked_for = asked(study, purpose, number)
    received = hostile_weights(one.parameters, number)
    if study.training.control_variates and purpose is Purpose.TRAINING:
        received = np.concatenate([received, np.zeros_like(received)])
    one.check(asked_for, received)
    roster = sized_roster(KEYS, study.digest, a=DECLARED)
    run = sum_parameters(study, roster, bytes(16), site="a")
    ring = one.vector(asked_for, received, 3, run)
    one.keep()
    return {name: part[:] for name, part in decode(ring, one.spec(asked_for, run.roster)).items()}


def bound(study: Study, purpose: Purpose, name: str) -> float:
    """Return the largest change that one patient is said to make to this segment."""
    if name == "calibration":
        return calibration_bound(study)
    if name == "statistics":
        return statistics_clip(study)
    if name in ("update", "control"):
        how = study.training
        if study.privacy.mode == "distributed":
            return study.privacy.clip_norm
        if how.optimizer == "sgd" and how.local_steps == 1:  # noise is charged step by step
            return how.learning_rate * study.privacy.clip_norm / (how.sampling_rate * DECLARED)
        return 2 * study.aggregation.update_norm
    return metrics_sensitivity(study, final=purpose is Purpose.EVALUATION)


CASES = [
    pytest.param(
        name, kind, purpose,
        marks=[pytest.mark.slow] * (name in TASKS and kind != "sixty stays"),
    )
    for name, study in (STUDIES | TASKS).items()
    for kind in PATIENTS
    for purpose in Purpose
    if purpose is not Purpose.FEASIBILITY  # test_feasibility.py
    and (purpose is not Purpose.CALIBRATION or study.calibration_rounds)
]  # fmt: skip  # a case reads as one


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "kind", "purpose"), CASES)
def test_one_patient_changes_a_vector_within_the_claimed_sensitivity(
    tmp_path: Path, name: str, kind: str, purpose: Purpose
) -> None:
    require_bounded((STUDIES | TASKS)[name], kind, purpose, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("purpose", [Purpose.TRAINING, Purpose.EVALUATION])
@pytest.mark.parametrize(
    "kind",
    ["huge", *(pytest.param(kind, marks=pytest.mark.slow) for kind in PATIENTS if kind != "huge")],
)
def test_one_patient_changes_a_vector_of_installed_modules_within_the_claimed_sensitivity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, purpose: Purpose
) -> None:
    made.put_on_path(made.install_example(tmp_path / "packages"), monkeypatch)
    # without dropout, whose masks would be drawn anew without the patient
    settings = {"width": 8, "dropout": 0.0}
    branches = [made.branch(settings=settings), made.branch("acme-convolution")]
    study = with_changes(
        BASE,
        model={"hidden": 32, "branches": branches},
        evaluation={"explained_patients": 100},
    )
    require_bounded(study, kind, purpose, tmp_path)


def require_bounded(study: Study, kind: str, purpose: Purpose, tmp_path: Path) -> None:
    two = pair(study, kind)
    for number in WEIGHTS if purpose is not Purpose.STATISTICS else [0]:
        present = parts(two.present, study, purpose, number, tmp_path / f"{number}+")
        absent = parts(two.absent, study, purpose, number, tmp_path / f"{number}-")
        assert present.keys() == absent.keys()
        for segment, values in present.items():
            assert np.isfinite(values).all()
            change = float(np.linalg.norm(values - absent[segment]))
            most = bound(study, purpose, segment)
            assert change <= most * (1 + 1e-5) + rounding(values, study), (segment, number)


def rounding(values: np.ndarray, study: Study) -> float:
    """Return what stochastic rounding may add: each coordinate less than one unit of the ring."""
    return float(np.sqrt(values.size)) * 1e-3
