"""What leaves a site in a round does not depend on what the study leaves to the site alone."""

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.records.cohort import read_cohort
from consilium.client.round.contribution import Contributor
from consilium.client.round.own_part import OwnPartOfRun
from consilium.client.round.randomness import RoundRandomness
from consilium.client.round.round_model import RoundModel
from consilium.client.round.training_round import SiteShare, TrainingRound
from consilium.client.round.training_set import TrainingSet
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import MessageError
from consilium.shared.model.normalisation import Normalisation, statistics_clip
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import parameter_count, to_vector
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    metrics_sensitivity,
    sum_parameters,
)
from consilium.shared.secure_sum.fixed_point import decode
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.simulations.cohorts.hospitals import synthetic_hospital
from tests.fixed_draws import fix_draws
from tests.rosters import sized_roster

STUDY = parse_study("""
name = "one"
title = "One"
rounds = 2
sites = ["a", "b", "c"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
[model]
hidden = 4
[training]
local_steps = 2
[privacy]
mode = "none"
[personalisation.ditto]
pull = 0.1
[evaluation]
validation_fraction = 0.2
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
""")
KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in STUDY.sites}
ONE_STEP = {"training": {"local_steps": 1}, "privacy": {"mode": "distributed"}}
NO_PATIENTS = TrainingSet(
    x_NTF=torch.zeros((0, 6, 1)),
    mask_NT=torch.zeros((0, 6), dtype=torch.bool),
    y=torch.zeros(0),
    patient_N=torch.zeros(0, dtype=torch.int64),
    patients=0,
)
MODES = {"none": {}, "site": {"privacy": {"mode": "site"}}, "distributed": ONE_STEP}


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is fresh under privacy; here it must be the same twice, so that vectors compare."""
    fix_draws(monkeypatch)


def contributor(study: Study, folder: Path) -> Contributor:
    cohort = read_cohort(synthetic_hospital(0, study), study, site="a", split_key=bytes(32))
    return Contributor("a", study, cohort, Policy(), PersonalStore(folder))


def run_of(study: Study, **sizes: int) -> SumParameters:
    """The same run for the same study; site a declares 40 patients and the others 80."""
    roster = sized_roster(KEYS, study.digest, **{"a": 40, "b": 80, "c": 80, **sizes})
    return sum_parameters(study, roster, bytes(16), site="a")


def asked(purpose: Purpose, study: Study) -> RoundConfiguration:
    normalisation = Normalisation.reference(study).to_bytes()
    evaluate = purpose is Purpose.TRAINING
    return RoundConfiguration(purpose=purpose, evaluate=evaluate, normalisation=normalisation)


def weights(study: Study) -> np.ndarray:
    return to_vector(study_model(study))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_second_model_changes_nothing_that_leaves_unless_its_scores_may_be_counted(
    tmp_path: Path, mode: str
) -> None:
    study = with_changes(STUDY, study={"schema": 2}, **MODES[mode])
    assert bool(study.calibration_rounds) == (mode != "none")
    store = PersonalStore(tmp_path)
    found: dict[Purpose, list[bytes]] = {
        purpose: []
        for purpose in Purpose
        if purpose is not Purpose.CALIBRATION or study.calibration_rounds
    }
    for shift in (None, 0.5, -2.0):
        if shift is not None:
            own_D = weights(study) + np.float32(shift)
            store.save(study.digest, run_of(study).study_hash, {"own_model": own_D})
        for purpose in found:
            one = contributor(study, tmp_path)
            vector = one.vector(asked(purpose, study), weights(study), 3, run_of(study))
            found[purpose].append(vector.tobytes())
    assert len(set(found[Purpose.STATISTICS])) == 1
    if mode == "none":  # where counts are of the site's own model
        assert len(set(found[Purpose.EVALUATION])) == 3
    else:
        assert len(set(found[Purpose.TRAINING])) == 1
        assert len(set(found[Purpose.EVALUATION])) == 1


def test_training_sends_the_same_update_with_a_second_model_and_without(tmp_path: Path) -> None:
    plain = with_changes(STUDY, personalisation={"ditto": None})
    asked_for = RoundConfiguration(
        purpose=Purpose.TRAINING, normalisation=Normalisation.reference(STUDY).to_bytes()
    )
    vectors = []
    for study in (STUDY, plain):
        one = contributor(study, tmp_path / str(len(vectors)))
        vectors.append(one.vector(asked_for, weights(study), 3, run_of(study)))
        one.keep()
    assert np.array_equal(*vectors)
    kept = PersonalStore(tmp_path / "0").load(STUDY.digest, run_of(STUDY).study_hash)["own_model"]
    assert not np.array_equal(kept, weights(study))
    assert not (tmp_path / "1").exists()


def test_without_a_pull_the_second_model_never_hears_of_the_others(tmp_path: Path) -> None:
    study = with_changes(STUDY, personalisation={"ditto": {"pull": 0.0}})
    kept = []
    for shift in (0.0, 1.0):
        folder = tmp_path / str(shift)
        for number in (2, 3):
            one = contributor(study, folder)  # as after a restart
            moved = shift if number == 3 else 0.0
            one.vector(
                asked(Purpose.TRAINING, study), weights(study) + moved, number, run_of(study)
            )
            one.keep()
        kept.append(PersonalStore(folder).load(study.digest, run_of(study).study_hash)["own_model"])
    assert np.array_equal(*kept)


def test_a_second_model_that_diverges_is_dropped_and_costs_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(model: object, *_: object, **__: object) -> None:
        next(iter(model.parameters())).data.fill_(np.nan)

    monkeypatch.setattr("consilium.client.round.training_round.train_own", diverge)
    one = contributor(STUDY, tmp_path)
    one.vector(asked(Purpose.TRAINING, STUDY), weights(STUDY), 3, run_of(STUDY))
    one.keep()
    assert not list(tmp_path.iterdir())


@pytest.mark.sampled(3)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1e14, 3e38])
def test_weights_made_to_overflow_are_answered_as_any_others(
    tmp_path: Path, mode: str, size: float
) -> None:
    ditto = {} if mode == "none" else {"personalisation": {"ditto": None}}
    study = with_changes(STUDY, **MODES[mode], **ditto)
    one = contributor(study, tmp_path)
    hostile = (np.sign(weights(study)) * size).astype(np.float32)
    for purpose in (Purpose.TRAINING, Purpose.EVALUATION):
        vector = one.vector(asked(purpose, study), hostile, 3, run_of(study))
        assert vector.shape == (one.spec(asked(purpose, study), run_of(study).roster).length,)


def test_weights_that_training_leads_beyond_all_numbers_stay_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(model: object, *_: object, **__: object) -> None:
        next(iter(model.parameters())).data.fill_(np.nan)

    monkeypatch.setattr("consilium.client.round.training_round.train_locally", diverge)
    one, asked_for = contributor(STUDY, tmp_path), asked(Purpose.TRAINING, STUDY)
    vector = one.vector(asked_for, weights(STUDY), 3, run_of(STUDY))
    update = decode(vector, one.spec(asked_for, run_of(STUDY).roster))["update"]
    assert not update[0 : update.size].any()


def test_weights_that_are_not_finite_are_refused_before_a_record_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = contributor(STUDY, tmp_path)
    monkeypatch.setattr(one, "_inputs", None)
    bad = weights(STUDY)
    bad[0] = np.inf
    with pytest.raises(MessageError, match="not finite"):
        one.check(asked(Purpose.TRAINING, STUDY), bad)


def test_nothing_is_kept_of_a_round_before_its_update_was_masked(tmp_path: Path) -> None:
    one = contributor(STUDY, tmp_path)
    one.vector(asked(Purpose.TRAINING, STUDY), weights(STUDY), 3, run_of(STUDY))
    assert not list(tmp_path.iterdir())
    one.vector(asked(Purpose.EVALUATION, STUDY), weights(STUDY), 4, run_of(STUDY))
    one.keep()  # the round that trained was never masked
    assert not list(tmp_path.iterdir())


VARIATES = {
    "training": {"control_variates": True},
    "personalisation": {"ditto": None},
    "evaluation": {"validation_fraction": 0.0},
}


@pytest.mark.parametrize("mode", ["none", "site"])
def test_a_control_variate_is_made_of_the_update_and_of_what_was_sent_before(
    tmp_path: Path, mode: str
) -> None:
    """c_i + (x - y) - c, with the x - y that leaves as the update: that is why it costs nothing."""
    study = with_changes(STUDY, **VARIATES, privacy={"mode": mode})
    one = contributor(study, tmp_path)
    asked_for = RoundConfiguration(
        purpose=Purpose.TRAINING, normalisation=Normalisation.reference(study).to_bytes()
    )
    before_D = np.zeros(one.parameters)
    for number, all_D in enumerate((np.zeros_like(before_D), np.full_like(before_D, 0.01)), 3):
        received = np.concatenate([weights(study), all_D]).astype(np.float32)
        ring = one.vector(asked_for, received, number, run_of(study))
        one.keep()
        sums = decode(ring, one.spec(asked_for, run_of(study).roster))
        share = 40 / 80
        update_D, control_D = sums["update"][:] / share, sums["control"][:] / share
        own_D = before_D if number > 3 else all_D  # one that has none begins with all sites'
        np.testing.assert_allclose(control_D, own_D - all_D - update_D, atol=1e-4)
        assert np.linalg.norm(update_D) > 1e-3
        before_D = control_D


def test_weights_without_control_variates_are_refused_where_the_study_has_some(
    tmp_path: Path,
) -> None:
    study = with_changes(STUDY, **VARIATES)
    one = contributor(study, tmp_path)
    asked_for = RoundConfiguration(
        purpose=Purpose.TRAINING, normalisation=Normalisation.reference(study).to_bytes()
    )
    bad = np.concatenate([weights(study), np.full(one.parameters, np.nan, dtype=np.float32)])
    for received in (weights(study), bad, bad[:-1]):
        with pytest.raises(MessageError, match="ask for the round again"):
            one.vector(asked_for, received, 3, run_of(study))


@pytest.mark.parametrize("size", [10, 40, 80])
@pytest.mark.parametrize("rate", [1e-3, 50.0])
def test_an_update_is_no_longer_than_the_sites_declared_share_of_the_clip_bound(
    tmp_path: Path, size: int, rate: float
) -> None:
    study = with_changes(STUDY, training={"learning_rate": rate})
    asked_for = RoundConfiguration(
        purpose=Purpose.TRAINING, normalisation=Normalisation.reference(study).to_bytes()
    )
    agreed = run_of(study, a=size)
    one = contributor(study, tmp_path)
    ring = one.vector(asked_for, weights(study), 3, agreed)
    sent_D = decode(ring, one.spec(asked_for, agreed.roster))["update"][:]
    most = study.aggregation.update_norm * size / 80
    assert np.linalg.norm(sent_D) == pytest.approx(most, rel=1e-3) or rate < 1
    assert np.linalg.norm(sent_D) <= most * (1 + 1e-3)  # rounding moves it a little


@pytest.mark.slow
@given(length=st.floats(0, 1e6), size=st.integers(1, 10**6), rate=st.floats(0.01, 1.0))
def test_a_gradient_sum_is_no_longer_than_the_declared_size_allows(
    length: float, size: int, rate: float
) -> None:
    """Whatever the records: in mode ``distributed`` the bound comes from the study and the size."""
    study = with_changes(STUDY, **ONE_STEP, personalisation={"ditto": None})
    study = with_changes(study, training={"sampling_rate": rate})
    left_D: list[np.ndarray] = []

    def gradients(model: object, *_: object, **__: object) -> np.ndarray:
        return np.full(parameter_count(model), length)

    def noisy(sum_D: np.ndarray, *_: object) -> np.ndarray:
        left_D.append(sum_D)
        return np.zeros(sum_D.size, np.int64)

    shared_D = np.ones(weights(study).size, bool)
    with (
        patch("consilium.client.round.training_round.clipped_gradient_sum", gradients),
        patch("consilium.client.round.training_round.noisy_sum", noisy),
        TemporaryDirectory() as folder,
    ):
        own = OwnPartOfRun(study, PersonalStore(Path(folder)))
        own.begin_round(bytes(32))
        TrainingRound(study, own, RoundModel(study), shared_D=shared_D).parts(
            weights(study),
            None,
            NO_PATIENTS,
            SiteShare(patients=size, of_update=1.0),
            RoundRandomness(study=study, site="a", round_number=1),
        )
    clip, expected = study.privacy.clip_norm, rate * size
    assert np.linalg.norm(left_D[0]) <= clip * min(size, expected + 5 * expected**0.5)
    assert np.linalg.norm(left_D[0]) <= size * clip


def test_a_site_with_more_patients_than_it_declared_counts_as_the_size_it_declared(
    tmp_path: Path,
) -> None:
    """Its statistics and its validation counts keep their proportions, and are scaled down."""
    found = {}
    for size in (1, 80):
        one, agreed = contributor(STUDY, tmp_path), run_of(STUDY, a=size)
        for purpose in (Purpose.STATISTICS, Purpose.EVALUATION):
            ring = one.vector(asked(purpose, STUDY), weights(STUDY), 3, agreed)
            parts = decode(ring, one.spec(asked(purpose, STUDY), agreed.roster))
            found[size, purpose] = np.concatenate([part[:] for part in parts.values()])
    for purpose, longest in (
        (Purpose.STATISTICS, statistics_clip(STUDY)),
        (Purpose.EVALUATION, metrics_sensitivity(STUDY, final=True)),
    ):
        few, many = found[1, purpose], found[80, purpose]
        assert np.linalg.norm(few) == pytest.approx(longest, rel=1e-3)
        assert few / np.linalg.norm(few) == pytest.approx(many / np.linalg.norm(many), abs=1e-4)
