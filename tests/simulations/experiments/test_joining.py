"""What joining brought is compared on the same patients, and said in plain sentences."""

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from consilium.shared.study.training import Task
from consilium.simulations.experiments.joining import joining_verdicts
from consilium.simulations.figures.metrics import Truth, compare_two

SIZE = 400


def truth_of(task: Task, y: np.ndarray) -> Truth:
    mask = np.ones((len(y), 1), dtype=np.bool_)
    return Truth.of(task, y.astype(np.float32), mask, np.arange(len(y)))


def test_the_gain_is_the_difference_of_both_models_and_its_interval_that_of_pairs() -> None:
    stream = np.random.default_rng(1)
    signal = stream.normal(size=SIZE)
    y = (signal + stream.normal(size=SIZE) > 0).astype(float)
    good = 1 / (1 + np.exp(-signal))[:, None]
    worse = 1 / (1 + np.exp(-signal - 0.5 * stream.normal(size=SIZE)))[:, None]
    one, other, gain = compare_two(worse, good, truth_of(Task(), y), seed=3)
    assert one.value == pytest.approx(roc_auc_score(y, worse[:, 0]))
    assert other.value == pytest.approx(roc_auc_score(y, good[:, 0]))
    assert gain.value == pytest.approx(other.value - one.value)
    assert 0 < gain.low < gain.value < gain.high
    assert gain.high - gain.low < min(one.high - one.low, other.high - other.low)
    same = compare_two(good, good, truth_of(Task(), y))[2]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_smaller_error_is_a_gain() -> None:
    y = np.random.default_rng(2).normal(size=SIZE)
    far, near = (y + 2)[:, None], (y + 1)[:, None]
    one, other, gain = compare_two(far, near, truth_of(Task(kind="regression"), y))
    assert one.value == pytest.approx(mean_absolute_error(y, far[:, 0]), rel=1e-6)
    assert (other.value, gain.value) == pytest.approx((1, 1), rel=1e-6)


def test_a_hospital_that_lost_by_joining_is_named() -> None:
    def site(name: str, low: float, high: float, *, judged: bool = True) -> dict:
        middle = (low + high) / 2
        return {
            "site": name,
            "judged": judged,
            "local": {"value": 0.8},
            "federated": {"value": 0.8 + middle},
            "gain": {"value": middle, "low": low, "high": high},
        }

    found = {
        "figure": "auroc",
        "sites": [
            site("north", 0.02, 0.08),
            site("south", -0.09, -0.01),
            site("west", -0.1, 0.2),
            site("tiny", -0.9, -0.5, judged=False),
        ],
    }
    lost, summary = joining_verdicts(found)
    assert (lost.topic, lost.name, lost.serious) == ("joining", "south", True)
    assert "0.80 with its own model, 0.75 with the federation's" in lost.sentence
    assert not summary.serious
    assert "better AUROC at 2 of 3 hospitals, at 1 of them beyond" in summary.sentence
