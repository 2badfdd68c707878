"""The server's step: mean update of a round -> next global weights.

The mean update is treated as a negative gradient (Reddi et al., "Adaptive Federated Optimization",
ICLR 2021, algorithm 2), so FedAvg, FedAvgM, FedAdagrad, FedAdam and FedYogi differ only in the step
they take. Moments begin at zero; those that decay are corrected for that, as in Adam.

Vectors are as long as the model, so only those that the strategy needs are kept, and a step works
on one span of coordinates after another: beyond the new vectors it needs almost no memory.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from consilium.shared.study.definition import AVERAGE_RAMP
from consilium.shared.study.rounds import Aggregation

FLOAT = np.float64
SPAN = 1 << 17
"""Coordinates of one step: 1 MiB of float64, which stays in the cache."""

_VECTORS = ("weights_D", "average_D", "momentum_D", "second_moment_D")


class Spans(Protocol):
    """A vector that is read span by span: an array, or an object that computes each span.

    Attributes:
        size: number of coordinates.
    """

    @property
    def size(self) -> int:
        """Number of coordinates."""

    def __getitem__(self, span: slice, /) -> NDArray[Any]:
        """The coordinates of a span."""


def _empty() -> NDArray[np.float64]:
    return np.empty(0, FLOAT)


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """Global weights and the server optimiser's memory; D is the number of parameters.

    ``weights_D`` are the weights that sites train from; ``average_D`` is their exponential moving
    average. ``control_D`` is the mean of the sites' control variates
    (:mod:`consilium.client.round.control_variates`), empty before the first. A vector that is not
    needed, or not yet, is empty; an empty average equals the weights, an empty moment is zero.
    """

    weights_D: NDArray[np.float32]
    average_D: NDArray[np.float64] = field(default_factory=_empty)
    momentum_D: NDArray[np.float64] = field(default_factory=_empty)
    second_moment_D: NDArray[np.float64] = field(default_factory=_empty)
    control_D: NDArray[np.float64] = field(default_factory=_empty)
    steps: int = 0

    @property
    def model_weights(self) -> NDArray[np.float32]:
        """Weights to evaluate and to hand out: the moving average, shape (D,)."""
        return self.average_D.astype(np.float32) if self.average_D.size else self.weights_D


def start(weights_D: NDArray[np.float32]) -> ServerState:
    """Return the state before the first update."""
    return ServerState(weights_D=weights_D.astype(np.float32, copy=False))


def apply(
    state: ServerState,
    mean_update_D: Spans,
    how: Aggregation,
    *,
    ramp: float = AVERAGE_RAMP,
    into_D: NDArray[np.float32] | None = None,
) -> ServerState:
    """Return the state after one step along the mean update.

    Args:
        state: before the step.
        mean_update_D: weighted mean of the sites' weight differences.
        how: the study's ``[aggregation]`` table.
        ramp: the study's :attr:`~consilium.shared.study.definition.Study.average_ramp`.
        into_D: gets the new weights; may be the memory that the mean update is computed from, as
            each span is read before it is written.
    """
    state = _filled(state, how)
    after: dict[str, NDArray[Any]] = {
        "weights_D": np.empty_like(state.weights_D) if into_D is None else into_D,
        **{name: np.empty_like(getattr(state, name)) for name in _VECTORS[1:]},
    }
    for first in range(0, state.weights_D.size, SPAN):
        span = slice(first, first + SPAN)
        before = replace(state, **{name: getattr(state, name)[span] for name in _VECTORS})
        stepped = _step(before, mean_update_D[span], how, ramp)
        for name, vector_D in after.items():
            vector_D[span] = getattr(stepped, name)
    return replace(state, **after, steps=state.steps + 1)


def _filled(state: ServerState, how: Aggregation) -> ServerState:
    """Return the state with the vectors that the strategy needs, and without the others."""
    size = state.weights_D.size

    def moment(known_D: NDArray[np.float64], *, needed: bool) -> NDArray[np.float64]:
        return _empty() if not needed else known_D if known_D.size else np.zeros(size)

    average_D = state.average_D if how.average_decay else _empty()
    if how.average_decay and not average_D.size:
        average_D = state.weights_D.astype(FLOAT)
    return replace(
        state,
        average_D=average_D,
        momentum_D=moment(state.momentum_D, needed=how.strategy != "fedavg"),
        second_moment_D=moment(
            state.second_moment_D, needed=how.strategy not in ("fedavg", "fedavgm")
        ),
    )


def _step(
    state: ServerState, mean_update_D: NDArray[Any], how: Aggregation, ramp: float
) -> ServerState:
    """Take the step on one span of coordinates."""
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
        if how.strategy != "fedadagrad":  # FedAdagrad's sum of squares does not decay
            variance_D = second_D / (1 - how.second_moment**step)
        step_D = corrected_D / (np.sqrt(variance_D) + how.adaptivity)
    weights_D = (state.weights_D + how.server_learning_rate * step_D).astype(np.float32)
    return replace(
        state,
        weights_D=weights_D,
        average_D=_moving_average(state, weights_D, how.average_decay, ramp),
        momentum_D=momentum_D,
        second_moment_D=second_D,
        steps=state.steps + 1,
    )


def shifted(state: ServerState, at: tuple[NDArray[np.int64], NDArray[np.float32]]) -> ServerState:
    """Return the state with numbers (n,) added at places (n,) of the weights and their average."""
    places, added = at
    weights_D, average_D = state.weights_D.copy(), state.average_D.copy()
    weights_D[places] += added
    if average_D.size:
        average_D[places] += added
    return replace(state, weights_D=weights_D, average_D=average_D)


def across_groups(mean_updates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coordinate-wise median of the groups' mean updates, shape (D,).

    Guarantee: fewer than half of the groups, whatever they send, cannot move a coordinate beyond
    the range of what the others sent (Yin et al., ICML 2018, algorithm 1, option I).
    """
    return np.asarray(np.median(mean_updates, axis=0))


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
    state: ServerState, weights_D: NDArray[np.float32], decay: float, ramp: float
) -> NDArray[np.float64]:
    """Return the moving average; its decay grows from a low value, to forget early weights soon."""
    if not state.average_D.size:
        return state.average_D
    step = state.steps + 1
    warm = min(decay, step / (step + ramp))
    return warm * state.average_D + (1 - warm) * weights_D
