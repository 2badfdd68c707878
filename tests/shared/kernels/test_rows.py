"""Products in which no row's numbers depend on the other rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.kernels import build, rows, through_time


@pytest.fixture(params=[*build.VARIANTS, "none"])
def variant(request, monkeypatch):
    if request.param == "none":
        monkeypatch.setattr(through_time, "serves", lambda _: False)
        return
    library, _ = build.load_kernel()
    if library is None or build.VARIANTS.index(request.param) > library.consilium_level():
        pytest.skip(f"this processor, or this machine, has no {request.param}")
    found, usual = library[f"multiply_rows_{request.param}"], rows._compiled()
    found.restype, found.argtypes = usual.restype, usual.argtypes
    monkeypatch.setattr(rows, "_compiled", lambda: found)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 5), (30, 70, 1), (65, 76, 64), (130, 20, 33)])
@pytest.mark.parametrize("turned", [False, True])
def test_the_product_is_that_of_double_precision(shape, turned, variant):
    count, inputs, outputs = shape
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 2, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator).t()
    weight, bias = weight.contiguous() if turned else weight, torch.randn(outputs)
    for added in (None, bias):
        exact = x.double() @ weight.double() + (0 if added is None else added.double())
        found = rows.multiply_rows(x, weight, added)
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 70), inputs=st.integers(1, 80), outputs=st.integers(1, 70), data=st.data()
)
def test_a_rows_numbers_are_the_same_bits_whoever_is_beside_it(count, inputs, outputs, data):
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, inputs, generator=generator) * 1e8
    weight = torch.randn(inputs, outputs, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count))
    whole = rows.multiply_rows(x, weight, bias)
    assert torch.equal(rows.multiply_rows(x[chosen], weight, bias), whole[chosen])


def test_no_rows_give_no_rows(variant):
    assert rows.multiply_rows(torch.zeros(0, 3), torch.ones(3, 2)).shape == (0, 2)
