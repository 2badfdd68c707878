"""The compiled kernel against plain PyTorch in double precision, in every variant."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from consilium.shared.kernels import build, through_time
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.recurrent import GRU, LSTM, RNN, Recurrent

CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
needs_kernel = pytest.mark.skipif(
    build.kernel_status().variant is None, reason=build.kernel_status().sentence
)
pytestmark = needs_kernel


def layer_of(cell: str, inputs: int, hidden: int, seed: int, **shape: object) -> Recurrent:
    generator = torch.Generator().manual_seed(seed)
    layer = CELLS[cell](inputs, hidden, generator=generator, **shape)
    for parameter in layer.parameters():  # biases too must matter; larger weights make chaos
        size = 4 if parameter.dim() == 1 else parameter.shape[1]
        parameter.data = torch.randn(parameter.shape, generator=generator) / size**0.5
    return layer


def batch(rows: int, steps: int, inputs: int, seed: int, holes: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, steps, inputs, generator=generator)
    mask = torch.rand(rows, steps, generator=generator) < (0.7 if holes else 2.0)
    return x, mask


def results(layer: Recurrent, x: Tensor, mask: Tensor, patient_N: Tensor | None) -> list[Tensor]:
    """Outputs, input gradient, ordinary gradients; with patients also norms and clipped sums."""
    x = x.clone().requires_grad_()
    direction = torch.cos(torch.arange(x.shape[0] * x.shape[1], dtype=torch.float64))
    direction = direction.view(*x.shape[:2], 1).to(x.dtype)
    out = layer(x, mask)
    found = [out.detach(), *torch.autograd.grad((out * direction).sum(), [x, *layer.parameters()])]
    if patient_N is not None:
        books = Bookkeeping()
        (layer(x, mask, books) * direction).sum().backward()
        patients = int(patient_N.max()) + 1
        sums, norms = books.clipped_sums(layer.parameters(), patient_N, patients, 0.5)
        found += [norms, *sums]
    return found


def assert_as_in_double(layer: Recurrent, x: Tensor, mask: Tensor, patient_N: Tensor) -> None:
    assert through_time.serves(x)
    wide = type(layer)(
        layer.inputs, layer.hidden, layers=layer.layers, bidirectional=layer.bidirectional
    ).double()
    wide.load_state_dict(layer.state_dict())
    for mine, exact in zip(
        results(layer, x, mask, patient_N),
        results(wide, x.double(), mask, patient_N),
        strict=True,
    ):
        # 1e-6: near saturation 1 - h^2 loses what float32 rounds off h, whatever is left of it
        assert (mine.double() - exact).abs().max() <= 2e-5 * exact.abs().max() + 1e-6


@pytest.fixture(params=build.VARIANTS)
def variant(request, monkeypatch) -> str:
    """Every variant this processor has, one after the other."""
    library, _ = build.load_kernel()
    if build.VARIANTS.index(request.param) > library.consilium_level():
        pytest.skip(f"this processor has no {request.param}")

    def function(name: str):
        found = library[f"{name}_{request.param}"]
        found.restype, *found.argtypes = through_time._SIGNATURES[name]
        return found

    monkeypatch.setattr(through_time, "_function", function)
    return request.param


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    cell=st.sampled_from(list(CELLS)),
    rows=st.integers(1, 30),
    steps=st.integers(1, 12),
    inputs=st.integers(1, 15),
    hidden=st.integers(1, 40),
    layers=st.integers(1, 2),
    both=st.booleans(),
    seed=st.integers(0, 10_000),
    holes=st.booleans(),
)
def test_the_kernel_equals_plain_pytorch_in_double_precision(
    cell, rows, steps, inputs, hidden, layers, both, seed, holes
):
    layer = layer_of(cell, inputs, hidden, seed, layers=layers, bidirectional=both)
    patient_N = torch.arange(rows) if seed % 2 else torch.arange(rows) * 7 % (1 + seed % 5)
    assert_as_in_double(layer, *batch(rows, steps, inputs, seed, holes), patient_N)


# 300 steps are more than the kernel packs at a time, 256 just as many; by inputs and units: more
# than one chunk of 128.
LONG = [
    pytest.param(shape, marks=pytest.mark.slow)
    for shape in ((7, 9, 5, 150), (2, 300, 3, 20), (2, 256, 3, 20))
]
SHAPES = [(3, 2, 140, 21), (2, 60, 3, 20), (40, 3, 2, 70), *LONG]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_variant_gives_the_same(cell, shape, variant):
    rows, steps, inputs, hidden = shape
    layer = layer_of(cell, inputs, hidden, 1, bidirectional=True)
    x, mask = batch(rows, steps, inputs, 1, holes=steps != 256)
    for patient_N in (torch.arange(rows), torch.arange(rows) // 2):
        assert_as_in_double(layer, x, mask, patient_N)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("own_threads", [False, True])
def test_the_number_of_threads_does_not_change_a_bit(cell, own_threads, monkeypatch):
    layer = layer_of(cell, 5, 70, 2, layers=2, bidirectional=True)
    x, mask = batch(37, 8, 5, 2, holes=True)
    alone = results(layer, x, mask, torch.arange(37) // 2)
    monkeypatch.setattr(through_time, "THREAD_PRODUCTS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    library, _ = build.load_kernel()
    try:
        if own_threads:
            library.consilium_share_threads(None)
        together = results(layer, x, mask, torch.arange(37) // 2)
    finally:
        build._share_threads(library)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_weights_that_differ_among_a_patients_stays_are_used_as_they_are(cell):
    layer = layer_of(cell, 3, 6, 3)
    x, mask = batch(4, 5, 3, 3, holes=True)
    books = Bookkeeping()
    layer(x, mask, books).square().sum().backward()
    books.norms(torch.tensor([0, 0, 1, 1]), 2)  # stores the patients' gradients
    weight_N = torch.tensor([1.0, 2.0, 0.0, -1.0])
    rows = books.per_row(layer.parameters())
    for found, each in zip(books.weighted_sums(layer.parameters(), weight_N), rows, strict=True):
        expected = torch.tensordot(weight_N, each, dims=1)
        torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_saturated_gates_stay_finite(cell, variant):
    layer = layer_of(cell, 5, 6, 3)
    x, mask = batch(3, 4, 5, 3, holes=False)
    found = results(layer, 1e4 * x, mask, torch.arange(3))
    assert all(torch.isfinite(part).all() for part in found)
    assert found[0].abs().max() <= 1


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_not_a_number_stays_so(cell, variant):
    layer = layer_of(cell, 5, 6, 3)
    x, mask = batch(3, 4, 5, 3, holes=False)
    x[1, 1, 0] = torch.nan
    states = layer(x, mask)
    assert torch.isnan(states[1, -1]).any()
    assert torch.isfinite(states[[0, 2]]).all()


@pytest.mark.parametrize("cell", CELLS)
def test_weights_of_another_shape_are_refused_before_their_memory_is_read(cell):
    layer, (x, mask) = layer_of(cell, 5, 7, 1), batch(3, 4, 6, 1, holes=False)
    with pytest.raises(ValueError, match=f"do not fit 6 inputs and 7 units of a {cell} layer"):
        layer(x, mask)


def test_a_second_backward_and_a_changed_output_are_refused():
    layer = layer_of("lstm", 5, 6, 3)
    x, mask = batch(3, 4, 5, 3, holes=False)
    total = layer(x, mask).sum()
    total.backward(retain_graph=True)
    with pytest.raises(TypeError):
        total.backward()
    states = layer(x, mask)
    total = states.sum()
    states.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_working_memory_is_used_again(monkeypatch):
    """A second step must find the first one's arrays given back, without the garbage collector."""
    layer = layer_of("lstm", 5, 6, 3)
    x, mask = batch(3, 4, 5, 3, holes=False)
    layer(x, mask).sum().backward()
    handed = []
    take = through_time.buffers._FREE.take
    monkeypatch.setattr(
        through_time.buffers._FREE, "take", lambda size: handed.append(take(size)) or handed[-1]
    )
    for private in (False, True, False):
        layer(x, mask, Bookkeeping() if private else None).sum().backward()
    assert len(handed) == 6
    assert all(array is not None for array in handed)


def test_double_precision_runs_in_plain_pytorch():
    assert not through_time.serves(torch.zeros(1, dtype=torch.float64))
