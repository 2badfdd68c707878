"""Losses against their formulas, one number at a time."""

import math

import pytest
import torch

from consilium.shared.errors import StudyError
from consilium.shared.model.branch import Branch
from consilium.shared.study.definition import parse_canonical, with_changes
from consilium.shared.study.loss import Loss
from consilium.shared.study.training import Task
from tests.hostile.neighbours import BASE

LOSSES = {
    "plain": Loss(),
    "focal": Loss(kind="focal", gamma=1.5),
    "bounded": Loss(kind="bounded", q=0.4),
    "smoothed": Loss(smoothing=0.2),
}
LOGITS = torch.tensor([[0.3, -1.2, 2.0], [-4.0, 0.0, 9.0], [40.0, -40.0, 0.5]])


def shaped(entropy: float, loss: Loss) -> float:
    if loss.kind == "focal":
        return max(1 - math.exp(-entropy), 1e-6) ** loss.gamma * entropy
    if loss.kind == "bounded":
        return (1 - math.exp(-loss.q * entropy)) / loss.q
    return entropy


def branch(**task: object) -> Branch:
    return Branch(1, Task.model_validate(task))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_classes_is_that_of_its_formula(name: str) -> None:
    loss, y = LOSSES[name], [2, 0, 1]
    model = branch(kind="multiclass", outputs=3, loss=loss)
    found = model.loss_per_stay(LOGITS, torch.tensor(y), torch.ones(3, 1).bool(), loss=loss)
    for row, label in enumerate(y):
        values = LOGITS[row].double().tolist()
        total = math.log(sum(math.exp(v - max(values)) for v in values)) + max(values)
        each = [total - value for value in values]
        spread = loss.smoothing / 3 * sum(each)
        wanted = shaped((1 - loss.smoothing) * each[label] + spread, loss)
        assert float(found[row]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_labels_is_that_of_its_formula_over_the_known_ones(name: str) -> None:
    loss, y = LOSSES[name], torch.tensor([[1.0, 0, 1], [0, 1, math.nan], [0, 1, 1]])
    model = branch(kind="multilabel", outputs=3, loss=loss)
    weight = torch.tensor([2.0, 1.0, 0.5]).expand(3, 3)
    mask = torch.ones(3, 1).bool()
    found = model.loss_per_stay(LOGITS, y, mask, loss=loss, weight=weight)
    for row in range(3):
        parts = []
        for label, logit, times in zip(y[row], LOGITS[row], weight[row], strict=True):
            if math.isnan(label):
                continue
            target = float(label) * (1 - loss.smoothing) + loss.smoothing / 2
            with_it, without = math.log1p(math.exp(-logit)), math.log1p(math.exp(logit))
            entropy = target * with_it + (1 - target) * without
            parts.append(float(times) * shaped(entropy, loss))
        assert float(found[row]) == pytest.approx(sum(parts) / len(parts), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_with_books_a_row_has_the_same_bits_wherever_it_stands(name: str) -> None:
    loss = LOSSES[name]
    model = branch(kind="multilabel", outputs=3, loss=loss)
    logits, y = torch.linspace(-9, 9, 63).view(21, 3), torch.arange(63).view(21, 3) % 2
    with torch.no_grad():
        every = model.loss_per_stay(logits, y, torch.ones(21, 1).bool(), loss=loss)
        one = model.loss_per_stay(logits[20:], y[20:], torch.ones(1, 1).bool(), loss=loss)
    assert torch.equal(every[20:], one)


def test_a_wrong_label_costs_a_bounded_loss_no_more_than_its_bound() -> None:
    loss = Loss(kind="bounded", q=0.5)
    model = branch(loss=loss)
    logits = torch.tensor([[80.0]], requires_grad=True)
    found = model.loss_per_stay(logits, torch.zeros(1), torch.ones(1, 1).bool(), loss=loss)
    assert found.tolist() == pytest.approx([2.0])
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert abs(float(slope)) < 1e-6


def test_a_plain_loss_leaves_the_study_its_digest() -> None:
    named = with_changes(BASE, task={"loss": {"kind": "cross-entropy"}})
    assert named.digest == BASE.digest
    assert b'"loss"' not in named.to_canonical_json()
    other = with_changes(BASE, task={"loss": {"kind": "focal"}})
    assert other.digest != BASE.digest
    assert parse_canonical(other.to_canonical_json()) == other


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"loss": {"weights": [1.0, 2.0]}}, "weights has 2 entries"),
        ({"loss": {"weights": [2.0], "balance": 0.5}}, "remove one"),
        ({"loss": {"kind": "focal", "smoothing": 0.1}}, "smoothing 0.1"),
        ({"loss": {"gamma": 3.0}}, 'gamma 3 is for kind = "focal"'),
        ({"kind": "regression", "loss": {"kind": "focal"}}, "a regression task has none"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_in_a_sentence(task: dict, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        with_changes(BASE, task=task)
