"""Runs any network that streams one step at a time, by kind; several together as their mean.

Plain NumPy and double precision, but for what only torch computes: the inputs of the linear path
and the running summaries, which are those of a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from consilium.client.explain.stepwise import RecurrentSteps
from consilium.shared.model.branch import Branch
from consilium.shared.model.convolution import ConvolutionModel
from consilium.shared.model.layers import Linear
from consilium.shared.model.linear_path import LinearModel, skip_inputs
from consilium.shared.model.mean_of_branches import MeanOfBranches
from consilium.shared.model.network import RecurrentModel
from consilium.shared.model.summary import RunningSummary, SummaryModel

Array = NDArray[np.float64]
State = Any  # what a network carries on: its Steps alone know what it is


class Steps(Protocol):
    """A network's weights, prepared for single steps."""

    def start(self, rows: int) -> State:
        """Return the state of so many rows before the first step; never None."""

    def step(self, before: State, x_NF: Array) -> tuple[State, Array]:
        """Return the state after a step with these inputs, and the logits (N, K) after it."""


def steps_of(model: Branch) -> Steps:
    """Return the steps of a network that streams."""
    for kind, made in KINDS:
        if isinstance(model, kind):
            return made(model)
    raise TypeError(f"no steps of {type(model).__name__}; add it to KINDS")


class LinearSteps:
    """Steps of a :class:`.LinearModel`; it carries nothing on."""

    def __init__(self, model: LinearModel) -> None:
        self._model, self._head = model, _Map(model.head)

    def start(self, rows: int) -> State:
        """See :class:`Steps`."""
        return rows

    def step(self, before: State, x_NF: Array) -> tuple[State, Array]:
        """See :class:`Steps`."""
        x = torch.from_numpy(x_NF[:, : self._model.measured])
        return before, self._head(skip_inputs(x, self._model.series).numpy())


class SummarySteps:
    """Steps of a :class:`.SummaryModel`; it carries on the number of steps and the summaries."""

    def __init__(self, model: SummaryModel) -> None:
        self._model, self._head = model, _Map(model.head)
        self._hidden = [_Map(layer) for layer in model.layers]

    def start(self, rows: int) -> State:
        """See :class:`Steps`."""
        return 0, RunningSummary.start(rows, self._model.series, self._model.static)

    def step(self, before: State, x_NF: Array) -> tuple[State, Array]:
        """See :class:`Steps`."""
        number, running = before
        now = running.after(torch.from_numpy(x_NF[:, : self._model.measured]), number)
        values: Array = now.read().numpy()
        for layer in self._hidden:
            values = np.maximum(layer(values), 0.0)
        return (number + 1, now), self._head(values)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Each layer's latest inputs (N, steps, I), the oldest first, and what comes after carries on.

    ``after`` is the recurrent network's state; without one, what the pooling needs.
    """

    inputs: tuple[Array, ...]
    steps: int
    after: Any


class ConvolutionSteps:
    """Steps of a :class:`.ConvolutionModel`; it carries on what its filters still look back at.

    Filters over a grid look back at nothing.
    """

    def __init__(self, model: ConvolutionModel) -> None:
        self._model = model
        self._layers = [_Map(layer) for layer in model.layers]
        self._recurrent = None if model.recurrent is None else steps_of(model.recurrent)
        self._head = _Map(model.output_layers[0])
        table = model.embedding
        self._table = None if table is None else table.weight.detach().double().numpy()

    def start(self, rows: int) -> State:
        """See :class:`Steps`."""
        after = 0.0 if self._recurrent is None else self._recurrent.start(rows)
        if self._model.rows:
            return _Seen(inputs=(), steps=0, after=after)
        back = self._model.kernel - 1
        inputs = tuple(
            np.zeros((rows, back * apart, layer.inputs // self._model.kernel))
            for layer, apart in zip(self._layers, self._model.apart, strict=True)
        )
        return _Seen(inputs=inputs, steps=0, after=after)

    def step(self, before: State, x_NF: Array) -> tuple[State, Array]:
        """See :class:`Steps`."""
        values = x_NF[:, : self._model.measured]
        if self._table is not None:
            code_NM = x_NF[:, self._model.measured :].astype(np.int64)
            vector_NMW = self._table[np.maximum(code_NM - 1, 0)] * (code_NM > 0)[:, :, None]
            values = np.concatenate([values, vector_NMW.sum(axis=1)], axis=1)
        kept: list[Array] = []
        if self._model.rows:
            of_step = torch.from_numpy(values).unsqueeze(1)
            maps = [layer.of_tensor for layer in self._layers]
            values = self._model.over_grid(of_step, maps)[:, 0].numpy()
        else:
            for layer, apart, old in zip(
                self._layers, self._model.apart, before.inputs, strict=True
            ):
                every = np.concatenate([old, values[:, None]], axis=1)
                kept.append(every[:, 1:])
                values = np.maximum(layer(every[:, ::apart].reshape(len(every), -1)), 0.0)
        after, logits_NK = self._after(before, values)
        return _Seen(inputs=tuple(kept), steps=before.steps + 1, after=after), logits_NK

    def _after(self, before: _Seen, values_NI: Array) -> tuple[Any, Array]:
        """Return what comes after the convolutions carries on, and the logits."""
        if self._recurrent is not None:
            return self._recurrent.step(before.after, values_NI)
        after = before.after
        if self._model.pooling == "mean":
            after = after + values_NI
            values_NI = after / (before.steps + 1)
        elif self._model.pooling == "max":
            after = values_NI = values_NI if before.steps == 0 else np.maximum(after, values_NI)
        return after, self._head(values_NI)


class BranchesSteps:
    """Steps of :class:`.MeanOfBranches`: those of each network."""

    def __init__(self, model: MeanOfBranches) -> None:
        self._model = model
        self._each = [steps_of(network) for network in model.networks]

    def start(self, rows: int) -> State:
        """See :class:`Steps`."""
        return tuple(each.start(rows) for each in self._each)

    def step(self, before: State, x_NF: Array) -> tuple[State, Array]:
        """See :class:`Steps`."""
        states, total = [], np.zeros(())
        for each, state, share, places in zip(
            self._each, before, self._model.shares, self._model.places, strict=True
        ):
            after, logits_NK = each.step(state, x_NF[:, places])
            states.append(after)
            total = total + share * logits_NK
        return tuple(states), total


class _Map:
    """A linear layer in double precision."""

    def __init__(self, layer: Linear) -> None:
        parts = [part.detach().double().numpy() for part in layer.parameters()]
        self._weight_IO, self._bias_O = parts[0].T.copy(), parts[1]
        self.inputs = len(self._weight_IO)

    def __call__(self, values_NI: Array) -> Array:
        result: Array = values_NI @ self._weight_IO + self._bias_O
        return result

    def of_tensor(self, values: torch.Tensor) -> torch.Tensor:
        """Apply it to a tensor's last axis."""
        return torch.from_numpy(self(values.numpy()))


KINDS: tuple[tuple[type[Branch], Callable[[Any], Steps]], ...] = (
    (RecurrentModel, RecurrentSteps),
    (LinearModel, LinearSteps),
    (SummaryModel, SummarySteps),
    (ConvolutionModel, ConvolutionSteps),
    (MeanOfBranches, BranchesSteps),
)
