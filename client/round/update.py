"""A site's contribution to a training round: the weight difference, bounded.

Guarantee: the L2 norm of what :func:`clip_update` returns is at most ``norm`` (up to rounding of
float64), so every coordinate fits the ring that the study's secure sum was sized for.
"""

import numpy as np
from numpy.typing import NDArray

from consilium.shared.errors import EncodingError


def weight_difference(
    trained_D: NDArray[np.float32], global_D: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return trained minus global weights, in float64."""
    return trained_D.astype(np.float64) - global_D.astype(np.float64)


def clip_update(update_D: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
    """Scale the update down to an L2 norm of at most ``norm``; shorter updates are unchanged.

    Raises:
        EncodingError: the update holds NaN or infinity, so nothing may be sent.
    """
    length = float(np.linalg.norm(update_D))
    if not np.isfinite(length):
        raise EncodingError(
            "the local update is not finite; nothing was sent, lower [training] learning_rate"
        )
    return update_D if length <= norm else update_D * (norm / length)
