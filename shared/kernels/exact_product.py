"""Products of rows with a matrix whose sums are exact, so the same in any order, on any device.

A library adds up a row's terms in an order that may depend on the number of rows, on a row's place,
and on the device. That cannot matter where no addition rounds. So both factors are rounded first:
each row x to a row q of multiples of one power of two, at most 2^25 of them in magnitude, and the
matrix W to the sum of a coarse and a fine matrix, each of multiples of a power of two, at most 2^b
of them, with b = 53 - 25 - ceil(log2 I) for I inputs. Every product of two such numbers is a
multiple of one common unit, and every sum of any of a row's products is at most I 2^(25 + b) <=
2^53 units: double precision holds it exactly, whichever terms are added first, with multiply-add
units or without. What is left are operations on single numbers, each rounded once by IEEE 754. So a
row of the result is a function of the row of x and of the matrix, to the last bit: of no other row,
no place, no thread, no device.

The rounding adds a large number M and takes it away again. Let a be the largest magnitude, and M =
2^(54 - n) a, of exponent k. Sums x + M are multiples of 2^(k - 53), and so is M; a is less than 2^n
of them, since M < 2^(k + 1). The error is at most 2^(k - 52) <= 2^(2 - n) a: with n = 25 that of
single precision, relative to the row's largest number.

The method is the error-free splitting of Ozaki, Ogita, Oishi & Rump 2012 ("Error-free
transformations of matrix multiplication by using fast routines of matrix multiplication and its
applications", section 3), cut off at single precision.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from consilium.shared.kernels.pieces import pieces

ROW_BITS = 25
DOUBLE_BITS = 53


@dataclass(frozen=True)
class SplitWeight:
    """A matrix (I, O) of single precision, prepared for products with many rows.

    ``parts`` are the coarse and the fine matrix side by side: (I, 2 O), float64.
    """

    parts: Tensor

    @classmethod
    def of(cls, weight_IO: Tensor) -> "SplitWeight":
        """Split a finite matrix."""
        bits = DOUBLE_BITS - ROW_BITS - (weight_IO.shape[0] - 1).bit_length()
        weight = weight_IO.detach().double()
        largest = weight.abs().amax((0, 1), keepdim=True)
        coarse = _multiples(weight, largest, bits)
        fine = _multiples(weight - coarse, largest * 2.0 ** (2 - bits), bits)
        return cls(torch.cat([coarse, fine], dim=1))


def exact_product(x_NI: Tensor, weight: SplitWeight, bias: Tensor | None = None) -> Tensor:
    """Return the rows (N, I) times the matrix, plus ``bias`` (O,) or (N, O), in single precision.

    Guarantee: a row of the result is a function of the row of ``x_NI``, the matrix and the bias, to
    the last bit, on every device that computes in IEEE 754 double precision. A row that is not
    finite gives one that is not finite, and leaves the others as they are.
    """
    rows, width = len(x_NI), weight.parts.shape[1]
    found = x_NI.new_empty(rows, width // 2)
    for piece in pieces(x_NI, rows, width + x_NI.shape[1]):
        x = x_NI[piece].detach()
        largest_N1 = x.abs().amax(1, keepdim=True).double()
        coarse, fine = (_multiples(x, largest_N1, ROW_BITS) @ weight.parts).chunk(2, dim=1)
        if bias is None:
            torch.add(coarse, fine, out=found[piece])
        else:
            begun = (bias if bias.dim() == 1 else bias[piece]).detach()
            torch.add(coarse + fine, begun, out=found[piece])
    return found


def _multiples(values: Tensor, largest: Tensor, bits: int) -> Tensor:
    """Round to multiples of a power of two, of which ``largest`` is at most 2^bits.

    ``largest`` is float64 and has the values' axes: so the sum is in double precision.
    """
    shift = largest * 2.0 ** (DOUBLE_BITS + 1 - bits)
    return (values + shift).sub_(shift)
