"""Whatever weights are sent, one patient of a model of branches moves the sum by one clip norm."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.model.branch import Branch
from consilium.shared.model.convolution import ConvolutionModel
from consilium.shared.model.network import RecurrentModel
from consilium.shared.model.study_model import study_model
from tests.branch_studies import BRANCHES, study_of_branches
from tests.client.round.test_hostile_weights import (
    LARGEST,
    SLACK,
    back_end,  # noqa: F401  # a fixture
    cancel,
    change,
    records,
    tie_two_units,
    training_set,
)

TASKS = {
    "binary": {},
    "classes": {"kind": "multiclass", "outputs": 3},
    "labels of steps": {"kind": "multilabel", "outputs": 2, "per_step": True},
    "quantities": {"kind": "regression", "outputs": 2},
    "survival": {"kind": "survival", "outputs": 3, "cuts": (1.0, 2.0, 4.0)},
    "focal classes": {"kind": "multiclass", "outputs": 3, "loss": {"kind": "focal", "gamma": 0.5}},
    "bounded labels": {"kind": "multilabel", "outputs": 2, "loss": {"kind": "bounded"}},
    "smoothed, weighed labels": {
        "kind": "multilabel",
        "outputs": 2,
        "loss": {"smoothing": 0.1, "weights": [1000, 0.001]},
    },
}


def tie_units_of_all(model: Branch, amplitude: float) -> None:
    """Make two units of each network alike and let its head see their difference, magnified."""
    for network in model.networks:
        with torch.no_grad():
            for layer in getattr(network, "layers", []):
                for part in layer.parameters():
                    part[1] = part[0]
        after = network.recurrent if isinstance(network, ConvolutionModel) else network
        if isinstance(after, RecurrentModel):
            tie_two_units(after, amplitude)
            continue
        with torch.no_grad():
            network.head.bias.zero_()
            network.head.weight.zero_()
            network.head.weight[:, 0], network.head.weight[:, 1] = amplitude, -amplitude


@pytest.mark.parametrize(
    "name", ["all", *(pytest.param(n, marks=pytest.mark.slow) for n in BRANCHES if n != "all")]
)
def test_a_search_for_the_worst_change_finds_none_above_the_clip_norm(name, back_end):  # noqa: F811  # the fixture
    worst, study = 0.0, study_of_branches(name)
    for amplitude in (1e4, 1e14, LARGEST):
        for stays, near in ((2, 0.0), (6, 1e-6), (40, 1e-4)):
            model = study_model(study).train()
            tie_units_of_all(model, amplitude)
            data = records(model, stays, 20, 1)
            cancel(data, stays, near, 1)
            worst = max(worst, change(model, training_set(*data)))
    assert 0 < worst <= SLACK


@pytest.mark.slow
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(list(BRANCHES)),
    task=st.sampled_from(list(TASKS)),
    stays=st.sampled_from([0, 1, 2, 5, 40]),
    others=st.integers(1, 20),
    exponent=st.integers(-2, 38),
    spread=st.integers(0, 20),
    wrong=st.sampled_from(["none", "nan", "huge", "missing", "labels", "infinite"]),
    seed=st.integers(0, 10_000),
)
def test_no_weights_and_no_records_let_a_patient_count_more_than_once(
    name, task, stays, others, exponent, spread, wrong, seed
):
    model, draw = (
        study_model(study_of_branches(name, task=TASKS[task])),
        np.random.default_rng(seed),
    )
    model.train()
    for parameter in model.parameters():
        sign, size = draw.normal(size=parameter.shape), draw.uniform(-spread, 0, parameter.shape)
        values = np.clip(sign * 10.0 ** (exponent + size), -LARGEST, LARGEST)
        parameter.data = torch.from_numpy(values.astype(np.float32))
    data = records(model, stays, others, seed)
    x, y, mask = data[:3]
    which = [*range(stays)] if seed % 2 else [*range(0, len(x), 2)]  # of patient 0, or of anybody
    if wrong == "missing":
        mask[which] = False
    elif wrong == "labels":
        y[which] = 1e20
    elif wrong != "none":
        x[which, 0, : model.measured] = {"nan": np.nan, "huge": 1e38, "infinite": np.inf}[wrong]
    assert change(model, training_set(*data)) <= SLACK
