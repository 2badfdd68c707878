"""SCAFFOLD at a site: corrects for how the site's mean gradient differs from all sites' mean.

Karimireddy et al., ICML 2020, algorithm 1 with option II. Control variates are kept in the unit of
weights: ``local_steps`` * ``learning_rate`` times the paper's, which is how far a round's steps
would move along it. Option II is then c_i + (x - y) - c without a division, where x are the weights
before the steps and y those after.

Unlike in the paper, a site sends the new c_i, not its change. If all sites take part, the server
gets the same mean either way. But after a void round, or one that a site missed, the server's c is
again the mean of the sites' c_i, whereas a sum of changes would stay wrong.

In a study with privacy a control variate costs nothing more: c_i is x - y plus what was known
before, and x - y consists of clipped gradients with noise (post-processing).
"""

import numpy as np
from numpy.typing import NDArray

from consilium.client.round.update import clip_update
from consilium.shared.errors import MessageError
from consilium.shared.study.training import Training

Control = NDArray[np.float64]


def split_received(
    received: NDArray[np.float32], parameters: int
) -> tuple[NDArray[np.float32], Control]:
    """Split what a training round receives into weights (D,) and all sites' control variate (D,).

    Raises:
        MessageError: not two vectors of this size, or a control variate that is not finite.
    """
    control_D = received[parameters:].astype(np.float64)
    if control_D.size != parameters or not np.isfinite(control_D).all():
        raise MessageError(
            f"a training round of this study brings {2 * parameters} finite numbers, weights and "
            f"control variates; {received.size} came, ask for the round again"
        )
    return received[:parameters], control_D


def correction(own_D: Control, all_D: Control, training: Training) -> NDArray[np.float32]:
    """Return the correction (D,) of each step's gradient: c - c_i in the paper's unit."""
    scale = training.local_steps * training.learning_rate
    added_D: NDArray[np.float32] = ((all_D - own_D) / scale).astype(np.float32)
    return added_D


def new_control_variate(own_D: Control, all_D: Control, moved_D: Control, norm: float) -> Control:
    """Return the site's control variate after a round (D,), of L2 norm at most ``norm``.

    ``moved_D`` is y - x, how far the round's steps moved the weights.

    Raises:
        EncodingError: the result is not finite.
    """
    return clip_update(own_D - all_D - moved_D, norm)
