"""The six coordinates at the end of every vector: [1, weight, 0, 0, 0, 0].

A site's weight is its declared size. The sum shows the coordinator that all masks cancelled and
that nobody claimed another weight: the count equals the number of survivors, the weight the sum of
their declared sizes, and the zeros are zero. With a wrong mask that happens with probability
2^-(6 k) for a ring of k bits.
"""

import numpy as np
from numpy.typing import NDArray

from consilium.shared.errors import RoundVoidError

TAIL = 6


def append_tail(vector: NDArray[np.uint32], weight: int) -> NDArray[np.uint32]:
    """A copy of the vector with one site's tail behind it; shape (length + 6,)."""
    tail = np.array([1, weight, 0, 0, 0, 0], np.uint32)
    return np.concatenate([vector, tail])


def check_tail(tail: NDArray[np.uint32], *, survivors: int, weight: int) -> None:
    """Check the sum's last coordinates.

    Args:
        tail: the last six coordinates of the sum, modulo the ring, shape (6,).
        survivors: number of sites summed.
        weight: sum of their declared sizes.

    Raises:
        RoundVoidError: the masks did not cancel, or a site claimed another weight than it declared.
    """
    if int(tail[0]) != survivors or tail[2:].any():
        raise RoundVoidError(
            "the sum's check coordinates are wrong, so some site was shown another model or "
            "masked otherwise than the protocol says; nothing of the sum is used"
        )
    if int(tail[1]) != weight:
        raise RoundVoidError(
            f"the sum's weight is {int(tail[1])} and the survivors declared {weight} patients "
            "together, so some site claims another size than it declared; nothing of the sum is "
            "used"
        )
