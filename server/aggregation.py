"""The server's step: mean update of a round -> next global weights.

The mean update is treated as a negative gradient (Reddi et al., "Adaptive Federated Optimization",
ICLR 2021, algorithm 2), so FedAvg, FedAvgM, FedAdagrad, FedAdam and FedYogi differ only in the step
they take. Moments begin at zero and, where they decay, are corrected for it as Adam's are.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from shared.study import Aggregation

FLOAT = np.float64


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """Global weights and the server optimiser's memory; D is the number of parameters.

    ``weights_D`` are the weights that sites train from; ``average_D`` is their exponential moving
    average, equal to ``weights_D`` when the study does not ask for averaging. ``control_D`` is the
    mean of the sites' control variates (:mod:`client.control_variates`), empty before the first.
    """

    weights_D: NDArray[np.float32]
    average_D: NDArray[np.float64]
    momentum_D: NDArray[np.float64]
    second_moment_D: NDArray[np.float64]
    control_D: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    steps: int = 0

    @property
    def model_weights(self) -> NDArray[np.float32]:
        """Weights to evaluate and to hand out: the moving average, shape (D,)."""
        return self.average_D.astype(np.float32)


def start(weights_D: NDArray[np.float32]) -> ServerState:
    """Return the state before the first update."""
    zeros_D = np.zeros(weights_D.size, dtype=FLOAT)
    return ServerState(
        weights_D=weights_D.astype(np.float32),
        average_D=weights_D.astype(FLOAT),
        momentum_D=zeros_D,
        second_moment_D=zeros_D,
    )


def apply(state: ServerState, mean_update_D: NDArray[np.float64], how: Aggregation) -> ServerState:
    """Return the state after one step along the mean update.

    Args:
        state: before the step.
        mean_update_D: weighted mean of the sites' weight differences.
        how: the study's ``[aggregation]`` table.
    """
    momentum_D, second_D, step_D = state.momentum_D, state.second_moment_D, mean_update_D
    if how.strategy == "fedavgm":
        momentum_D = how.momentum * momentum_D + mean_update_D
        step_D = momentum_D
    elif how.strategy in ("fedadagrad", "fedadam", "fedyogi"):
        momentum_D = how.momentum * momentum_D + (1 - how.momentum) * mean_update_D
        second_D = _second_moment(second_D, mean_update_D, how)
        step = state.steps + 1
        corrected_D = momentum_D / (1 - how.momentum**step)
        variance_D = second_D
        if how.strategy != "fedadagrad":  # whose sum of squares does not decay
            variance_D = second_D / (1 - how.second_moment**step)
        step_D = corrected_D / (np.sqrt(variance_D) + how.adaptivity)
    weights_D = (state.weights_D + how.server_learning_rate * step_D).astype(np.float32)
    return replace(
        state,
        weights_D=weights_D,
        average_D=_moving_average(state, weights_D, how.average_decay),
        momentum_D=momentum_D,
        second_moment_D=second_D,
        steps=state.steps + 1,
    )


def across_groups(mean_update_GD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coordinate-wise median of the groups' mean updates, shape (D,).

    Fewer than half of the groups, whatever they send, cannot move a coordinate beyond what the
    others sent (Yin et al., ICML 2018, algorithm 1, option I).
    """
    return np.asarray(np.median(mean_update_GD, axis=0))


def _second_moment(
    second_D: NDArray[np.float64], update_D: NDArray[np.float64], how: Aggregation
) -> NDArray[np.float64]:
    square_D = update_D**2
    if how.strategy == "fedadagrad":
        return second_D + square_D
    if how.strategy == "fedyogi":
        return second_D - (1 - how.second_moment) * square_D * np.sign(second_D - square_D)
    return how.second_moment * second_D + (1 - how.second_moment) * square_D


def _moving_average(
    state: ServerState, weights_D: NDArray[np.float32], decay: float
) -> NDArray[np.float64]:
    """Moving average whose decay warms up, so that early weights do not linger."""
    step = state.steps + 1
    warm = min(decay, step / (step + 10))
    return warm * state.average_D + (1 - warm) * weights_D
