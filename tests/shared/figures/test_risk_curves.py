"""Thresholds, net benefit and calibration from counts equal those from every patient's risk."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from consilium.shared.figures.risk_curves import (
    calibration_groups,
    operating_points,
    point_at,
    wilson,
)
from consilium.shared.figures.score_counts import count_scores, first_edges

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
