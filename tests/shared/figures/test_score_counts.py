"""Counts of scores must give the pooled patients' metrics, within the stated error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from consilium.shared.figures.score_counts import (
    bin_centers,
    count_scores,
    finer_edges,
    first_edges,
    metrics_from_counts,
)

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)


def cohort(seed: int, size: int, mean: float = -2, spread: float = 1.5) -> tuple:
    """Float32 risks, as a model gives them; outcomes depend on their order, not on their spread."""
    stream = np.random.default_rng(seed)
    rank = stream.normal(size=size)
    risk = (1 / (1 + np.exp(-mean - spread * rank))).astype(np.float32).astype(np.float64)
    outcome = stream.random(size) < 1 / (1 + np.exp(2 - 1.5 * rank))
    outcome[:2] = True, False
    return risk, outcome


def counted(risk: np.ndarray, outcome: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return count_scores(risk, outcome, np.ones(len(risk)), edges)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(2, 400),
    bins=st.integers(8, 200),
    spread=st.sampled_from([0.0, 1e-7, 1e-3, 1.5, 20.0]),
    passes=st.integers(1, 5),
)
def test_auroc_is_within_its_stated_error_of_the_exact_value(
    seed: int, size: int, bins: int, spread: float, passes: int
) -> None:
    risk, outcome = cohort(seed, size, spread=spread)
    exact = roc_auc_score(outcome, risk)
    edges = first_edges(bins, THRESHOLDS)
    for _ in range(passes):
        counts = counted(risk, outcome, edges)
        metrics = metrics_from_counts(counts, edges)
        assert metrics is not None
        assert abs(metrics.auroc - exact) <= metrics.auroc_error + 1e-12
        edges = finer_edges(counts, edges, THRESHOLDS)


@pytest.mark.parametrize("mean", [-9, -4, -2, 0, 3])
@pytest.mark.parametrize("spread", [1e-5, 0.0005, 0.02, 0.3, 2, 6])
@pytest.mark.parametrize("size", [150, 4000])
def test_four_passes_with_400_bins_bound_the_error_below_0_002(
    mean: float, spread: float, size: int
) -> None:
    """The risks of a model of few rounds crowd into two of the first bins, or into one."""
    risk, outcome = cohort(7, size, mean, spread)
    edges = first_edges(400, THRESHOLDS)
    for _ in range(3):
        edges = finer_edges(counted(risk, outcome, edges), edges, THRESHOLDS)
    metrics = metrics_from_counts(counted(risk, outcome, edges), edges)
    assert metrics is not None
    assert metrics.auroc_error < 0.002
    assert abs(metrics.auroc - roc_auc_score(outcome, risk)) <= metrics.auroc_error + 1e-12


@pytest.mark.parametrize("risks", [[0.13], [0.1, 0.1001, 0.9], [0.0, 1.0], [0.0, 0.25, 1.0]])
def test_few_different_risks_are_told_apart_exactly(risks: list[float]) -> None:
    stream = np.random.default_rng(3)
    risk = np.float32(stream.choice(risks, 2000)).astype(np.float64)
    outcome = stream.random(2000) < 0.1 + 0.5 * risk
    edges = first_edges(400, THRESHOLDS)
    for _ in range(5):
        edges = finer_edges(counted(risk, outcome, edges), edges, THRESHOLDS)
    metrics = metrics_from_counts(counted(risk, outcome, edges), edges)
    assert metrics is not None
    assert metrics.auroc == pytest.approx(roc_auc_score(outcome, risk), abs=1e-12)
    assert metrics.auroc_error < 0.002


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bins=st.integers(8, 300),
    noise=st.sampled_from([0.0, 5.0]),
    spread=st.sampled_from([0.0, 1e-6, 1.0, 50.0]),
)
def test_edges_ascend_between_0_and_1_keep_the_thresholds_and_their_number(
    seed: int, bins: int, noise: float, spread: float
) -> None:
    risk, outcome = cohort(seed, 50, spread=spread)
    edges = first_edges(bins, THRESHOLDS)
    for _ in range(3):
        assert edges.dtype == np.float32
        assert len(edges) == bins - 1
        assert (np.diff(edges) > 0).all()
        assert 0 < edges[0] <= edges[-1] <= 1
        assert np.isin(np.float32(THRESHOLDS), edges).all()
        counts = counted(risk, outcome, edges)
        counts += np.random.default_rng(seed).normal(0, noise, counts.shape)
        edges = finer_edges(counts, edges, THRESHOLDS, noise=noise)


def test_edges_stay_where_counts_say_nothing() -> None:
    edges = first_edges(20)
    assert np.array_equal(finer_edges(np.zeros((2, 20)), edges), edges)
    drowned = np.full((2, 20), 9.0)
    assert np.array_equal(finer_edges(drowned, edges, noise=5.0), edges)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), parts=st.integers(1, 5))
def test_counts_of_parts_add_up_to_the_counts_of_the_whole(seed: int, parts: int) -> None:
    risk, outcome = cohort(seed, 100)
    edges = first_edges(20)
    split = [
        counted(r, o, edges)
        for r, o in zip(np.array_split(risk, parts), np.array_split(outcome, parts), strict=True)
    ]
    assert np.array_equal(sum(split), counted(risk, outcome, edges))
    assert sum(split).sum() == 100


def test_many_bins_give_the_exact_metrics() -> None:
    risk, outcome = cohort(1, 3000)
    edges = first_edges(5000)
    metrics = metrics_from_counts(counted(risk, outcome, edges), edges)
    assert metrics is not None
    assert metrics.auroc == pytest.approx(roc_auc_score(outcome, risk), abs=1e-3)
    assert metrics.auprc == pytest.approx(average_precision_score(outcome, risk), abs=5e-3)
    assert metrics.brier == pytest.approx(brier_score_loss(outcome, risk), abs=1e-3)
    loss = -np.mean(np.where(outcome, np.log(risk), np.log1p(-risk)))
    assert metrics.log_loss == pytest.approx(loss, abs=5e-3)


def test_one_outcome_alone_has_no_metrics() -> None:
    edges = first_edges(10)
    counts = counted(np.array([0.1, 0.9]), np.array([True, True]), edges)
    assert metrics_from_counts(counts, edges) is None


def test_sums_take_negative_noisy_counts_as_they_are_and_stay_in_range() -> None:
    counts = np.array([[10.0, -3.0], [-1.0, 5.0]])
    metrics = metrics_from_counts(counts, np.array([0.5], dtype=np.float32))
    assert metrics is not None
    assert (metrics.auroc, metrics.positives, metrics.negatives) == (1.0, 4.0, 7.0)
    assert (metrics.auroc_low, metrics.auroc_high) == (0.0, 1.0)


def test_every_center_lies_in_its_bin() -> None:
    risk, outcome = cohort(2, 500)
    for bins in (8, 20, 101):
        edges = first_edges(bins)
        finer = finer_edges(counted(risk, outcome, edges), edges)
        for these in (edges, finer):
            index = np.searchsorted(these, bin_centers(these), side="right")
            assert np.array_equal(index, np.arange(bins))


def test_weights_are_what_is_counted() -> None:
    weights = np.array([0.25, 2])
    counts = count_scores(np.array([0.5, 0.5]), np.array([True, False]), weights, first_edges(4))
    assert counts[1].sum() == 0.25
    assert counts[0].sum() == 2


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_the_interval_covers_sampling_and_noise_and_noise_does_not_shift_the_auroc(
    noise: float,
) -> None:
    stream = np.random.default_rng(5)
    truth, found, covered = 0.7454, [], 0  # that of logit-normal risks (-2, 1): 10 million draws
    edges = first_edges(100)
    for _ in range(300):
        logit = stream.normal(-2, 1, 1500)
        risk = 1 / (1 + np.exp(-logit))
        counts = counted(risk, stream.random(1500) < risk, edges)
        noisy = counts + stream.normal(0, noise, counts.shape)
        metrics = metrics_from_counts(noisy, edges, noise=noise)
        assert metrics is not None
        found.append(metrics.auroc)
        covered += metrics.auroc_low <= truth <= metrics.auroc_high
    assert np.mean(found) == pytest.approx(truth, abs=0.002 + 4 * np.std(found) / np.sqrt(300))
    assert 0.91 <= covered / 300 <= 0.99


def test_perfect_separation_claims_no_certainty() -> None:
    metrics = metrics_from_counts(np.array([[3.0, 0.0], [0.0, 2.0]]), np.float32([0.5]))
    assert metrics is not None
    assert (metrics.auroc, metrics.auroc_low, metrics.auroc_high) == (1.0, 0.0, 1.0)
