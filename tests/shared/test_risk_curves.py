"""Thresholds, net benefit and calibration from counts equal those from every patient's risk."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix

from shared.risk_curves import (
    Recalibration,
    calibration_groups,
    fit_recalibration,
    operating_points,
    point_at,
    wilson,
)
from shared.score_counts import count_scores, first_edges

EDGES = first_edges(200)


def cohort(seed: int, size: int, slope: float = 1.0, shift: float = 0.0) -> tuple:
    stream = np.random.default_rng(seed)
    logit = stream.normal(-1.5, 1.2, size)
    outcome = stream.random(size) < 1 / (1 + np.exp(-slope * logit - shift))
    outcome[:2] = True, False
    return 1 / (1 + np.exp(-logit)), outcome


def counts_of(risk: np.ndarray, outcome: np.ndarray, edges=EDGES) -> np.ndarray:
    return count_scores(risk, outcome, np.ones(len(risk)), edges)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), bins=st.integers(8, 120))
def test_every_point_is_exactly_the_confusion_matrix_at_its_threshold(seed: int, bins: int) -> None:
    risk, outcome = cohort(seed, 150)
    edges = first_edges(bins)
    points = operating_points(counts_of(risk, outcome, edges), edges)
    assert len(points) == bins - 1
    for point in points:
        table = confusion_matrix(outcome, risk >= point.threshold, labels=[False, True])
        told = [
            [point.true_negatives, point.false_positives],
            [point.false_negatives, point.true_positives],
        ]
        assert np.array_equal(table, told)
        assert point.alarm_rate.value == pytest.approx(np.mean(risk >= point.threshold))
        weight = point.threshold / (1 - point.threshold)
        benefit = np.where(risk >= point.threshold, np.where(outcome, 1.0, -weight), 0.0)
        assert point.net_benefit.value == pytest.approx(benefit.mean())
        deviation = benefit.std() / np.sqrt(len(benefit))
        assert point.net_benefit.high - benefit.mean() == pytest.approx(1.959964 * deviation)
        assert (point.precision is None) == (point.alarm_rate.value == 0)


def test_the_nearest_threshold_is_found_and_one_outcome_alone_has_no_points() -> None:
    points = operating_points(counts_of(*cohort(1, 100)), EDGES)
    assert point_at(points, 0.2).threshold == pytest.approx(0.2, abs=0.012)
    assert operating_points(np.array([[0.0, 0.0], [1.0, 2.0]]), EDGES[:1]) == ()


def test_shares_have_wilsons_interval() -> None:
    for part, whole in ((0, 7), (3, 10), (10, 10), (40, 1000)):
        share = wilson(part, whole)
        reference = binomtest(part, whole).proportion_ci(method="wilson")
        assert (share.low, share.high) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_calibration_groups_hold_everyone_once_and_their_own_outcomes() -> None:
    risk, outcome = cohort(3, 5000)
    edges = first_edges(400)
    groups = calibration_groups(counts_of(risk, outcome, edges), edges)
    assert len(groups) == 10
    assert sum(group.patients for group in groups) == 5000
    assert sum(g.observed.value * g.patients for g in groups) == pytest.approx(outcome.sum())
    assert sum(g.predicted * g.patients for g in groups) == pytest.approx(risk.sum(), rel=1e-3)
    assert calibration_groups(np.zeros((2, 5)), EDGES[:4]) == ()


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
    monkeypatch.setattr("shared.risk_curves._STEPS", 1)
    assert fit_recalibration(counts_of(*cohort(6, 500, slope=3.0)), EDGES) is None


def test_the_neutral_recalibration_changes_nothing() -> None:
    risk = np.array([0.0, 0.01, 0.5, 0.99, 1.0])
    assert Recalibration(slope=1.0, intercept=0.0).apply(risk) == pytest.approx(risk, abs=1e-11)
