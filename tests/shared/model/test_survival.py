"""Hazards, risks and their likelihood; what is exported scores the same."""

import math

import numpy as np
import pytest
import torch

from consilium.client.explain.integrated_gradients import integrated_gradients
from consilium.shared.export.onnx_check import largest_difference
from consilium.shared.export.onnx_graph import to_onnx
from consilium.shared.model.branch import Branch
from consilium.shared.model.survival import log_odds_by_cut, risks_by_cut
from consilium.shared.study.training import Task
from tests.branch_studies import study_of_branches
from tests.client.explain.test_integrated_gradients import some_inputs
from tests.signed_models import some_trained

CUTS = (10.0, 20.0, 40.0)
TASK = Task(kind="survival", cuts=CUTS)
LOGITS = torch.tensor([[-2.0, 0.5, 1.0], [3.0, -8.0, 0.0], [-90.0, -90.0, 60.0]])


def study(name: str = "all"):
    return study_of_branches(name, task={"kind": "survival", "outputs": 3, "cuts": CUTS})


def test_risks_are_those_of_the_hazards_and_never_fall() -> None:
    found = risks_by_cut(LOGITS)
    for row, logits in zip(found, LOGITS.double(), strict=True):
        left, expected = 1.0, []
        for logit in logits.tolist():
            left *= 1 - 1 / (1 + math.exp(-logit))
            expected.append(1 - left)
        assert row.tolist() == pytest.approx(expected, abs=1e-6)
    assert (found.diff(dim=1) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_log_odds_are_those_of_the_risks_and_finite_at_both_ends() -> None:
    found = log_odds_by_cut(LOGITS[:2])
    risk = risks_by_cut(LOGITS[:2]).double()
    assert torch.allclose(found.double(), torch.log(risk) - torch.log1p(-risk), atol=1e-4)
    assert torch.isfinite(log_odds_by_cut(torch.tensor([[-300.0, 0, 300]]))).all()


def test_the_loss_is_the_negative_log_likelihood_of_the_known_intervals() -> None:
    y = torch.tensor([[0.0, 1.0, math.nan], [0.0, math.nan, math.nan], [math.nan] * 3])
    found = Branch(1, TASK).loss_per_stay(LOGITS, y, torch.ones(3, 1).bool())
    hazard = torch.sigmoid(LOGITS.double())
    first = -math.log(1 - hazard[0, 0]) - math.log(hazard[0, 1])
    assert found.tolist() == pytest.approx([first, -math.log(1 - hazard[1, 0]), 0.0], rel=1e-5)


def test_prevalence_is_the_risk_at_the_horizon_that_the_model_begins_with() -> None:
    trained = study_of_branches(
        "linear", task={"kind": "survival", "outputs": 3, "cuts": CUTS, "prevalence": 0.3}
    )
    from consilium.shared.model.study_model import study_model

    model = study_model(trained).eval()
    x_NTF = torch.zeros(1, 6, model.features)
    with torch.no_grad():
        risks = model.scores(model(x_NTF, torch.ones(1, 6).bool()))
    assert float(risks[0, -1]) == pytest.approx(0.3, abs=1e-5)


@pytest.mark.parametrize("name", ["linear", "all"])
def test_onnx_scores_survival_as_the_model_does(name: str) -> None:
    model = some_trained(study(name), seed=3, validation=None).model
    content = to_onnx(model, {"study": "s"})
    assert largest_difference(content, model, study(name).data.steps) < 1e-5


def test_an_explanation_of_the_risk_at_the_horizon_adds_up() -> None:
    trained = some_trained(study("recurrent"), seed=1, validation=None)
    x_TF = some_inputs(trained.study, 6, 2)
    effect_TJ, gap = integrated_gradients(trained, x_TF, output=2)
    with torch.no_grad():
        both = torch.stack([torch.zeros_like(x_TF), x_TF])
        logits = trained.model(both, torch.ones(2, len(x_TF)).bool())
    before, after = log_odds_by_cut(logits)[:, 2].tolist()
    assert gap < 0.05
    assert np.sum(effect_TJ) == pytest.approx(after - before, abs=0.1)
