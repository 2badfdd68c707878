"""Weights from counted classes: shares within bounds, patients weighing 1 on average."""

import math

import numpy as np
import pytest
import torch

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.records.statistics import patient_contributions
from consilium.shared.errors import MessageError
from consilium.shared.model.class_shares import LEAST_SHARE, class_scale, shares_of_sums
from consilium.shared.model.label_weights import weights_of_labels
from consilium.shared.model.normalisation import Normalisation, statistics_clip, statistics_size
from consilium.shared.study.definition import with_changes
from tests.hostile.neighbours import BASE

CLASSES = with_changes(BASE, task={"kind": "multiclass", "outputs": 3, "loss": {"balance": 0.5}})
LABELS = with_changes(BASE, task={"kind": "multilabel", "outputs": 2, "loss": {"balance": 1.0}})
V = len(BASE.variables)


def grid(y_N: np.ndarray, patient_N: list[int]) -> TimeGrid:
    rows = len(y_N)
    return TimeGrid(
        value_NTV=np.full((rows, 4, V), np.nan, dtype=np.float32),
        mask_NT=np.ones((rows, 4), dtype=np.bool_),
        y_N=y_N.astype(np.float32),
        patient_N=np.array(patient_N),
        patient_ids=tuple(map(str, range(max(patient_N) + 1))),
    )


def test_a_patients_classes_are_counted_as_shares_however_many_stays() -> None:
    found = patient_contributions(grid(np.array([0, 0, 2, 1]), [0, 0, 0, 1]), CLASSES)
    assert found.shape == (2, statistics_size(CLASSES))
    shares = found[:, 3 * V :] / class_scale(CLASSES)
    assert shares == pytest.approx(np.array([[2 / 3, 0, 1 / 3], [0, 1, 0]]))


def test_labels_are_counted_where_they_are_known() -> None:
    y = np.array([[1, np.nan], [0, np.nan], [1, 0]])
    found = patient_contributions(grid(y, [0, 0, 1]), LABELS)[:, 3 * V :] / class_scale(LABELS)
    assert found == pytest.approx(np.array([[1, 0, 0.5, 0], [1, 1, 1, 0]]))


@pytest.mark.parametrize("study", [CLASSES, LABELS])
def test_the_longest_contribution_of_classes_is_as_long_as_is_claimed(study) -> None:
    y = np.zeros(1) if study is CLASSES else np.ones((1, 2))
    found = patient_contributions(grid(y, [0]), study)[0, 3 * V :]
    assert np.linalg.norm(found) == pytest.approx(math.sqrt(V))
    assert statistics_clip(study) == pytest.approx(math.sqrt(5 * V))
    assert statistics_clip(BASE) == 2 * math.sqrt(V)


def test_without_noise_patients_weigh_one_on_average_and_a_rare_class_more() -> None:
    counts = np.array([80.0, 16.0, 4.0])
    share_K = shares_of_sums(counts * class_scale(CLASSES), CLASSES, noise=0.0)
    assert share_K == pytest.approx(counts / 100)
    y = torch.tensor([0.0] * 80 + [1.0] * 16 + [2.0] * 4)
    weight = weights_of_labels(y, CLASSES, share_K)
    assert float(weight.mean()) == pytest.approx(1.0, rel=1e-5)
    assert float(weight[99] / weight[0]) == pytest.approx(math.sqrt(20), rel=1e-5)


def test_weights_of_labels_give_both_outcomes_the_same_sum_at_power_one() -> None:
    share_K = shares_of_sums(np.array([100, 50, 10, 25.0]) * class_scale(LABELS), LABELS, noise=0)
    assert share_K == pytest.approx([0.1, 0.5])
    y = torch.zeros(100, 2)
    y[:10, 0] = y[:50, 1] = 1
    weight = weights_of_labels(y, LABELS, share_K)
    assert (weight * y).sum(0).tolist() == pytest.approx([50, 50], rel=1e-5)
    assert (weight * (1 - y)).sum(0).tolist() == pytest.approx([50, 50], rel=1e-5)


@pytest.mark.parametrize("study", [CLASSES, LABELS])
@pytest.mark.parametrize("size", [-1e9, -5.0, 0.0, 1e-300, 1e9])
def test_any_noisy_sums_give_shares_within_bounds_that_travel(study, size: float) -> None:
    sums = np.full(statistics_size(study), size)
    found = Normalisation.from_sums(sums, study, noise=40.0)
    assert ((found.share_K > 0) & (found.share_K <= 1)).all()
    assert Normalisation.from_bytes(found.to_bytes(), study) == found
    with pytest.raises(MessageError):
        Normalisation.from_bytes(found.to_bytes(), BASE)


def test_weights_that_the_study_names_are_taken_as_they_are() -> None:
    named = with_changes(BASE, task={"loss": {"weights": [3.0]}})
    y = torch.tensor([0.0, 1.0, math.nan])
    assert weights_of_labels(y, named, np.empty(0)).tolist() == [1.0, 3.0, 1.0]
    assert weights_of_labels(y, BASE, np.empty(0)) is None


@pytest.mark.parametrize("study", [CLASSES, LABELS])
def test_where_nobody_is_left_nothing_is_counted(study) -> None:
    nobody = to_grid([], study, or_nobody=True)
    assert patient_contributions(nobody, study).shape == (0, statistics_size(study))


@pytest.mark.parametrize("study", [CLASSES, LABELS])
@pytest.mark.parametrize("share", [LEAST_SHARE, 1.0])
def test_any_share_that_a_site_accepts_gives_finite_weights(study, share: float) -> None:
    y = torch.tensor([0.0, 1.0]) if study is CLASSES else torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    weight = weights_of_labels(y, study, np.full(study.task.outputs, share))
    assert ((weight > 0) & (weight < 1 / LEAST_SHARE)).all()
