"""Exact metrics against scikit-learn, and intervals against a plain bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from simulations import metrics
from simulations.metrics import evaluate_risks


def cohort(seed: int, size: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    risks = np.round(stream.random(size), decimals)
    outcomes = stream.random(size) < risks
    outcomes[:2] = True, False
    return risks, outcomes


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(2, 200), decimals=st.integers(0, 3))
def test_values_equal_scikit_learns_with_and_without_ties(seed, size, decimals) -> None:
    risks, outcomes = cohort(seed, size, decimals)
    test = evaluate_risks([risks], outcomes, np.arange(size))
    assert test.auroc.value == pytest.approx(roc_auc_score(outcomes, risks))
    assert test.auprc.value == pytest.approx(average_precision_score(outcomes, risks))
    assert test.brier.value == pytest.approx(brier_score_loss(outcomes, risks))


def test_intervals_agree_with_a_plain_bootstrap_of_patients() -> None:
    risks, outcomes = cohort(3, 300, 2)
    patient_N = np.repeat(np.arange(150), 2)
    test = evaluate_risks([risks], outcomes, patient_N)
    stream = np.random.default_rng(9)
    plain = []
    for _ in range(1000):
        chosen = stream.integers(0, 150, 150)
        rows = np.concatenate([2 * chosen, 2 * chosen + 1])
        plain.append(roc_auc_score(outcomes[rows], risks[rows]))
    low, high = np.percentile(plain, [2.5, 97.5])
    assert test.auroc.low == pytest.approx(low, abs=0.01)
    assert test.auroc.high == pytest.approx(high, abs=0.01)
    assert (test.patients, test.positives) == (150, outcomes.sum())


def test_the_mean_over_models_is_taken_resample_by_resample() -> None:
    risks, outcomes = cohort(4, 200, 3)
    both = evaluate_risks([risks, 1 - risks], outcomes, np.arange(200))
    assert both.auroc.value == pytest.approx(0.5)
    assert both.auroc.high - both.auroc.low < 1e-9


def test_a_resample_without_positives_does_not_spoil_the_interval() -> None:
    risks, outcomes = np.array([0.9, 0.1, 0.2, 0.3]), np.array([True, False, False, False])
    test = evaluate_risks([risks], outcomes, np.arange(4))
    assert (test.auroc.low, test.auroc.high) == (1.0, 1.0)
    assert metrics.RESAMPLES == 1000
