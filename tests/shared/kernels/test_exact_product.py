"""Products whose sums are exact: the same bits in every order, and single precision's error."""

import itertools

import pytest
import torch

from consilium.shared.kernels.exact_product import DOUBLE_BITS, SplitWeight, exact_product

SIZES = [(1, 1, 1), (3, 2, 5), (9, 64, 12), (17, 100, 33), (5, 1024, 7)]
AMPLITUDES = [1.0, 1e-42, 3e38]


def factors(count: int, inputs: int, outputs: int, amplitude: float = 1.0):
    generator = torch.Generator().manual_seed(inputs)
    x = torch.randn(count, inputs, generator=generator).clamp(-1, 1) * amplitude
    weight = torch.randn(inputs, outputs, generator=generator)
    return x, weight, torch.randn(outputs, generator=generator)


@pytest.mark.parametrize(("size", "amplitude"), [*itertools.product(SIZES, AMPLITUDES)])
def test_no_order_of_rows_or_terms_changes_a_bit(size, amplitude):
    x, weight, bias = factors(*size, amplitude)
    whole = exact_product(x, SplitWeight.of(weight), bias)
    alone = torch.cat([exact_product(row[None], SplitWeight.of(weight), bias) for row in x])
    assert torch.equal(alone, whole)
    turned = torch.randperm(size[1], generator=torch.Generator().manual_seed(1))
    assert torch.equal(exact_product(x[:, turned], SplitWeight.of(weight[turned]), bias), whole)


@pytest.mark.parametrize("inputs", [1, 3, 4, 1000, 1024])
def test_the_largest_sums_are_whole_numbers_that_double_precision_holds(inputs):
    largest = torch.tensor(2.0) - 2**-23  # all bits set: the largest of its power of two
    row, weight = torch.full((1, inputs), largest), torch.full((inputs, 1), largest)
    split = SplitWeight.of(weight)
    whole = [int(number) for number in split.parts[:, 0]]
    assert max(whole) <= 2 ** (DOUBLE_BITS - 24 - (inputs - 1).bit_length())
    assert 2**24 * sum(whole) <= 2**DOUBLE_BITS
    expected = torch.tensor(float(largest) ** 2 * inputs)
    torch.testing.assert_close(exact_product(row, split)[0, 0], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("size", "amplitude"), [*itertools.product(SIZES, [1.0, 1e-30, 1e30])])
def test_the_error_is_that_of_single_precision(size, amplitude):
    x, weight, _ = factors(*size, amplitude)
    error = exact_product(x, SplitWeight.of(weight)).double() - x.double() @ weight.double()
    scale = x.abs().amax(1, keepdim=True).double() * weight.abs().max()
    assert (error.abs() <= 2**-24 * (1 + size[1]) * scale).all()


def test_terms_that_cancel_leave_nothing():
    x = torch.tensor([[1e30, 1.0, -1e30], [3.0, 1e-8, -3.0]])
    assert exact_product(x, SplitWeight.of(torch.ones(3, 1)))[:, 0].tolist() == [0.0, 0.0]


def test_zeros_give_the_bias_and_a_row_that_is_not_finite_spoils_itself_alone():
    x, weight, bias = factors(4, 6, 3)
    x[0], x[1, 2], x[2, 3] = 0.0, torch.inf, torch.nan
    found = exact_product(x, SplitWeight.of(weight), bias)
    assert torch.equal(found[0], bias)
    assert not torch.isfinite(found[1:3]).any()
    assert torch.equal(found[3:], exact_product(x[3:], SplitWeight.of(weight), bias))
    assert torch.equal(exact_product(x[3:], SplitWeight.of(torch.zeros(6, 3)), bias)[0], bias)


def test_the_bias_may_differ_by_row():
    x, weight, _ = factors(4, 6, 3)
    begun = torch.arange(12.0).view(4, 3)
    each = [exact_product(x[n : n + 1], SplitWeight.of(weight), begun[n]) for n in range(4)]
    assert torch.equal(exact_product(x, SplitWeight.of(weight), begun), torch.cat(each))
