"""Counts of scores must give the pooled patients' metrics, within the stated error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from shared.score_counts import bin_centers, bin_edges, count_scores, metrics_from_counts


def cohort(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    logit = stream.normal(-2, 1.5, size)
    risk = 1 / (1 + np.exp(-logit))
    outcome = stream.random(size) < risk
    outcome[:2] = True, False
    return risk, outcome


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 400), bins=st.integers(2, 200))
def test_auroc_is_within_its_stated_error_of_the_exact_value(
    seed: int, size: int, bins: int
) -> None:
    risk, outcome = cohort(seed, size)
    metrics = metrics_from_counts(count_scores(risk, outcome, np.ones(size), bins))
    assert metrics is not None
    exact = roc_auc_score(outcome, risk)
    assert abs(metrics.auroc - exact) <= metrics.auroc_error + 1e-12


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), parts=st.integers(1, 5))
def test_counts_of_parts_add_up_to_the_counts_of_the_whole(seed: int, parts: int) -> None:
    risk, outcome = cohort(seed, 100)
    whole = count_scores(risk, outcome, np.ones(100), 20)
    split = [
        count_scores(r, o, np.ones(len(r)), 20)
        for r, o in zip(np.array_split(risk, parts), np.array_split(outcome, parts), strict=True)
    ]
    assert np.array_equal(sum(split), whole)
    assert whole.sum() == 100


def test_many_bins_give_the_exact_metrics() -> None:
    risk, outcome = cohort(1, 3000)
    metrics = metrics_from_counts(count_scores(risk, outcome, np.ones(3000), 5000))
    assert metrics is not None
    assert metrics.auroc == pytest.approx(roc_auc_score(outcome, risk), abs=1e-3)
    assert metrics.auprc == pytest.approx(average_precision_score(outcome, risk), abs=5e-3)
    assert metrics.brier == pytest.approx(brier_score_loss(outcome, risk), abs=1e-3)
    loss = -np.mean(np.where(outcome, np.log(risk), np.log1p(-risk)))
    assert metrics.log_loss == pytest.approx(loss, abs=5e-3)


def test_one_outcome_alone_has_no_metrics() -> None:
    counts = count_scores(np.array([0.1, 0.9]), np.array([True, True]), np.ones(2), 10)
    assert metrics_from_counts(counts) is None


def test_sums_take_negative_noisy_counts_as_they_are_and_stay_in_range() -> None:
    counts = np.array([[10.0, -3.0], [-1.0, 5.0]])
    metrics = metrics_from_counts(counts)
    assert metrics is not None
    assert (metrics.auroc, metrics.positives, metrics.negatives) == (1.0, 4.0, 7.0)
    assert (metrics.auroc_low, metrics.auroc_high) == (0.0, 1.0)


def test_every_center_lies_in_its_bin() -> None:
    for bins in (2, 3, 20, 101):
        index = np.searchsorted(bin_edges(bins), bin_centers(bins), side="right")
        assert np.array_equal(index, np.arange(bins))


def test_weights_are_what_is_counted() -> None:
    counts = count_scores(np.array([0.5, 0.5]), np.array([True, False]), np.array([0.25, 2]), 4)
    assert counts[1].sum() == 0.25
    assert counts[0].sum() == 2


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_the_interval_covers_sampling_and_noise_and_noise_does_not_shift_the_auroc(
    noise: float,
) -> None:
    stream = np.random.default_rng(5)
    truth, found, covered = 0.7454, [], 0  # that of logit-normal risks (-2, 1): 10 million draws
    for _ in range(300):
        logit = stream.normal(-2, 1, 1500)
        risk = 1 / (1 + np.exp(-logit))
        outcome = stream.random(1500) < risk
        counts = count_scores(risk, outcome, np.ones(1500), 100)
        metrics = metrics_from_counts(counts + stream.normal(0, noise, counts.shape), noise=noise)
        assert metrics is not None
        found.append(metrics.auroc)
        covered += metrics.auroc_low <= truth <= metrics.auroc_high
    assert np.mean(found) == pytest.approx(truth, abs=0.002 + 4 * np.std(found) / np.sqrt(300))
    assert 0.91 <= covered / 300 <= 0.99


def test_perfect_separation_claims_no_certainty() -> None:
    metrics = metrics_from_counts(np.array([[3.0, 0.0], [0.0, 2.0]]))
    assert metrics is not None
    assert (metrics.auroc, metrics.auroc_low, metrics.auroc_high) == (1.0, 0.0, 1.0)
