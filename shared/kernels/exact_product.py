"""Products of rows with a matrix whose sums are exact, so the same in any order, on any device.

A library adds up a row's terms in an order that may depend on the number of rows, on a row's place,
and on the device. That cannot matter where no addition rounds. So both factors are rounded first:
a row x to whole numbers of 24 bits of its largest magnitude, the matrix to two matrices of whole
numbers of b bits each, of its own largest magnitude:

    x = 2^p (q + e),  |q_i| <= 2^24, |e_i| <= 1/2;   W = 2^r (H + 2^-b L) + rest,  |H|, |L| <= 2^b

with b = 53 - 24 - ceil(log2 I) for I inputs. Then every product q_i H_io is a whole number, and
every sum of any of them is at most I 2^(24 + b) <= 2^53 in magnitude: double precision holds it
exactly, whichever terms are added first, with multiply-add units or without. What is left are
operations on single numbers, each rounded once by IEEE 754. So a row of the result is a function
of the row of x and of the matrix, to the last bit: of no other row, no place, no thread, no device.

The error of a result is at most about I 2^-25 max|x| max|W|, that of single precision. The method
is the error-free splitting of Ozaki, Ogita, Oishi & Rump 2012 ("Error-free transformations of
matrix multiplication by using fast routines of matrix multiplication"), cut off at single
precision.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from consilium.shared.kernels.pieces import pieces

ROW_BITS = 24
DOUBLE_BITS = 53


@dataclass(frozen=True)
class SplitWeight:
    """A matrix (I, O) of single precision, prepared for products with many rows.

    Attributes:
        parts: H and L side by side (I, 2 O), whole numbers in float64.
        step: 2^-b, by which L is finer than H.
        unit: 2^r, on the matrix's device, float64.
    """

    parts: Tensor
    step: float
    unit: Tensor

    @classmethod
    def of(cls, weight_IO: Tensor) -> "SplitWeight":
        """Split a finite matrix."""
        bits = DOUBLE_BITS - ROW_BITS - (weight_IO.shape[0] - 1).bit_length()
        weight = weight_IO.detach().double()
        unit = _power_above(weight.abs().amax()) * 2.0**-bits
        coarse = (weight / unit).round_()
        fine = ((weight / unit - coarse) * 2.0**bits).round_()
        return cls(torch.cat([coarse, fine], dim=1), 2.0**-bits, unit)


def exact_product(x_NI: Tensor, weight: SplitWeight, bias: Tensor | None = None) -> Tensor:
    """Return the rows (N, I) times the matrix, plus ``bias`` (O,) or (N, O), in single precision.

    Guarantee: a row of the result is a function of the row of ``x_NI``, the matrix and the bias, to
    the last bit, on every device that computes in IEEE 754 double precision. A row that is not
    finite gives one that is not finite, and leaves the others as they are.
    """
    rows, outputs = len(x_NI), weight.parts.shape[1] // 2
    found = x_NI.new_empty(rows, outputs)
    for piece in pieces(x_NI, rows, weight.parts.shape[1] + x_NI.shape[1]):
        x = x_NI[piece].detach().double()
        unit_N1 = _power_above(x.abs().amax(1, keepdim=True)) * 2.0**-ROW_BITS
        coarse, fine = ((x / unit_N1).round_() @ weight.parts).chunk(2, dim=1)
        total = (fine * weight.step).add_(coarse).mul_(unit_N1 * weight.unit)
        if bias is not None:
            total += (bias if bias.dim() == 1 else bias[piece]).detach()
        found[piece] = total
    return found


def _power_above(largest: Tensor) -> Tensor:
    """Return the power of two above each magnitude; 1 for 0, not a number where it is infinite.

    m 2^e with 1/2 <= m < 1, divided by m: a division whose result is a number is exact.
    """
    power = largest / torch.frexp(largest).mantissa
    return power.masked_fill_(largest == 0, 1.0)
