"""Recalibration from counts is that from every patient's risk, and changes only what it must."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from consilium.shared.figures.recalibration import (
    NEUTRAL,
    Recalibration,
    fit_recalibration,
    recalibrate_counts,
    recalibrate_risks,
    with_recalibration,
)
from consilium.shared.figures.score_counts import finer_edges, first_edges
from consilium.shared.study.input_names import feature_names
from tests.shared.figures.test_risk_curves import EDGES, cohort, counts_of
from tests.signed_models import some_trained
from tests.study_text import small_study


def test_recalibration_from_counts_is_platt_scaling_of_the_single_risks() -> None:
    risk, outcome = cohort(4, 20_000, slope=0.6, shift=-0.8)
    fitted = fit_recalibration(counts_of(risk, outcome), EDGES)
    assert fitted is not None
    logit = np.log(risk / (1 - risk))[:, None]
    exact = LogisticRegression(C=np.inf, tol=1e-8).fit(logit, outcome)
    assert fitted.slope == pytest.approx(exact.coef_[0, 0], abs=0.01)
    assert fitted.intercept == pytest.approx(exact.intercept_[0], abs=0.02)
    mended = fit_recalibration(counts_of(fitted.apply(risk), outcome), EDGES)
    assert mended is not None
    assert (mended.slope, mended.intercept) == pytest.approx((1.0, 0.0), abs=0.02)


def test_a_temperature_leaves_even_odds_even() -> None:
    cooled = fit_recalibration(counts_of(*cohort(5, 5000, slope=0.5)), EDGES, with_intercept=False)
    assert cooled is not None
    assert cooled.slope == pytest.approx(0.5, abs=0.05)
    assert cooled.apply(np.array([0.5]))[0] == 0.5


def test_there_is_no_recalibration_without_both_outcomes_or_of_separated_ones() -> None:
    assert fit_recalibration(np.array([[1.0, 1.0], [0.0, 0.0]]), EDGES[:1]) is None
    separated = np.zeros((2, 200))
    separated[0, 80:90], separated[1, 110:120] = 1, 1
    assert fit_recalibration(separated, EDGES) is None


def test_a_steep_fit_that_has_not_settled_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consilium.shared.figures.recalibration._STEPS", 1)
    assert fit_recalibration(counts_of(*cohort(6, 500, slope=3.0)), EDGES) is None


def test_the_neutral_recalibration_changes_nothing() -> None:
    risk = np.array([0.0, 0.01, 0.5, 0.99, 1.0])
    assert Recalibration(slope=1.0, intercept=0.0).apply(risk) == pytest.approx(risk, abs=1e-11)


def mended(seed: int, size: int, **wrong: float) -> Recalibration:
    risk, outcome = cohort(seed, size, **wrong)
    return recalibrate_risks(risk, outcome, np.ones(size))


def test_good_risks_are_left_alone_but_for_the_one_percent_that_chance_explains() -> None:
    changed = [mended(seed, 200) != NEUTRAL for seed in range(200)]
    assert sum(changed) <= 8  # 2 expected; beyond 8 with probability 0.0002


def test_only_the_level_is_changed_where_only_the_level_is_wrong() -> None:
    found = [mended(seed, 400, shift=1.2) for seed in range(40)]
    assert all(one.intercept > 0.5 for one in found)
    assert np.mean([one.slope == 1.0 for one in found]) > 0.8
    both = mended(1, 4000, slope=0.5, shift=-0.8)
    assert (both.slope, both.intercept) == pytest.approx((0.5, -0.8), abs=0.15)


def test_order_is_never_turned_round() -> None:
    risk, outcome = cohort(7, 2000, slope=-1.0, shift=-4.0)
    found = recalibrate_risks(risk, outcome, np.ones(2000))
    assert found.slope == 1.0


def test_privacy_noise_alone_mends_nothing_and_does_not_bend_a_fit() -> None:
    stream = np.random.default_rng(0)
    risk, outcome = cohort(8, 20_000, shift=0.8)
    edges = first_edges(32)
    for _ in range(2):  # as evaluation places them: where the risks are
        edges = finer_edges(counts_of(risk, outcome, edges), edges)
    counts = counts_of(risk, outcome, edges)
    fits = []
    for _ in range(60):
        noisy = counts + stream.normal(0, 60, counts.shape)
        one = fit_recalibration(noisy, edges)
        assert one is not None
        fits.append(one.intercept)
    exact = fit_recalibration(counts, edges)
    assert exact is not None
    assert np.mean(fits) == pytest.approx(exact.intercept, abs=4 * np.std(fits) / np.sqrt(60))
    assert recalibrate_counts(counts, edges, noise=60) != NEUTRAL
    good = counts_of(*cohort(9, 300), edges)
    changed = [
        recalibrate_counts(good + stream.normal(0, 30, good.shape), edges, noise=30) != NEUTRAL
        for _ in range(60)
    ]
    assert sum(changed) <= 5  # 1 % expected; beyond 5 with probability 0.0001


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    slope=st.floats(0.2, 3),
    intercept=st.floats(-3, 3),
    skip=st.booleans(),
    per_step=st.booleans(),
)
def test_recalibrated_weights_say_what_recalibrated_risks_say(
    seed: int, slope: float, intercept: float, skip: bool, per_step: bool
) -> None:
    study = small_study(
        model={"cell": "gru", "hidden": 4, "skip": skip},
        task={"kind": "multilabel", "outputs": 2, "per_step": per_step},
    )
    trained = some_trained(study, seed)
    known = (Recalibration(slope=slope, intercept=intercept), NEUTRAL)
    changed = with_recalibration(trained.model, known).eval()
    x = torch.randn(5, 6, len(feature_names(study)), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(5, 6, dtype=torch.bool)
    with torch.no_grad():
        before, after = (m.scores(m(x, mask)).numpy() for m in (trained.model, changed))
    assert after[..., 0] == pytest.approx(known[0].apply(before[..., 0]), abs=1e-5)
    assert np.array_equal(after[..., 1], before[..., 1])
