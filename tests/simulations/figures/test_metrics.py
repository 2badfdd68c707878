"""Exact figures against scikit-learn, and intervals against a plain bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    mean_absolute_error,
    r2_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)

from consilium.shared.study.training import Task
from consilium.simulations.figures import metrics
from consilium.simulations.figures.metrics import HeldOutMetrics, Truth, difference, evaluate

BINARY = Task()


def cohort(seed: int, size: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    risks = np.round(stream.random(size), decimals)
    outcomes = stream.random(size) < risks
    outcomes[:2] = True, False
    return risks, outcomes


def judged(
    models: list[np.ndarray], y: np.ndarray, patient_N: np.ndarray, task: Task = BINARY
) -> HeldOutMetrics:
    mask_NT = np.ones((len(y), y.shape[1] if task.per_step else 1), dtype=bool)
    truth = Truth.of(task, y.astype(np.float32), mask_NT, patient_N)
    return evaluate(models, truth)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(2, 200), decimals=st.integers(0, 3))
def test_binary_values_equal_scikit_learns_with_and_without_ties(seed, size, decimals) -> None:
    risks, outcomes = cohort(seed, size, decimals)
    figures = judged([risks[:, None]], outcomes, np.arange(size)).figures
    assert figures["auroc"].value == pytest.approx(roc_auc_score(outcomes, risks))
    assert figures["auprc"].value == pytest.approx(average_precision_score(outcomes, risks))
    assert figures["brier"].value == pytest.approx(brier_score_loss(outcomes, risks))
    assert figures["accuracy"].value == pytest.approx(accuracy_score(outcomes, risks >= 0.5))


def test_multiclass_values_equal_scikit_learns() -> None:
    stream = np.random.default_rng(5)
    class_N = stream.integers(0, 4, 300)
    scores = stream.dirichlet(np.ones(4), 300) + np.eye(4)[class_N] * 0.3
    scores /= scores.sum(axis=1, keepdims=True)
    test = judged([scores], class_N, np.arange(300), Task(kind="multiclass", outputs=4))
    chosen = scores.argmax(axis=1)
    assert test.figures["accuracy"].value == pytest.approx(accuracy_score(class_N, chosen))
    balanced = balanced_accuracy_score(class_N, chosen)
    assert test.figures["mean_sensitivity"].value == pytest.approx(balanced)
    auroc = roc_auc_score(class_N, scores, multi_class="ovr", average="macro")
    assert test.figures["auroc"].value == pytest.approx(auroc)
    assert test.sensitivity == pytest.approx(recall_score(class_N, chosen, average=None))


def test_regression_values_equal_scikit_learns() -> None:
    stream = np.random.default_rng(6)
    truth, predicted = stream.normal(50, 9, 200), stream.normal(50, 9, 200)
    figures = judged(
        [predicted[:, None]], truth, np.arange(200), Task(kind="regression", spread=9.0)
    ).figures
    truth = truth.astype(np.float32)
    assert figures["mae"].value == pytest.approx(mean_absolute_error(truth, predicted))
    assert figures["rmse"].value == pytest.approx(root_mean_squared_error(truth, predicted))
    assert figures["r2"].value == pytest.approx(r2_score(truth, predicted))


def test_a_label_that_is_not_known_does_not_count() -> None:
    stream = np.random.default_rng(7)
    y = (stream.random((200, 2)) < 0.4).astype(np.float32)
    scores = stream.random((200, 2))
    y[:50, 0], y[190:] = np.nan, np.nan
    test = judged([scores], y, np.arange(200), Task(kind="multilabel", outputs=2))
    first = roc_auc_score(y[50:190, 0], scores[50:190, 0])
    second = roc_auc_score(y[:190, 1], scores[:190, 1])
    assert test.figures["auroc"].value == pytest.approx((first + second) / 2)
    assert (test.patients, test.rows) == (190, 190)
    assert test.positives == np.nansum(y)


def test_a_step_that_is_padded_or_not_known_does_not_count() -> None:
    stream = np.random.default_rng(8)
    y = (stream.random((60, 5)) < 0.4).astype(np.float32)
    y[:, 0] = np.nan
    mask_NT = np.arange(5) < stream.integers(2, 6, 60)[:, None]
    scores = stream.random((60, 5, 1))
    task = Task(per_step=True)
    test = evaluate([scores], Truth.of(task, y, mask_NT, np.arange(60)))
    used = mask_NT & ~np.isnan(y)
    assert test.rows == used.sum()
    assert test.figures["auroc"].value == pytest.approx(
        roc_auc_score(y[used], scores[..., 0][used])
    )


@pytest.mark.slow
def test_intervals_agree_with_a_plain_bootstrap_of_patients() -> None:
    risks, outcomes = cohort(3, 300, 2)
    patient_N = np.repeat(np.arange(150), 2)
    test = judged([risks[:, None]], outcomes, patient_N)
    stream = np.random.default_rng(9)
    plain = []
    for _ in range(1000):
        chosen = stream.integers(0, 150, 150)
        rows = np.concatenate([2 * chosen, 2 * chosen + 1])
        plain.append(roc_auc_score(outcomes[rows], risks[rows]))
    low, high = np.percentile(plain, [2.5, 97.5])
    assert test.figures["auroc"].low == pytest.approx(low, abs=0.01)
    assert test.figures["auroc"].high == pytest.approx(high, abs=0.01)
    assert (test.patients, test.positives) == (150, outcomes.sum())


def test_the_mean_over_models_is_taken_resample_by_resample() -> None:
    risks, outcomes = cohort(4, 200, 3)
    both = judged([risks[:, None], 1 - risks[:, None]], outcomes, np.arange(200)).figures["auroc"]
    assert both.value == pytest.approx(0.5)
    assert both.high - both.low < 1e-9


def test_a_resample_without_positives_does_not_spoil_the_interval() -> None:
    risks, outcomes = np.array([0.9, 0.1, 0.2, 0.3]), np.array([True, False, False, False])
    auroc = judged([risks[:, None]], outcomes, np.arange(4)).figures["auroc"]
    assert (auroc.low, auroc.high) == (1.0, 1.0)
    assert metrics.RESAMPLES == 1000


def test_a_difference_is_of_the_same_resamples_and_positive_where_the_first_is_better() -> None:
    stream = np.random.default_rng(8)
    truth = stream.normal(60, 10, 80)
    task = Task(kind="regression", center=60.0, spread=10.0)
    good, bad = truth + stream.normal(0, 2, 80), truth + stream.normal(0, 6, 80)
    both = [judged([values[:, None]], truth, np.arange(80), task) for values in (good, bad)]
    found = difference(*both)
    for name, sign in (("mae", -1), ("rmse", -1), ("r2", 1)):
        value = sign * (both[0].figures[name].value - both[1].figures[name].value)
        assert found[name].value == pytest.approx(value)
        assert 0 < found[name].low < found[name].value < found[name].high
        turned = difference(*reversed(both))[name]
        assert (turned.low, turned.high) == pytest.approx((-found[name].high, -found[name].low))
    alike = difference(both[0], both[0])["mae"]
    assert (alike.value, alike.low, alike.high) == (0, 0, 0)
    fewer = judged([good[:40, None]], truth[:40], np.arange(40), task)
    with pytest.raises(ValueError, match="the same patients alone"):
        difference(both[0], fewer)
