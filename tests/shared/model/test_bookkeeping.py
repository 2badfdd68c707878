"""Norms and clipped sums from the books, and what they refuse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.errors import PrivacyError
from consilium.shared.model.bookkeeping import Bookkeeping, outer_norms
from consilium.shared.model.layers import Embedding, LayerNorm, Linear


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(
    patients=st.integers(1, 4),
    steps=st.integers(1, 40),
    outputs=st.integers(1, 12),
    width=st.integers(1, 12),
    biases=st.integers(0, 2),
    seed=st.integers(0, 1000),
)
def test_squared_norms_are_those_of_the_written_gradients(
    patients, steps, outputs, width, biases, seed
):
    grad = torch.randn(patients, steps, outputs, generator=generator(seed))
    one = torch.randn(patients, steps, width, generator=generator(seed + 1))
    two = torch.randn(patients, steps, 2, generator=generator(seed + 2))
    written = [grad.double().transpose(1, 2) @ part.double() for part in (one, two)]
    expected = sum(part.square().sum((1, 2)) for part in written)
    expected = expected + biases * grad.double().sum(1).square().sum(1)
    found, terms = outer_norms(grad, [one, two], biases=biases)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    values = torch.cat([one, two, torch.ones(patients, steps, biases)], dim=2).double()
    lengths = grad.double().norm(dim=2) * values.norm(dim=2)
    torch.testing.assert_close(terms, lengths.sum(1))


def test_steps_that_nearly_cancel_keep_their_digits():
    half = torch.randn(1, 4, 64, generator=generator(0))
    grad = torch.cat([half, -half * (1 + 1e-3)], dim=1)
    values = torch.randn(1, 4, 64, generator=generator(1)).repeat(1, 2, 1)
    exact = (grad.double().transpose(1, 2) @ values.double()).square().sum((1, 2))
    found, _ = outer_norms(grad, [values], biases=0)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=0)


def test_clipping_bounds_what_each_patient_adds():
    layer = Linear(3, 2, generator=generator(0))
    for stays in range(1, 5):
        books = Bookkeeping()
        x = 100 * torch.randn(stays, 3, generator=generator(stays))
        layer(x, books).sum().backward()
        sums, _ = books.clipped_sums(layer.parameters(), torch.zeros(stays, dtype=int), 1, 0.5)
        total = torch.cat([part.flatten() for part in sums]).norm()
        assert total <= 0.5 * (1 + 1e-5)


@pytest.mark.parametrize("patient", [[0, 1, 2, 3], [3, 1, 0, 2], [0, 0, 2, 0], [5, 5, 5, 5]])
def test_embedding_norm_and_linear_agree_with_gradients_written_out(patient):
    embedding = Embedding(6, 5, generator=generator(0))
    norm, head = LayerNorm(5), Linear(5, 2, generator=generator(1))
    parameters = [*embedding.parameters(), *norm.parameters(), *head.parameters()]
    token = torch.tensor([[0, 1, 1, 5], [2, 2, 2, 2], [3, 1, 0, 4], [5, 5, 0, 0]])
    direction = torch.randn(4, 4, 2, generator=generator(2))
    patient_N = torch.tensor(patient)

    def output(rows: slice, books: Bookkeeping | None) -> torch.Tensor:
        return head(norm(embedding(token[rows], books), books), books)

    expected = torch.zeros(6, sum(p.numel() for p in parameters))
    for n in range(4):
        parts = torch.autograd.grad(output(slice(n, n + 1), None), parameters, direction[n : n + 1])
        expected[patient[n]] += torch.cat([part.flatten() for part in parts])
    books = Bookkeeping()
    output(slice(None), books).backward(direction)
    norms = books.norms(patient_N, 6)
    torch.testing.assert_close(norms.float(), expected.norm(dim=1), rtol=1e-5, atol=1e-6)
    sums, _ = books.clipped_sums(parameters, patient_N, 6, 1.0)
    clipped = expected / expected.norm(dim=1, keepdim=True).clamp(min=1.0)
    flat = torch.cat([part.flatten() for part in sums])
    torch.testing.assert_close(flat.float(), clipped.sum(0), rtol=1e-5, atol=1e-5)
    rows = torch.cat([part.flatten(1) for part in books.per_row(parameters)], dim=1)
    regrouped = torch.zeros_like(expected).index_add_(0, patient_N, rows)
    torch.testing.assert_close(regrouped, expected, rtol=1e-5, atol=1e-5)


def test_a_parameter_that_is_not_in_the_books_is_refused():
    one, two = Linear(3, 3, generator=generator(0)), Linear(3, 1, generator=generator(1))
    books = Bookkeeping()
    two(one(torch.ones(2, 3)), books).sum().backward()
    parameters = [*one.parameters(), *two.parameters()]
    with pytest.raises(PrivacyError, match="was not filed"):
        books.clipped_sums(parameters, torch.arange(2), 2, 1.0)


def test_a_parameter_filed_twice_is_refused():
    layer, books = Linear(3, 3, generator=generator(0)), Bookkeeping()
    layer(layer(torch.ones(2, 3), books), books).sum().backward()
    with pytest.raises(PrivacyError, match="filed twice"):
        books.clipped_sums(layer.parameters(), torch.arange(2), 2, 1.0)


def test_empty_books_are_refused():
    with pytest.raises(PrivacyError, match="0 records"):
        Bookkeeping().norms(torch.arange(1), 1)


@pytest.mark.parametrize("wrong", [torch.inf, torch.nan])
def test_a_patient_whose_gradient_is_not_finite_adds_nothing_and_changes_nothing_else(wrong):
    layer, token = Linear(3, 2, generator=generator(0)), torch.tensor([[0], [1], [1], [2]])
    table, norm = Embedding(3, 3, generator=generator(1)), LayerNorm(3)
    parameters = [*layer.parameters(), *norm.parameters(), *table.parameters()]

    def sums(rows: list[int], patient: list[int]) -> torch.Tensor:
        books = Bookkeeping()
        scale = torch.tensor([1.0, wrong, 2.0, 3.0])[rows].view(-1, 1, 1)
        (layer(norm(table(token[rows], books), books), books) * scale).sum().backward()
        found, _ = books.clipped_sums(parameters, torch.tensor(patient), max(patient) + 1, 0.5)
        return torch.cat([part.flatten() for part in found])

    torch.testing.assert_close(sums([0, 1, 2, 3], [0, 1, 1, 2]), sums([0, 3], [0, 1]))
    assert torch.isfinite(sums([0, 1, 2, 3], [0, 1, 1, 2])).all()
    assert not sums([1, 2], [0, 0]).any()
