"""Layers on a card, emulated: as one patient at a time, and nothing left on the processor."""

import itertools

import pytest
import torch
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from consilium.shared.model import cells, graphics_card
from consilium.shared.model.bookkeeping import Bookkeeping, group_rows
from consilium.shared.model.graphics_card import GraphicsCard, filled_up
from consilium.shared.model.plain_layer import records
from consilium.shared.model.recurrent import GRU, LSTM, RNN, computed_on
from tests.emulated_card import emulated_card, written_again

LAYERS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
CLIP = 0.5


def made(cell: str, dtype: torch.dtype, layers: int = 1, *, both: bool = False):
    generator = torch.Generator().manual_seed(3)
    layer = LAYERS[cell](4, 5, layers=layers, bidirectional=both, generator=generator).to(dtype)
    x = torch.randn(7, 6, 4, generator=generator, dtype=dtype, requires_grad=True)
    mask = torch.arange(6) < torch.tensor([[6], [2], [4], [6], [1], [3], [5]])
    direction = torch.randn(7, 6, 10 if both else 5, generator=generator, dtype=dtype)
    return layer, x, mask, direction


@pytest.mark.parametrize(
    ("cell", "layers", "both"), [*itertools.product(LAYERS, (1, 2), (False, True))]
)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_clipped_sums_and_input_gradients_are_those_of_one_patient_at_a_time(
    cell, layers, both, dtype, most
):
    layer, x, mask, direction = made(cell, dtype, layers, both=both)
    patient = torch.tensor([0, 1, 0, 2, 3, 1, 0])
    expected = torch.zeros(sum(p.numel() for p in layer.parameters()), dtype=torch.float64)
    grads_x = torch.zeros_like(x)
    for number in range(4):
        rows = patient == number
        out = (layer(x[rows], mask[rows]) * direction[rows]).sum()
        *parts, grad_x = torch.autograd.grad(out, [*layer.parameters(), x])
        gradient = torch.cat([part.flatten() for part in parts]).double()
        expected += gradient * (CLIP / gradient.norm().clamp(min=CLIP))
        grads_x += grad_x
    books = Bookkeeping()
    with computed_on(emulated_card(), layer):
        (layer(x, mask, books) * direction).sum().backward()
    sums, norms = books.clipped_sums(list(layer.parameters()), patient, 4, CLIP)
    assert (norms > CLIP).all()
    found = torch.cat([part.flatten() for part in sums])
    torch.testing.assert_close(found, expected, rtol=most, atol=most)
    torch.testing.assert_close(x.grad, grads_x, rtol=most, atol=most)


@pytest.mark.parametrize("cell", LAYERS)
def test_ordinary_gradients_are_those_of_the_processor(cell):
    layer, x, mask, direction = made(cell, torch.float32, 2, both=True)
    usual = torch.autograd.grad((layer(x, mask) * direction).sum(), [*layer.parameters(), x])
    with computed_on(emulated_card(), layer):
        out = (layer(x, mask) * direction).sum()
        found = torch.autograd.grad(out, [*layer.parameters(), x])
    for one, other in zip(found, usual, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", LAYERS)
def test_every_gradient_of_a_row_and_spans_of_rows_can_be_asked_for(cell):
    layer, x, mask, direction = made(cell, torch.float64)
    parameters, everyone = list(layer.parameters()), torch.arange(7)
    found = []
    for place in (graphics_card.PROCESSOR, emulated_card()):
        books = Bookkeeping()
        with computed_on(place, layer):
            (layer(x, mask, books) * direction).sum().backward()
        spans = [slice(0, 3), slice(3, 7)]
        by_span = books.clipped_sums_by_span(parameters, everyone, 7, CLIP, spans)
        found.append([*books.per_row(parameters), *by_span[0], *by_span[1]])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_places_of_layers_are_the_processor_again_after_the_block():
    layer, x, *_ = made("lstm", torch.float32)
    with pytest.raises(RuntimeError, match="lost"), computed_on(emulated_card(), layer):
        raise RuntimeError("lost")
    assert layer.place is graphics_card.PROCESSOR
    assert layer(x).shape == (7, 6, 5)


def test_rows_are_filled_up_to_few_numbers():
    assert [filled_up(rows) for rows in (0, 1, 8, 9, 13, 17, 33, 100)] == [
        *(8, 8, 8, 12, 16, 24, 48, 128)
    ]
    assert all(rows <= filled_up(rows) <= max(8, 1.5 * rows) for rows in range(1, 3000))


class _OneDevice(TorchDispatchMode):
    """Fails where numbers of two devices meet, or leave for another."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, found)) if torch.is_tensor(one)]
        devices = {one.device.type for one in tensors if one.dim()}
        assert len(devices) < 2, f"{function} works on {devices}"
        return found


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "keeps"), [*itertools.product(LAYERS, (False, True))])
def test_nothing_stays_on_the_processor_and_no_number_is_looked_at_in_the_loops(cell, keeps):
    # On the device "meta" there are shapes and no numbers: looking at one is an error.
    card, gates = GraphicsCard(torch.device("meta"), written_again), cells.GATES[cell]
    shapes = ((gates * 5, 4), (gates * 5, 5), (gates * 5,), (gates * 5,))
    parameters = tuple(Parameter(torch.zeros(shape)) for shape in shapes)
    weights = card.weights(parameters)
    x, grad = card.take(torch.zeros(7, 6, 4)), card.take(torch.zeros(7, 6, 5))
    keep = card.take(torch.ones(7, 6, 1)) if keeps else None
    groups = group_rows(torch.tensor([0, 1, 0, 2, 3, 1, 0]), 4).on(card.device)
    nothing = torch.zeros(4, dtype=torch.float64, device="meta")
    for alone in (False, True):
        with _OneDevice():
            trace = card.forward(cell, x, weights, keep, alone=alone)
            deltas = card.backward(cell, trace, weights, keep, grad, alone=alone)
            cells.times(deltas.input_TNG, weights.input_GI, alone)
            given = deltas.of_rows(7)
            for record in records(parameters, given, x[:, :7], trace.states[:-1, :7]):
                record.add_norms(nothing, nothing, groups)
                sums = record.weighted_sums(torch.zeros(7, device="meta"))
                assert {total.device.type for total in sums} == {"meta"}
