"""The six coordinates at the end of every vector: [1, weight, 0, 0, 0, 0].

Their sum shows the coordinator that all masks cancelled: the count equals the number of survivors
and the zeros are zero. With a wrong mask that happens with probability 2^-(5 k) at most for a
ring of k bits, whatever the weight.
"""

import numpy as np
from numpy.typing import NDArray

from consilium.shared.errors import RoundVoidError

TAIL = 6


def append_tail(vector: NDArray[np.uint32], weight: int) -> NDArray[np.uint32]:
    """A copy of the vector with one site's tail behind it; shape (length + 6,)."""
    tail = np.array([1, weight, 0, 0, 0, 0], np.uint32)
    return np.concatenate([vector, tail])


def check_tail(tail: NDArray[np.uint32], *, survivors: int, max_weight: int) -> int:
    """The weight of all survivors together.

    Args:
        tail: the last six coordinates of the sum, modulo the ring, shape (6,).
        survivors: number of sites summed.
        max_weight: largest weight of one.

    Raises:
        RoundVoidError: the masks did not cancel.
    """
    weight = int(tail[1])
    if int(tail[0]) != survivors or tail[2:].any() or weight > survivors * max_weight:
        raise RoundVoidError(
            "the sum's check coordinates are wrong, so some site was shown another model or "
            "masked otherwise than the protocol says; nothing of the sum is used"
        )
    return weight
