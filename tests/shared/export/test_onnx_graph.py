"""The ONNX model scores as the model does, for every kind of it and rows of any length."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.export.onnx_check import largest_difference
from consilium.shared.export.onnx_graph import to_onnx
from consilium.shared.model.linear_path import count_columns
from consilium.shared.model.network import RecurrentModel
from consilium.shared.study.definition import Study, load_study
from consilium.shared.study.input_names import feature_names, series_names
from tests.branch_studies import BRANCHES, CLOCKS_AND_STEPS, study_of_branches
from tests.signed_models import some_trained
from tests.study_text import small_study

STUDIES = Path(__file__).parents[3] / "studies"
CELLS = ("rnn", "lstm", "gru")
POOLINGS = ("last", "mean", "max", "attention", "per step")
TASKS = (
    {"kind": "binary", "outputs": 1},
    {"kind": "multilabel", "outputs": 3},
    {"kind": "multiclass", "outputs": 3},
    {"kind": "regression", "outputs": 2, "center": 5.0, "spread": 3.0},
)
TOKENS = {"names": ("code", "drug"), "vocabulary": ("x", "y", "z"), "width": 3}


def inputs(study: Study, lengths: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of these lengths; what stands at padding must not matter."""
    generator = torch.Generator().manual_seed(seed)
    features, codes = len(feature_names(study)), len(study.tokens.names) if study.tokens else 0
    shape = (len(lengths), max(lengths), features)
    x_NTF = 2 * torch.randn(shape, generator=generator)
    if codes:
        number = torch.randint(0, 5, (*shape[:2], codes), generator=generator)
        x_NTF[..., -codes:] = number.float()
    series = len(series_names(study)) if study.data.clock == "hour" else 0
    never = torch.rand((*shape[:2], series), generator=generator) < 0.5
    x_NTF[..., count_columns(series)] *= ~never  # what the linear path reads as never measured
    mask_NT = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    x_NTF[~mask_NT] = torch.nan
    return x_NTF, mask_NT


def both(model: RecurrentModel, x_NTF: torch.Tensor, mask_NT: torch.Tensor) -> list[np.ndarray]:
    """Scores of ONNX Runtime and of PyTorch, where they mean something."""
    content = to_onnx(model, {"study": "s"})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["scores"], {"x": x_NTF.numpy(), "mask": mask_NT.numpy()})
    with torch.no_grad():
        ours = model.scores(model(x_NTF, mask_NT)).numpy()
    assert theirs.shape == ours.shape
    return [s[mask_NT.numpy()] if model.task.per_step else s for s in (theirs, ours)]


def in_double(model: RecurrentModel, x_NTF: torch.Tensor, mask_NT: torch.Tensor) -> np.ndarray:
    """Scores without single precision's rounding, which a normalisation can amplify."""
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        scores = exact.scores(exact(x_NTF.double(), mask_NT)).numpy()
    return scores[mask_NT.numpy()] if model.task.per_step else scores


@pytest.mark.sampled(1)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=5, deadline=None)
@given(
    layers=st.integers(1, 3),
    hidden=st.integers(1, 9),
    around=st.booleans(),
    tokens=st.booleans(),
    task=st.sampled_from(TASKS),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    seed=st.integers(0, 100),
)
def test_onnx_scores_equal_pytorchs_for_every_kind_of_model(
    cell, directions, pooling, layers, hidden, around, tokens, task, lengths, seed
) -> None:
    kind = {"cell": cell, "layers": layers, "hidden": hidden, "bidirectional": directions == 2}
    kind |= {"projection": 4, "layer_norm": True, "skip": True} if around else {}
    kind |= {} if pooling == "per step" else {"pooling": pooling}
    study = small_study(model=kind, task=task | {"per_step": pooling == "per step"},
                        **({"tokens": TOKENS} if tokens else {}))  # fmt: skip
    model = some_trained(study, seed).model
    x_NTF, mask_NT = inputs(study, lengths, seed)
    theirs, ours = both(model, x_NTF, mask_NT)
    rounding = np.abs(ours - in_double(model, x_NTF, mask_NT)).max()
    assert theirs == pytest.approx(ours, abs=1e-5 * study.task.spread + 4 * rounding)


def test_the_onnx_model_says_what_it_reads_and_takes_any_number_of_rows_and_steps() -> None:
    study = small_study(model={"cell": "gru", "hidden": 4})
    model = some_trained(study).model
    parsed = onnx.load_from_string(to_onnx(model, {"study_digest": "abc"}))
    assert {entry.key: entry.value for entry in parsed.metadata_props} == {"study_digest": "abc"}
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*parsed.graph.input, *parsed.graph.output)
    }
    assert shapes == {"x": ["N", "T", 6], "mask": ["N", "T"], "scores": ["N", 1]}
    for lengths in ([1], [3, 1], [48] * 20):
        theirs, ours = both(model, *inputs(study, lengths, 0))
        assert theirs == pytest.approx(ours, abs=1e-5)


@pytest.mark.sampled(1)
@CLOCKS_AND_STEPS
@pytest.mark.parametrize("name", BRANCHES)
def test_onnx_scores_equal_pytorchs_for_every_kind_of_branch(name, clock, per_step) -> None:
    for task in TASKS:
        study = study_of_branches(name, clock=clock, task=task | {"per_step": per_step})
        model = some_trained(study, 1).model
        if model.onnx_obstacle:
            assert model.onnx_obstacle == "running minima of every step"
            assert per_step
            assert name in ("summary", "all")
            continue
        for seed, lengths in enumerate(([1], [4, 1, 7, 2])):
            x_NTF, mask_NT = inputs(study, lengths, seed)
            theirs, ours = both(model, x_NTF, mask_NT)
            assert theirs == pytest.approx(ours, abs=1e-5 * study.task.spread)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_example_study_has_a_model_that_onnx_scores_alike(file: Path) -> None:
    study = load_study(file)
    model = some_trained(study).model
    assert model.onnx_obstacle == ""
    assert largest_difference(to_onnx(model, {}), model, study.data.steps) < 1e-5
