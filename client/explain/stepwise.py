"""Runs a recurrent network one step at a time: the state is carried on, the past is not kept.

The results equal those of :class:`consilium.shared.model.network.RecurrentModel` on all steps so
far, to rounding; they are computed in double precision and plain NumPy, which is fastest for one
step of a few rows. The cells' equations and gate orders are those of
:mod:`consilium.shared.model.cells`. Attention is carried on too: its softmax over the steps so far
is kept as a running maximum, weight and weighted sum (Milakov and Gimelshein, "Online normalizer
calculation for softmax", arXiv:1805.02867).

The rows of a batch are the stay, then the stay without each column.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from consilium.shared.model.gru_d import GRUD, LONGEST
from consilium.shared.model.linear_path import skip_inputs
from consilium.shared.model.network import RecurrentModel

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class StepState:
    """State of N rows between two steps.

    Attributes:
        states: for each layer h (N, H), and for an LSTM also c (N, H).
        steps: number of steps so far.
        pooled: (N, H) for pooling by mean the sum of the states, by max their maximum, by attention
            their weighted sum; None otherwise.
        top_N1: largest attention score so far; ``weight_N1`` is the sum of weights relative to it.
    """

    states: tuple[tuple[Array, ...], ...]
    steps: int = 0
    pooled: Array | None = None
    top_N1: Array | None = None
    weight_N1: Array | None = None


class RecurrentSteps:
    """A unidirectional network's weights, prepared for single steps; see :class:`.Steps`.

    Raises:
        ValueError: the model also runs backwards.
    """

    def __init__(self, model: RecurrentModel) -> None:
        if not model.streams:
            raise ValueError("a bidirectional model reads the whole window at once")
        self._w = {
            name: np.ascontiguousarray(value.detach().double().numpy())
            for name, value in model.state_dict().items()
        }
        self._model = model
        self._layers = [
            (
                self._w[f"recurrent.weight_ih_l{layer}"].T.copy(),
                self._w[f"recurrent.weight_hh_l{layer}"].T.copy(),
                self._w[f"recurrent.bias_ih_l{layer}"],
                self._w[f"recurrent.bias_hh_l{layer}"],
            )
            for layer in range(model.recurrent.layers)
        ]

    def start(self, rows: int) -> StepState:
        """Return the state before the first step."""
        model = self._model.recurrent
        parts = 2 if model.cell == "lstm" else 1
        return StepState(states=((np.zeros((rows, model.hidden)),) * parts,) * model.layers)

    def step(self, before: StepState, x_NF: Array) -> tuple[StepState, Array]:
        """Return the state after a step with these inputs, and the logits (N, K) after it."""
        values_NI, old, states = self._inputs(x_NF), before.states, []
        if isinstance(self._model.recurrent, GRUD):
            values_NI, old = self._decayed(values_NI, old, self._model.recurrent.series)
        run = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}[self._model.recurrent.cell]
        for state, weights in zip(old, self._layers, strict=True):
            state = run(values_NI, state, weights)
            states.append(state)
            values_NI = state[0]
        after, pooled_NH = self._pool(before, values_NI)
        carried = StepState(
            states=tuple(states),
            steps=before.steps + 1,
            pooled=after[0],
            top_N1=after[1],
            weight_N1=after[2],
        )
        return carried, self._outputs(pooled_NH, x_NF)

    def _inputs(self, x_NF: Array) -> Array:
        """Return the first layer's inputs: projected measurements, and the vectors of codes."""
        model = self._model
        measured = x_NF[:, : model.measured]
        if model.projection is not None:
            measured = measured @ self._w["projection.weight"].T + self._w["projection.bias"]
        if model.embedding is None:
            return measured
        code_NM = x_NF[:, model.measured :].astype(np.int64)
        vector_NMW = self._w["embedding.weight"][np.maximum(code_NM - 1, 0)]
        summed = (vector_NMW * (code_NM > 0)[:, :, None]).sum(axis=1)
        return np.concatenate([measured, summed], axis=1)

    def _decayed(
        self, x_NI: Array, states: tuple[tuple[Array, ...], ...], series: int
    ) -> tuple[Array, tuple[tuple[Array, ...], ...]]:
        """Return a GRU-D's decayed inputs and states (``shared/model/gru_d.py``)."""
        value, measured, recency = np.split(x_NI[:, : 3 * series], 3, axis=1)
        age_NV = -np.log(np.clip(recency, np.exp(-LONGEST), 1.0))
        rate_NV = self._w["recurrent.input_decay.weight"] * age_NV
        left_NV = np.exp(-np.maximum(rate_NV + self._w["recurrent.input_decay.bias"], 0.0))
        faded = value * np.where(measured > 0, 1.0, left_NV)
        rate_NH = age_NV @ self._w["recurrent.hidden_decay.weight"].T
        left_NH = np.exp(-np.maximum(rate_NH + self._w["recurrent.hidden_decay.bias"], 0.0))
        ((h_NH,),) = states
        return np.concatenate([faded, x_NI[:, series:]], axis=1), ((left_NH * h_NH,),)

    def _pool(
        self, before: StepState, h_NH: Array
    ) -> tuple[tuple[Array | None, Array | None, Array | None], Array]:
        """Return what the pooling carries on, and the pooled value after this step."""
        kind, old = self._model.pooling, before.pooled
        if kind == "mean":
            total = h_NH if old is None else old + h_NH
            return (total, None, None), total / (before.steps + 1)
        if kind == "max":
            most = h_NH if old is None else np.maximum(old, h_NH)
            return (most, None, None), most
        if kind != "attention":
            return (None, None, None), h_NH
        key_NH = h_NH @ self._w["attention.key.weight"].T + self._w["attention.key.bias"]
        score_N1 = np.tanh(key_NH) @ self._w["attention.query.weight"].T
        if old is None or before.top_N1 is None or before.weight_N1 is None:
            return (h_NH, score_N1, np.ones_like(score_N1)), h_NH
        top_N1 = np.maximum(before.top_N1, score_N1)
        fade_N1, own_N1 = np.exp(before.top_N1 - top_N1), np.exp(score_N1 - top_N1)
        weight_N1 = fade_N1 * before.weight_N1 + own_N1
        total = fade_N1 * old + own_N1 * h_NH
        return (total, top_N1, weight_N1), total / weight_N1

    def _outputs(self, pooled_NH: Array, x_NF: Array) -> Array:
        model = self._model
        if model.norm is not None:
            away = pooled_NH - pooled_NH.mean(axis=1, keepdims=True)
            spread = np.sqrt((away**2).mean(axis=1, keepdims=True) + model.norm.epsilon)
            pooled_NH = away / spread * self._w["norm.weight"] + self._w["norm.bias"]
        logits_NK = pooled_NH @ self._w["head.weight"].T + self._w["head.bias"]
        if model.skip is not None:
            measured = torch.from_numpy(x_NF[:, : model.measured])
            read_NI = skip_inputs(measured, model.series).numpy()
            logits_NK = logits_NK + read_NI @ self._w["skip.weight"].T
        return cast(Array, logits_NK)


def _rnn(x_NI: Array, state: tuple[Array, ...], weights: tuple[Array, ...]) -> tuple[Array, ...]:
    ih, hh, bias_ih, bias_hh = weights
    return (np.tanh(x_NI @ ih + state[0] @ hh + (bias_ih + bias_hh)),)


def _lstm(x_NI: Array, state: tuple[Array, ...], weights: tuple[Array, ...]) -> tuple[Array, ...]:
    ih, hh, bias_ih, bias_hh = weights
    h, c = state
    i, f, g, o = np.split(x_NI @ ih + h @ hh + (bias_ih + bias_hh), 4, axis=1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru(x_NI: Array, state: tuple[Array, ...], weights: tuple[Array, ...]) -> tuple[Array, ...]:
    ih, hh, bias_ih, bias_hh = weights
    (h,) = state
    by_input = np.split(x_NI @ ih + bias_ih, 3, axis=1)
    by_state = np.split(h @ hh + bias_hh, 3, axis=1)
    reset, update = (_sigmoid(by_input[k] + by_state[k]) for k in (0, 1))
    new = np.tanh(by_input[2] + reset * by_state[2])
    return (new + update * (h - new),)


def _sigmoid(x: Any) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # type: ignore[no-any-return]  # of arrays, an array
