"""Registered modules under whatever weights: a patient moves the sum by the clip norm at most."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.installed_module import ModuleModel
from consilium.shared.study.training import Task
from tests import outside_models as made
from tests.client.round.test_hostile_weights import LARGEST, SLACK, change, records, training_set

STEPS = Task(kind="multiclass", outputs=3, per_step=True)


def asked(task: Task) -> SimpleNamespace:
    settings = {"dropout": 0.0, "width": 8, "heads": 2, "channels": 8}
    return SimpleNamespace(
        variables=3, codes=0, outputs=task.outputs, per_step=task.per_step, settings=settings
    )


@pytest.fixture(params=["transformer", "convolution", "plain", "classes of steps"])
def network(request, tmp_path, monkeypatch) -> Callable[[], ModuleModel]:
    made.put_on_path(made.install_example(tmp_path), monkeypatch)
    from acme_models.convolution import TemporalConvolution
    from acme_models.transformer import Transformer

    task = STEPS if request.param == "classes of steps" else Task()
    makes: dict[str, Callable[[], nn.Module]] = {
        "transformer": lambda: Transformer(asked(task)),
        "convolution": lambda: TemporalConvolution(asked(task)),
        "plain": made.Plain,
        "classes of steps": lambda: TemporalConvolution(asked(task)),
    }

    def make() -> ModuleModel:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return made.network(makes[request.param](), task).train()

    return make


@pytest.mark.sampled(3)
@pytest.mark.parametrize("exponent", [0.0, 4.0, 12.0, 38.4])
def test_no_weights_let_a_patient_count_more_than_once(exponent: float, network) -> None:
    for seed, (stays, wrong) in enumerate([(1, ""), (4, "cancelling"), (3, "nan")]):
        model, draw = network(), np.random.default_rng(seed)
        for parameter in model.parameters():
            values = draw.normal(size=parameter.shape) * 10.0**exponent
            parameter.data = torch.from_numpy(np.clip(values, -LARGEST, LARGEST)).float()
        x, y, mask, patient, order = records(model, stays, 4, seed)
        if wrong == "cancelling":
            x[1:stays], mask[1:stays] = x[0], mask[0]
            y[:stays:2], y[1:stays:2] = 0, 1
        elif wrong == "nan":
            x[0, 0, 0] = np.nan
        assert change(model, training_set(x, y, mask, patient, order)) <= SLACK


def test_weights_that_are_not_finite_make_nobody_count(network) -> None:
    for value in (np.nan, np.inf):
        model = network()
        for parameter in model.module.parameters():
            parameter.data.fill_(value)
        assert change(model, training_set(*records(model, 2, 3, 1))) <= SLACK


@pytest.mark.parametrize("training", [True, False])
def test_a_stays_numbers_are_the_same_bits_whoever_is_beside_it(training, network) -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(1e3)  # so that rounding would show
    x, y, mask, *_ = (torch.from_numpy(part) for part in records(model, 0, 9, 5))

    def found(rows: slice) -> list[torch.Tensor]:
        books = Bookkeeping()
        if not training:
            with torch.no_grad():
                return [model.eval()(x[rows], mask[rows])]
        logits = model(x[rows], mask[rows], books=books)
        model.loss_per_stay(logits, y[rows], mask[rows], books).sum().backward()
        return [logits, *books.per_row(model.parameters())]

    for whole, less in zip(found(slice(None)), found(slice(1, None)), strict=True):
        assert torch.equal(whole[1:], less)
