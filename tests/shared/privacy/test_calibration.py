"""The shift that calibration rounds find, its bound on one patient, and what it costs."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from consilium.shared.errors import PrivacyError
from consilium.shared.privacy.accounting import affordable_rounds, epsilon_spent, plan
from consilium.shared.privacy.calibration import (
    USUAL_SHIFT,
    calibration_bound,
    calibration_shift,
    calibration_terms,
)
from consilium.shared.privacy.shared_noise import calibration_share
from consilium.shared.rounds.contents import calibration_noise
from consilium.shared.study.definition import Study, parse_canonical, parse_study
from tests.study_text import TEXT, small_study

GRID = np.linspace(0, 1, 20_001)


def small_study_of(schema: int, **tables: dict[str, object]) -> Study:
    content = small_study(**tables).model_dump(by_alias=True)
    return Study.model_validate(content | {"schema": schema})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("outcome", [False, True])
def test_no_risk_and_no_outcome_count_more_than_one(outcome: bool) -> None:
    terms = calibration_terms(GRID, np.full(GRID.shape, outcome))
    assert np.linalg.norm(terms, axis=1).max() == 1.0


@given(
    base=st.integers(-8, 4),
    spread=st.integers(0, 5),
    off=st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 100),
)
def test_the_shift_is_the_root_that_a_slow_search_finds(base, spread, off, seed) -> None:
    """To the third power of the root, where Newton's step alone is off by its square."""
    logits = base / 2 + spread / 2 * np.random.default_rng(seed).normal(size=400)
    risk, outcome = sigmoid(logits), sigmoid(logits + off)
    slope = risk * (1 - risk)
    sums = [(outcome - risk).sum(), 3 * slope.sum(), 3 * (slope * (1 - 2 * risk)).sum()]
    found = calibration_shift(np.array(sums), 0.0).by_K
    root = brentq(lambda b: (sigmoid(logits + b) - outcome).sum(), -3, 3)
    assert root == pytest.approx(off, abs=1e-6)
    assert found == pytest.approx([root], abs=0.001 + 0.1 * abs(root) ** 3)


def test_noise_that_drowns_the_sums_shifts_nothing_far() -> None:
    deviation = 50.0
    for sign in (-1.0, 1.0):
        for slope in (-30.0, 0.0, 3.0):
            found = calibration_shift(np.array([sign * 3 * deviation, slope, 1.0]), deviation)
            assert abs(found.by_K[0]) < 0.25
    found = calibration_shift(np.array([40.0, 300.0, 0.0]), 100.0)
    assert found.by_K[0] == pytest.approx(0.4 * USUAL_SHIFT**2 / (USUAL_SHIFT**2 + 1))


def test_of_rounds_that_are_equally_noisy_the_mean_counts() -> None:
    """And a first step too long for the formula is mended by the second, whole."""

    def second(first: float, deviation: float) -> float:
        before = calibration_shift(np.array([100 * first, 300.0, 0.0]), deviation)
        after = calibration_shift(np.array([10.0, 300.0, 0.0]), deviation, before.doubt_K)
        return float(after.by_K[0])

    assert second(0.05, 5.0) == pytest.approx(0.1 / 2, rel=0.01)
    assert second(2.0, 5.0) == pytest.approx(0.1, rel=0.02)


def test_outputs_without_any_patient_are_not_shifted() -> None:
    assert calibration_shift(np.zeros(6), 0.0).by_K.tolist() == [0.0, 0.0]


def test_a_new_study_with_privacy_is_calibrated_and_an_older_one_is_what_it_was() -> None:
    old, new = small_study(), small_study_of(2)
    assert (old.calibration_rounds, new.calibration_rounds) == (0, 2)
    said = json.loads(old.to_canonical_json())["privacy"]
    assert not [key for key in said if key.startswith("calibration")]
    assert old.digest.hex() == "df21e4c59d60f702d6318a161880f74e68bfb7b73e88609fafb7e534ddde2279"
    for study in (old, new, small_study(privacy={"calibration_rounds": 1})):
        assert parse_canonical(study.to_canonical_json()) == study


@pytest.mark.parametrize(
    "tables",
    [
        {"privacy": {"mode": "none"}},
        {"task": {"kind": "regression"}},
        {"task": {"kind": "multiclass", "outputs": 3}},
        {"personalisation": {"parts": ["head"]}},
        {"privacy": {"calibration_rounds": 0}},
    ],
)
def test_there_is_no_calibration_where_nothing_is_clipped_or_no_log_odds_are_shared(tables) -> None:
    study = small_study_of(2, **tables)
    assert study.calibration_rounds == 0
    costs = plan(study)
    assert costs is None or costs.calibration is None


def test_calibration_of_a_task_without_shared_log_odds_is_refused_in_one_sentence() -> None:
    text = TEXT + '[task]\nkind = "regression"\n[privacy]\ncalibration_rounds = 1\n'
    with pytest.raises(Exception, match="calibration_rounds 1 shift the log-odds of a binary"):
        parse_study(text)


@pytest.mark.parametrize("epsilon", [8.0, 1.0])
def test_all_rounds_together_keep_to_the_studys_epsilon_and_training_pays_little(epsilon) -> None:
    study = small_study_of(2, privacy={"epsilon": epsilon})
    with_it, without = plan(study), plan(small_study(privacy={"epsilon": epsilon}))
    calibration = with_it.calibration.repeated(2)
    assert epsilon_spent((calibration,), 1e-5) <= 0.2 * epsilon
    spent = with_it.epsilon_after(study.rounds, 2)
    assert (
        spent
        == with_it.epsilon
        == epsilon_spent((with_it.statistics, calibration, with_it.training), 1e-5)
    )
    assert 0.999 * epsilon < spent <= epsilon
    more = with_it.training_round.noise_multiplier / without.training_round.noise_multiplier
    assert 1.0 < more < 1.05


def test_a_second_sum_of_statistics_leaves_the_calibration_its_share() -> None:
    study = small_study_of(2)
    costs = plan(study)
    rounds = affordable_rounds(study, 2)
    assert rounds < study.rounds == affordable_rounds(study, 1)
    assert epsilon_spent(costs.training_events(rounds, 2, statistics=2), 1e-5) <= 8.0


def test_sites_share_the_noise_of_a_calibration_as_that_of_a_step() -> None:
    tables = {"training": {"local_steps": 1}, "task": {"kind": "multilabel", "outputs": 4}}
    study = small_study_of(2, privacy={"mode": "distributed"}, **tables)
    share, event = calibration_share(study), plan(study).calibration
    distance = share.scale * calibration_bound(study) + math.sqrt(12)
    brought = math.sqrt(share.honest * share.variance - 4) / distance
    assert brought >= event.noise_multiplier == share.noise_multiplier
    assert brought == pytest.approx(event.noise_multiplier, rel=0.01)
    assert share.segment.length == 12
    alone = calibration_noise(small_study_of(2, **tables))
    assert alone == event.noise_multiplier * 2.0


@pytest.mark.parametrize("mode", ["site", "distributed"])
def test_a_study_without_calibration_has_no_noise_for_it(mode) -> None:
    study = small_study(privacy={"mode": mode}, training={"local_steps": 1})
    with pytest.raises(PrivacyError, match="study small"):
        calibration_noise(study)
