"""SCAFFOLD at a site: how its mean gradient differs from all sites', kept and corrected for.

Karimireddy et al., ICML 2020, algorithm 1 with option II, in the unit of weights: a control variate
is held as ``local_steps`` * ``learning_rate`` times the paper's, which is how far the round's steps
would go along it. Option II is then c_i + (x - y) - c, with x the weights before and y after the
steps, and nothing is divided.

It differs from the paper in what is sent: the new c_i and not its change. While all sites take part
both give the server the same mean; and after a round that was void, or that a site missed, its c is
again the mean of what the sites hold, where sums of changes would stay wrong for good.

Under privacy a control variate costs nothing more: c_i is x - y plus what was known before, and
x - y is made of clipped gradients with noise alone (post-processing).
"""

import numpy as np
from numpy.typing import NDArray

from consilium.client.round.update import clip_update
from consilium.shared.errors import MessageError
from consilium.shared.study.training import Training

Control = NDArray[np.float64]


def parted(received: NDArray[np.float32], parameters: int) -> tuple[NDArray[np.float32], Control]:
    """Return weights (D,) and all sites' control variate (D,), of what a training round brings.

    Raises:
        MessageError: these are not two vectors of this size, or a control variate is not finite.
    """
    control_D = received[parameters:].astype(np.float64)
    if control_D.size != parameters or not np.isfinite(control_D).all():
        raise MessageError(
            f"a training round of this study brings {2 * parameters} finite numbers, weights and "
            f"control variates; {received.size} came, ask for the round again"
        )
    return received[:parameters], control_D


def correction(own_D: Control, all_D: Control, training: Training) -> NDArray[np.float32]:
    """Return what is added to each step's gradient, (c - c_i) in the paper's unit, shape (D,)."""
    scale = training.local_steps * training.learning_rate
    added_D: NDArray[np.float32] = ((all_D - own_D) / scale).astype(np.float32)
    return added_D


def renewed(own_D: Control, all_D: Control, moved_D: Control, norm: float) -> Control:
    """Return the site's control variate after a round (D,), of L2 norm at most ``norm``.

    ``moved_D`` is y - x, how far the round's steps went.

    Raises:
        EncodingError: it is not finite.
    """
    return clip_update(own_D - all_D - moved_D, norm)
