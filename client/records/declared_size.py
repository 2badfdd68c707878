"""A hospital's declared size: how it is rounded, and how it bounds what the hospital adds to sums.

The size is declared once for a study and is as public as the hospital's name. It is not protected
by epsilon, so it is rounded until one patient rarely changes it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from consilium.shared.study.definition import Study

LEAST_SIZE = 10
"""The smallest size that is proposed: below 15 patients, one digit would be their exact number."""

_ROUNDING = 1 - 1e-12  # keeps the norm under the bound after float64 rounding

Vector = NDArray[np.float64]


def rounded_size(patients: int) -> int:
    """Return the number of patients rounded to one significant digit, half up, at least 10.

    Of the numbers from 10^k to 10^(k + 1), k >= 1, one in 10^k is where one patient more changes
    the result.
    """
    step = int(10 ** max(1, len(str(patients)) - 1))
    return max(LEAST_SIZE, (patients + step // 2) // step * step)


def usual_size(patients: int, study: Study) -> int:
    """Return the size that a hospital with so many training patients declares unless told else."""
    return min(rounded_size(patients), study.aggregation.max_weight)


def shortened(sum_D: Vector, longest: float) -> Vector:
    """Return a sum over patients (D,), scaled down if its L2 norm is above ``longest``.

    Guarantee: the result's L2 norm is at most ``longest``, and two sums are no further apart
    afterwards than before (projection onto a ball), so their sensitivity to one patient stays.
    """
    length = float(np.linalg.norm(sum_D))
    return sum_D if length <= longest else sum_D * (longest * _ROUNDING / length)


def shortened_parts(sums: Mapping[str, Vector], longest: float) -> dict[str, Vector]:
    """Return sums over patients, by name, scaled by one factor as :func:`shortened` does."""
    together = np.concatenate(list(sums.values()))
    whole = shortened(together, longest)
    ends = np.cumsum([part.size for part in sums.values()])[:-1]
    return dict(zip(sums, np.split(whole, ends), strict=True))
