"""Recurrent layers against torch.nn, and their books against one sample at a time."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.recurrent import GRU, LSTM, RNN, Recurrent

PAIRS = {"rnn": (RNN, nn.RNN), "lstm": (LSTM, nn.LSTM), "gru": (GRU, nn.GRU)}
SHAPES = [*itertools.product(PAIRS, (1, 2), (False, True))]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(cell: str, layers: int, both: bool, dtype: torch.dtype) -> tuple[Recurrent, nn.Module]:
    ours, theirs = PAIRS[cell]
    layer = ours(5, 7, layers=layers, bidirectional=both, generator=generator(0)).to(dtype)
    for parameter in layer.parameters():  # biases too must matter
        parameter.data = torch.randn(parameter.shape, generator=generator(1), dtype=dtype) / 2
    reference = theirs(5, 7, num_layers=layers, bidirectional=both, batch_first=True).to(dtype)
    reference.load_state_dict(layer.state_dict())
    return layer, reference


def ragged(rows: int, steps: int, lengths: list[int]) -> Tensor:
    return torch.arange(steps)[None, :] < torch.tensor(lengths[:rows])[:, None]


def packed(reference: nn.Module, x_NTI: Tensor, mask_NT: Tensor) -> Tensor:
    lengths = mask_NT.sum(1)
    packing = nn.utils.rnn.pack_padded_sequence(
        x_NTI, lengths, batch_first=True, enforce_sorted=False
    )
    out, _ = nn.utils.rnn.pad_packed_sequence(
        reference(packing)[0], batch_first=True, total_length=x_NTI.shape[1]
    )
    return out


@pytest.mark.parametrize(("cell", "layers", "both"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_outputs_and_gradients_equal_those_of_torch(cell, layers, both, dtype, tolerance):
    layer, reference = pair(cell, layers, both, dtype)
    x = torch.randn(4, 9, 5, generator=generator(2), dtype=dtype, requires_grad=True)
    out, expected = layer(x), reference(x)[0]
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    direction = torch.randn(out.shape, generator=generator(3), dtype=dtype)
    mine = torch.autograd.grad(out, [x, *layer.parameters()], direction)
    torchs = torch.autograd.grad(expected, [x, *reference.parameters()], direction)
    for a, b in zip(mine, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(("cell", "layers", "both"), SHAPES)
def test_padded_sequences_equal_packed_ones(cell, layers, both):
    layer, reference = pair(cell, layers, both, torch.float64)
    mask = ragged(4, 9, [9, 1, 4, 6])
    x = torch.randn(4, 9, 5, generator=generator(2), dtype=torch.float64, requires_grad=True)
    out, expected = layer(x, mask), packed(reference, x, mask)
    valid = mask[:, :, None]
    torch.testing.assert_close(out * valid, expected * valid, rtol=1e-12, atol=1e-12)
    direction = torch.randn(out.shape, generator=generator(3), dtype=torch.float64) * valid
    mine = torch.autograd.grad(out, [x, *layer.parameters()], direction)
    torchs = torch.autograd.grad(expected, [x, *reference.parameters()], direction)
    for a, b in zip(mine, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("cell", PAIRS)
def test_state_dicts_go_both_ways(cell):
    layer, reference = pair(cell, 2, True, torch.float32)
    layer.load_state_dict(reference.state_dict())
    assert list(layer.state_dict()) == list(reference.state_dict())


@pytest.mark.parametrize("cell", PAIRS)
def test_a_padded_step_leaves_the_state_and_is_never_looked_at(cell):
    layer, _ = pair(cell, 1, False, torch.float32)
    x = torch.randn(3, 6, 5, generator=generator(4))
    mask = ragged(3, 6, [6, 2, 3])
    mask[0, 2] = False  # padding inside a sequence holds the state too
    clean = layer(x, mask)
    spoiled = layer(torch.where(mask[:, :, None], x, torch.nan), mask)
    assert torch.equal(clean, spoiled)
    assert torch.equal(clean[1, 1], clean[1, 5])
    assert torch.equal(clean[0, 1], clean[0, 2])


@pytest.mark.parametrize("cell", PAIRS)
def test_padding_receives_no_gradient(cell):
    layer, _ = pair(cell, 2, True, torch.float32)
    x = torch.randn(3, 6, 5, generator=generator(4), requires_grad=True)
    mask = ragged(3, 6, [6, 2, 3])
    (gradient,) = torch.autograd.grad(layer(x, mask).sum(), x)
    assert torch.all(gradient[~mask] == 0)
    assert torch.all(gradient[mask] != 0)


def reference_gradients(
    layer: Recurrent, x: Tensor, mask: Tensor, direction: Tensor, patient_N: Tensor, patients: int
) -> Tensor:
    """Every patient's gradient (P, d), one stay at a time, in float64."""
    exact = type(layer)(
        layer.inputs, layer.hidden, layers=layer.layers, bidirectional=layer.bidirectional
    ).double()
    exact.load_state_dict(layer.state_dict())
    total = torch.zeros(patients, sum(p.numel() for p in layer.parameters()), dtype=torch.float64)
    for n in range(len(x)):
        out = exact(x[n : n + 1].double(), mask[n : n + 1])
        parts = torch.autograd.grad(out, list(exact.parameters()), direction[n : n + 1].double())
        total[patient_N[n]] += torch.cat([part.flatten() for part in parts])
    return total


@settings(max_examples=25, deadline=None)
@given(
    cell=st.sampled_from(list(PAIRS)),
    layers=st.integers(1, 3),
    both=st.booleans(),
    hidden=st.integers(1, 9),
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    patient=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    clip=st.floats(0.1, 10),
    seed=st.integers(0, 1000),
)
def test_clipped_sums_equal_one_sample_at_a_time(
    cell, layers, both, hidden, lengths, patient, dtype, clip, seed
):
    rows, steps = len(lengths), max(1, *lengths) if len(lengths) > 1 else max(1, lengths[0])
    layer = PAIRS[cell][0](3, hidden, layers=layers, bidirectional=both, generator=generator(seed))
    layer = layer.to(dtype)
    x = torch.randn(rows, steps, 3, generator=generator(seed + 1), dtype=dtype)
    mask = ragged(rows, steps, lengths)
    patient_N = torch.tensor(patient[:rows])
    books = Bookkeeping()
    out = layer(x, mask, books)
    direction = torch.randn(out.shape, generator=generator(seed + 2), dtype=dtype)
    out.backward(direction)
    expected = reference_gradients(layer, x, mask, direction, patient_N, 4)
    sums, norms = books.clipped_sums(layer.parameters(), patient_N, 4, clip)
    flat = torch.cat([part.flatten() for part in sums]).double()
    exact_norms = expected.norm(dim=1)
    factors = (clip / exact_norms.clamp(min=clip)).unsqueeze(1)
    clipped = expected * factors
    # Relative to what is added up: sums of opposite gradients may cancel.
    scale = clipped.norm(dim=1).sum().clamp(min=1e-6)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-12
    assert (flat - clipped.sum(0)).norm() <= tolerance * scale
    assert torch.all((norms.double() - exact_norms).abs() <= tolerance * exact_norms + 1e-9)
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_initial_weights_depend_on_the_generator_alone_and_leave_the_global_one():
    before = torch.random.get_rng_state()
    one, two = (LSTM(4, 8, generator=generator(7)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_recurrent_weights_start_orthogonal_and_forget_gates_open():
    layer = LSTM(4, 8, generator=generator(7))
    for gate in layer.weight_hh_l0.detach().chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()
    assert torch.equal(bias, torch.cat([torch.zeros(8), torch.ones(8), torch.zeros(16)]))


def test_dropout_between_layers_follows_its_generator_and_stops_in_evaluation():
    layer = GRU(3, 6, layers=2, dropout=0.5, generator=generator(1))
    x = torch.randn(2, 5, 3, generator=generator(2))
    first, same, other = (layer(x, None, None, generator(s)) for s in (5, 5, 6))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    layer.eval()
    assert torch.equal(layer(x), layer(x))
