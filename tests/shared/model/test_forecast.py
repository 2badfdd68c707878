"""The auxiliary task: what the next step measures, told from the state before it."""

import numpy as np
import pytest
import torch

from consilium.shared.errors import StudyError
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import parameter_count
from consilium.shared.study.definition import Study, parse_canonical, with_changes
from consilium.shared.study.input_names import feature_names
from tests.branch_studies import study_of_branches
from tests.study_text import small_study

STAYS, STEPS = 5, 6


def plain(clock: str = "hour", **model: object) -> Study:
    return small_study(
        data={"clock": clock, "window_h": STEPS},
        model={"hidden": 3, "cell": "gru", "forecast": 0.7, **model},
        privacy={"mode": "none"} if clock == "position" else {},
    )


def batch(study: Study) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of stays, some of which end early, with holes; what is padded is not a number."""
    draw, names = np.random.default_rng(3), feature_names(study)
    x_NTF = draw.normal(size=(STAYS, STEPS, len(names)))
    for place, name in enumerate(names):
        if name.endswith(" measured"):
            x_NTF[..., place] = draw.random((STAYS, STEPS)) < 0.6
        if name.endswith(" token"):
            x_NTF[..., place] = draw.integers(0, 3, (STAYS, STEPS))
    mask_NT = np.arange(STEPS) < np.array([6, 6, 4, 1, 2])[:, None]
    x_NTF[~mask_NT] = np.nan
    return (
        torch.from_numpy(x_NTF.astype(np.float32)),
        torch.from_numpy(mask_NT),
        torch.from_numpy(draw.integers(0, 2, STAYS).astype(np.float32)),
    )


def slowly(model, x_NTF, mask_NT, names) -> list[float]:
    """Each stay's mean squared error, one measurement after the other."""
    series = [name.removesuffix(" measured") for name in names if name.endswith(" measured")]
    with torch.no_grad():
        told_NTV = model.forecast(model._states(x_NTF, mask_NT, None, None))
    losses = []
    for stay in range(STAYS):
        errors = []
        for step in range(STEPS - 1):
            for number, name in enumerate(series):
                measured = x_NTF[stay, step + 1, names.index(f"{name} measured")] == 1
                if mask_NT[stay, step] and mask_NT[stay, step + 1] and measured:
                    truth = float(x_NTF[stay, step + 1, names.index(name)])
                    errors.append((float(told_NTV[stay, step, number]) - truth) ** 2)
        losses.append(sum(errors) / len(errors) if errors else 0.0)
    return losses


@pytest.mark.parametrize("clock", ["hour", "position"])
@pytest.mark.parametrize("more", [{}, {"skip": True, "pooling": "mean"}, {"layers": 2}])
def test_the_loss_is_the_tasks_own_and_that_of_a_loop_over_measurements(clock, more) -> None:
    study = plain(clock, **more)
    model, (x_NTF, mask_NT, y_N) = study_model(study), batch(study)
    own_N = model.loss_per_stay(model(x_NTF, mask_NT), y_N, mask_NT)
    told = slowly(model, x_NTF, mask_NT, feature_names(study))
    assert min(told) == 0.0 < max(told)
    found_N = model.training_loss(x_NTF, mask_NT, y_N)
    expected = own_N.detach().numpy() + 0.7 * np.array(told)
    assert found_N.detach().numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["forecasts", "plain"])
def test_each_stays_gradient_in_the_books_is_autograds(name) -> None:
    study = plain() if name == "plain" else study_of_branches("forecasts")
    model, (x_NTF, mask_NT, y_N) = study_model(study).train(), batch(study)
    books = Bookkeeping()
    model.training_loss(x_NTF, mask_NT, y_N, books=books).sum().backward()
    per_row = books.per_row(model.parameters())
    for stay in range(STAYS):
        model.zero_grad()
        one = slice(stay, stay + 1)
        model.training_loss(x_NTF[one], mask_NT[one], y_N[one]).sum().backward()
        for rows, parameter in zip(per_row, model.parameters(), strict=True):
            assert torch.allclose(rows[stay], parameter.grad, atol=1e-6)


def test_no_prediction_depends_on_it() -> None:
    study = plain()
    model, (x_NTF, mask_NT, _) = study_model(study).eval(), batch(study)
    before = model(x_NTF, mask_NT)
    with torch.no_grad():
        for parameter in model.forecast.parameters():
            parameter.fill_(1e30)
    assert torch.equal(model(x_NTF, mask_NT), before)
    series = sum(name.endswith(" measured") for name in feature_names(study))
    without = with_changes(study, model={"forecast": 0.0})
    assert parameter_count(model) - parameter_count(study_model(without)) == 4 * series


def test_a_study_without_it_has_the_digest_that_it_had() -> None:
    assert b"forecast" not in small_study().to_canonical_json()
    assert b"forecast" not in study_of_branches("recurrent").to_canonical_json()
    for study in (plain(), study_of_branches("forecasts")):
        assert study.to_canonical_json().count(b"forecast") == 1
        assert parse_canonical(study.to_canonical_json()).digest == study.digest


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ({"bidirectional": True}, {}, "which a bidirectional network has read"),
        ({"forecast": -1.0}, {}, "forecast = -1.0 must be at least 0"),
        ({}, {"window_h": 1}, r"\[model\] forecasts what the next step measures .* reads one step"),
    ],
)
def test_what_has_no_next_step_is_refused(model, data, said) -> None:
    with pytest.raises(StudyError, match=said):
        with_changes(plain(), model=model, data=data)


def test_a_branch_without_series_forecasts_nothing() -> None:
    inputs = {"kind": "recurrent", "hidden": 2, "forecast": 0.1, "inputs": ["age"]}
    with pytest.raises(StudyError, match=r"number 1, of kind 'recurrent', forecasts .* reads none"):
        with_changes(study_of_branches("linear"), model={"branches": [inputs]})
