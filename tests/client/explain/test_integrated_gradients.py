"""Explanations add up, agree with each other, and name what really drives a trained model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.explain.integrated_gradients import explain, integrated_gradients
from consilium.client.records.features import TimeGrid, select, to_grid, to_tensors
from consilium.client.records.running_features import Layout
from consilium.client.round.predictions import predict
from consilium.shared.export.signed_model import Trained
from consilium.shared.model.linear_path import skip_inputs
from consilium.shared.model.network import build_model
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.weight_vector import load_vector
from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.shared.study.input_names import feature_names, series_names
from consilium.simulations.cohorts.hospitals import synthetic_hospital
from consilium.simulations.figures.central import merge, train_centrally
from tests.branch_studies import BRANCHES, study_of_branches
from tests.client.bedside.test_scorer import CELLS, POOLINGS, TASKS, study_of
from tests.signed_models import some_trained

DEMO = load_study(Path(__file__).parents[3] / "studies" / "demo.toml")


def some_inputs(study: Study, steps: int, seed: int) -> torch.Tensor:
    """Inputs of a stay in which each variable was measured at some steps or never."""
    stream, steps_all = np.random.default_rng(seed), study.data.steps
    columns = len(Layout(study).names)
    value_NTV = np.full((1, steps_all, columns), np.nan, dtype=np.float32)
    for column, variable in enumerate(study.variables.values()):
        there = stream.random(steps_all) < stream.choice([0.0, 0.4, 1.0])
        value_NTV[0, there, column] = stream.uniform(variable.low, variable.high, there.sum())
    if study.tokens:
        value_NTV[0, ::2, len(study.variables) :] = stream.integers(1, 5)
    grid = TimeGrid(
        value_NTV=value_NTV, mask_NT=np.ones((1, steps_all), dtype=np.bool_),
        y_N=np.zeros(1, np.float32), patient_N=np.zeros(1, np.int64), patient_ids=("p",),
    )  # fmt: skip
    return to_tensors(grid, Normalisation.reference(study), study).x_NTF[0, :steps]


@pytest.mark.slow
@pytest.mark.parametrize("pooling", [*POOLINGS, "per step"])
@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=5, deadline=None)
@given(
    both=st.booleans(),
    around=st.booleans(),
    tokens=st.booleans(),
    task=st.sampled_from(TASKS),
    steps=st.integers(1, 6),
    seed=st.integers(0, 100),
)
def test_attributions_of_every_kind_of_model_sum_to_the_change(
    cell, pooling, both, around, tokens, task, steps, seed
) -> None:
    check(cell, pooling, both, around, tokens, task, steps, seed)


@pytest.mark.parametrize(
    ("cell", "pooling", "both", "around", "tokens", "task"),
    [
        ("gru", "last", False, True, False, TASKS[0]),
        ("lstm", "attention", False, False, True, TASKS[2]),
        ("rnn", "per step", True, False, False, TASKS[3]),
    ],
)
def test_attributions_sum_to_the_change_and_absent_variables_have_none(
    cell, pooling, both, around, tokens, task
) -> None:
    check(cell, pooling, both, around, tokens, task, 6, 3)


def check(cell, pooling, both, around, tokens, task, steps, seed) -> None:
    model = {"cell": cell, "bidirectional": both, "skip": around, "layer_norm": around}
    model |= {} if pooling == "per step" else {"pooling": pooling}
    study = study_of(tokens=tokens, task=task | {"per_step": pooling == "per step"}, **model)
    trained = some_trained(study, seed)
    x_TF = some_inputs(study, steps, seed)
    told = explain(trained, x_TF, output=study.task.outputs - 1)
    change = told.effect_TC.sum()
    assert told.gap <= 0.01 * study.task.spread * max(1, abs(change))
    never = [not (x_TF[:, columns] != 0).any() for columns in Layout(study).without_each()[1:] == 0]
    assert (told.occlusion_C[never] == 0).all()
    assert told.measured_C.tolist() == [not absent for absent in never]
    before_last = told.effect_TC[: -1 if around else None]
    assert (before_last[:, never] == 0).all()  # only the linear path, at the last step, reads it
    assert told.effect_TC.shape == (steps, len(Layout(study).names))
    assert (told.attention_T is not None) == (pooling == "attention")
    if told.attention_T is not None:
        assert told.attention_T.sum() == pytest.approx(1, abs=1e-5)
    mask = torch.ones(1, steps, dtype=torch.bool)
    expected = predict(trained.model, x_TF[None], mask)[0]
    expected = expected[-1] if pooling == "per step" else expected
    assert told.value == pytest.approx(expected[-1], abs=1e-5 * study.task.spread)


@pytest.mark.sampled(13)
@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("name", BRANCHES)
def test_attributions_of_branches_sum_to_the_change_and_absent_variables_have_no_effect(
    name, per_step
) -> None:
    study = study_of_branches(name, task={"per_step": per_step})
    trained = some_trained(study, 3)
    for seed in (0, 1):
        x_TF = some_inputs(study, 6, seed)
        told = explain(trained, x_TF, output=0)
        assert told.gap <= 0.01 * max(1, abs(told.effect_TC.sum()))
        assert told.attention_T is None
        absent = ~told.measured_C
        assert (told.occlusion_C[absent] == 0).all()
        if not trained.model.read_from:
            assert (told.effect_TC[:, absent] == 0).all()
        mask = torch.ones(1, 6, dtype=torch.bool)
        expected = predict(trained.model, x_TF[None], mask)[0].reshape(-1, 1)[-1]
        assert told.value == pytest.approx(expected[0], abs=1e-5)


def test_a_summarys_effect_is_that_of_the_variable_it_summarises() -> None:
    study = study_of_branches("summary")
    trained = some_trained(study, 1)
    model = trained.model.networks[0]
    names = list(Layout(study).names)
    for variable in ("hr", "bp", "age"):
        with torch.no_grad():
            model.hidden[0].weight.zero_()
            read = [names.index(name) for name in ("hr", "bp", "age")]
            own = [
                place
                for place, feature in enumerate(model.read_from)
                if read[feature if feature < 2 else 2] == names.index(variable)
            ]
            model.hidden[0].weight[:, own] = 0.1
        told = explain(trained, some_inputs(study, 6, 4), output=0)
        assert (np.delete(told.effect_TC, names.index(variable), axis=1) == 0).all()
        assert (told.effect_TC.sum() != 0) == told.measured_C[names.index(variable)]


def test_a_linear_path_is_explained_exactly() -> None:
    """With the head off, only the skip path speaks: its attribution is weight times input."""
    study = study_of(task={}, cell="gru", skip=True)
    trained = some_trained(study, 1)
    with torch.no_grad():
        trained.model.head.weight.zero_()
    x_TF = some_inputs(study, 6, 0)
    read_I = skip_inputs(x_TF[-1], 4)
    assert 0 < (read_I[-4:] > 0).sum() < 4  # some series were never measured, and some were
    expected = (trained.model.skip.weight[0] * read_I).detach().numpy()
    effect_TJ, gap = integrated_gradients(trained, x_TF, output=0)
    assert effect_TJ[-1, x_TF.shape[1] :] == pytest.approx(expected, abs=1e-6)
    assert effect_TJ.sum() == pytest.approx(expected.sum(), abs=1e-5)
    assert gap < 1e-5


def test_that_a_variable_was_never_measured_is_a_reason_of_its_own() -> None:
    """With the head off and one weight on, all of the change is lactate's absence."""
    study = study_of(task={}, cell="gru", skip=True)
    trained = some_trained(study, 1)
    lactate = list(study.variables).index("Lactate")
    absence = len(feature_names(study)) + list(series_names(study)).index("Lactate")
    with torch.no_grad():
        trained.model.head.weight.zero_()
        trained.model.skip.weight.zero_()
        trained.model.skip.weight[0, absence] = 1.0
    for seed in range(6):
        x_TF = some_inputs(study, 6, seed)
        told = explain(trained, x_TF, output=0)
        assert (np.delete(told.effect_TC, lactate, axis=1) == 0).all()
        assert (told.effect_TC.sum() > 0) == (not told.measured_C[lactate])
        assert (told.occlusion_C[lactate] < 0) == told.measured_C[lactate]


@pytest.fixture(scope="module", params=[False, True], ids=["", "skip"])
def trained(request: pytest.FixtureRequest) -> tuple[Trained, TimeGrid]:
    """A small model that learned from two synthetic hospitals, and stays it never saw."""
    study = with_changes(
        DEMO,
        study={"rounds": 60},
        model={"cell": "gru", "hidden": 8, "skip": request.param},
        training={"sampling_rate": 0.5},
    )
    grids = [to_grid(synthetic_hospital(n, study).read_patients(study), study) for n in range(3)]
    state = train_centrally(study, merge(grids[:2]), who="explained")
    model = build_model(study, len(feature_names(study)), seed=0)
    load_vector(model, state.server.model_weights)
    normalisation = Normalisation.from_bytes(state.normalisation, study)
    return Trained(study=study, model=model.eval(), normalisation=normalisation), grids[2]


def without(grid: TimeGrid, columns: np.ndarray) -> TimeGrid:
    """The same stays as if these variables had never been measured."""
    value_NTV = grid.value_NTV.copy()
    value_NTV[:, :, columns] = np.nan
    return replace(grid, value_NTV=value_NTV)


def logit_of(trained: Trained, grid: TimeGrid) -> float:
    inputs = to_tensors(grid, trained.normalisation, trained.study)
    risk = float(predict(trained.model, inputs.x_NTF, inputs.mask_NT)[0, 0])
    return np.log(risk / (1 - risk))


@pytest.mark.slow
def test_deleting_what_an_explanation_names_changes_most(trained: tuple[Trained, TimeGrid]) -> None:
    """Deletion (Petsiuk et al. 2018; Hooker et al. 2019), against the least named and by chance.

    The two views also agree: variables rank alike by integrated gradients and by occlusion.
    """
    model, grid = trained
    stream, changes, agreement = np.random.default_rng(0), [], []
    inputs = to_tensors(grid, model.normalisation, model.study)
    for patient in range(60):
        own = select(grid, np.array([patient]))
        told = explain(model, inputs.x_NTF[patient], output=0)
        named = np.abs(told.effect_TC.sum(axis=0))
        order = np.argsort(-named)
        chosen = (order[:3], stream.permutation(len(named))[:3], order[-3:])
        before = logit_of(model, own)
        changes.append([abs(before - logit_of(model, without(own, some))) for some in chosen])
        ranks = (np.argsort(np.argsort(v)) for v in (named, np.abs(told.occlusion_C)))
        agreement.append(np.corrcoef(*ranks)[0, 1])
        single = before - logit_of(model, without(own, order[:1]))
        assert told.occlusion_C[order[0]] == pytest.approx(single, abs=1e-4)
    most, chance, least = np.mean(changes, axis=0)
    assert most > 1.5 * chance
    assert chance > 1.5 * least
    assert np.mean(agreement) > 0.4


def test_the_explanation_of_a_stay_prints_nothing_of_it() -> None:
    study = study_of(task={})
    told = explain(some_trained(study), some_inputs(study, 3, 0), output=0)
    assert repr(told) == "Explanation(...)"
