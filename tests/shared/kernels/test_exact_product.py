"""Products whose sums are exact: the same bits in every order, and single precision's error."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from consilium.shared.kernels.exact_product import (
    DOUBLE_BITS,
    ROW_BITS,
    SplitWeight,
    _multiples,
    exact_product,
)

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


def test_what_is_left_of_terms_that_cancel_has_no_order():
    x, weight, _ = factors(9, 64, 12)
    x *= 10.0 ** torch.linspace(-7, 0, 64)  # in double precision such sums round
    x, weight = torch.cat([x, -x], dim=1), torch.cat([weight, weight])
    turned = torch.randperm(128, generator=torch.Generator().manual_seed(1))
    found = exact_product(x[:, turned], SplitWeight.of(weight[turned]))
    assert torch.equal(found, exact_product(x, SplitWeight.of(weight)))
    assert found.abs().max() <= 2**-20


@pytest.mark.parametrize("inputs", [1, 3, 4, 1000, 1024])
@pytest.mark.parametrize("largest", [1.0, 2 - 2**-23, 1 + 2**-23, 1.5])
def test_the_largest_sums_are_multiples_that_double_precision_holds(inputs, largest):
    column = torch.linspace(0.3, 1, inputs)[:, None] * largest
    column[0, 0] = largest
    row = _multiples(column.t(), torch.tensor([[largest]]).double(), ROW_BITS)
    for part in SplitWeight.of(column).parts.t():
        terms = [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row[0], part, strict=True)]
        sums = [*itertools.accumulate(terms), *itertools.accumulate(reversed(terms))]
        assert all(Fraction(float(each)) == each for each in sums)
        unit = Fraction(1, max(term.denominator for term in terms))
        assert sum(map(abs, terms)) <= 2**DOUBLE_BITS * unit


@pytest.mark.parametrize("bits", [13, 18, 25])
@pytest.mark.parametrize("largest", [1.0, 2 - 2**-23, 1 + 2**-23, 1e-42, 3e38])
def test_rounded_numbers_are_few_multiples_of_one_power_of_two_and_near(bits, largest):
    values = torch.linspace(-1, 1, 301) * torch.tensor(largest)
    found = _multiples(values, values.abs().amax(0, keepdim=True).double(), bits)
    units = [Fraction(float(value)) for value in found]
    unit = Fraction(1, max(each.denominator for each in units))
    unit *= math.gcd(*(int(each / unit) for each in units))
    assert max(map(abs, units)) <= 2**bits * unit
    most = 2.0 ** (2 - bits) * float(values.abs().max())
    assert float((found - values.double()).abs().max()) <= most


@pytest.mark.parametrize(("size", "amplitude"), [*itertools.product(SIZES, [1.0, 1e-30, 1e30])])
def test_the_error_is_that_of_single_precision(size, amplitude):
    x, weight, _ = factors(*size, amplitude)
    error = exact_product(x, SplitWeight.of(weight)).double() - x.double() @ weight.double()
    scale = x.abs().amax(1, keepdim=True).double() * weight.abs().max()
    assert (error.abs() <= 2**-23 * (1 + size[1]) * scale).all()


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
