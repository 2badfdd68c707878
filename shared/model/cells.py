"""Forward and backward through time of the recurrent cells in plain PyTorch, on any device.

Each forward takes the whole sequence, each backward returns the gate gradients ("deltas") of every
step and forms no weight gradient: what to do with the deltas is the caller's business. The
equations are those of ``torch.nn.RNN``, ``LSTM`` and ``GRU`` (same gate order, two bias vectors).

Everything here is time-major. ``keep_TN1`` is 1 where a step counts and 0 where it is padding; a
padded step leaves the state unchanged. ``None`` means that every step counts.

``alone`` asks that no row's numbers depend on the other rows
(:mod:`consilium.shared.kernels.rows`).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from consilium.shared.kernels.exact_product import SplitWeight, exact_product
from consilium.shared.kernels.rows import Factor, multiply_rows, prepared

CellName = Literal["rnn", "lstm", "gru"]
GATES: dict[CellName, int] = {"rnn": 1, "lstm": 4, "gru": 3}


class CellWeights(NamedTuple):
    """One direction of one layer, in torch's layout: (G, I), (G, H), (G,), (G,)."""

    input_GI: Tensor
    hidden_GH: Tensor
    input_bias_G: Tensor
    hidden_bias_G: Tensor


@dataclass(frozen=True, kw_only=True)
class CellTrace:
    """What a forward leaves for the backward.

    ``states`` holds T + 1 states, the zero state first; ``gates_TNG`` are the activated gates.
    ``beside`` is the LSTM's memory (T + 1, N, H), zero first, or the GRU's candidate's hidden part
    (T, N, H) before the reset gate; the RNN needs neither and repeats its states.
    """

    states: Tensor
    gates_TNG: Tensor
    beside: Tensor


@dataclass(frozen=True, kw_only=True)
class Deltas:
    """Gradients at the gates' pre-activations: as the inputs saw them, as the states saw them.

    Both are (T, N, G); for RNN and LSTM they are the same tensor.
    """

    input_TNG: Tensor
    hidden_TNG: Tensor

    @property
    def are_one(self) -> bool:
        """Whether inputs and states saw the same."""
        return self.input_TNG is self.hidden_TNG

    def of_rows(self, rows: int) -> "Deltas":
        """Return those of the first rows."""
        if rows == self.input_TNG.shape[1]:
            return self
        by_input = self.input_TNG[:, :rows]
        by_hidden = by_input if self.are_one else self.hidden_TNG[:, :rows]
        return Deltas(input_TNG=by_input, hidden_TNG=by_hidden)


def forward(
    cell: CellName,
    x_TNI: Tensor,
    weights: CellWeights,
    keep_TN1: Tensor | None,
    *,
    alone: bool = False,
) -> CellTrace:
    """Run one direction over all steps from a zero state."""
    run = {"rnn": _rnn_forward, "lstm": _lstm_forward, "gru": _gru_forward}[cell]
    return run(x_TNI, weights, keep_TN1, alone)


def backward(
    cell: CellName,
    trace: CellTrace,
    weights: CellWeights,
    keep_TN1: Tensor | None,
    grad_TNH: Tensor,
    *,
    alone: bool = False,
) -> Deltas:
    """Return the deltas of every step, given the loss gradient of every output state.

    The trace is used up: its gates may become the deltas.
    """
    run = {"rnn": _rnn_backward, "lstm": _lstm_backward, "gru": _gru_backward}[cell]
    return run(trace, weights, keep_TN1, grad_TNH, alone)


def factor(weight_IO: Tensor, alone: bool) -> Factor:
    """The weight in the form that is cheapest for a product at every step."""
    return prepared(weight_IO) if alone else weight_IO


def times(x_NI: Tensor, weight_IO: Factor, alone: bool) -> Tensor:
    """The product (N, O)."""
    if alone or isinstance(weight_IO, SplitWeight):
        return multiply_rows(x_NI, weight_IO)
    return x_NI @ weight_IO


def add_times(begun_NO: Tensor, x_NI: Tensor, weight_IO: Factor, alone: bool) -> Tensor:
    """``begun_NO``, which may be one row for all, plus the product."""
    if isinstance(weight_IO, SplitWeight):
        return exact_product(x_NI, weight_IO, begun_NO)
    if alone:
        return multiply_rows(x_NI, weight_IO) + begun_NO
    return torch.addmm(begun_NO, x_NI, weight_IO)


def project(x_TNI: Tensor, weight_GI: Tensor, bias_G: Tensor, alone: bool) -> Tensor:
    """All steps' input projections (T, N, G) in one product."""
    steps, rows, inputs = x_TNI.shape
    flat = add_times(bias_G, x_TNI.reshape(steps * rows, inputs), weight_GI.t(), alone)
    return flat.view(steps, rows, len(weight_GI))


def _zero_first(x_TNI: Tensor, hidden: int) -> Tensor:
    """Space for T + 1 states with the zero state in front."""
    states = x_TNI.new_empty(x_TNI.shape[0] + 1, x_TNI.shape[1], hidden)
    states[0].zero_()
    return states


def _hold(new_NH: Tensor, old_NH: Tensor, keep_N1: Tensor) -> None:
    """Write the old state over the new one where the step is padding."""
    torch.lerp(old_NH, new_NH, keep_N1, out=new_NH)


def _rnn_forward(
    x_TNI: Tensor, weights: CellWeights, keep_TN1: Tensor | None, alone: bool
) -> CellTrace:
    bias_G = weights.input_bias_G + weights.hidden_bias_G
    pre_TNG = project(x_TNI, weights.input_GI, bias_G, alone)
    states = _zero_first(x_TNI, weights.hidden_GH.shape[1])
    recurrent = factor(weights.hidden_GH.t(), alone)
    for t in range(len(pre_TNG)):
        states[t + 1] = add_times(pre_TNG[t], states[t], recurrent, alone)
        new = states[t + 1].tanh_()
        if keep_TN1 is not None:
            _hold(new, states[t], keep_TN1[t])
    return CellTrace(states=states, gates_TNG=states[1:], beside=states)


def _rnn_backward(
    trace: CellTrace,
    weights: CellWeights,
    keep_TN1: Tensor | None,
    grad_TNH: Tensor,
    alone: bool,
) -> Deltas:
    deltas = 1 - trace.gates_TNG.square()
    if keep_TN1 is not None:
        deltas.mul_(keep_TN1)
    carried = torch.zeros_like(grad_TNH[0])
    hidden_GH = factor(weights.hidden_GH, alone)
    for t in reversed(range(len(grad_TNH))):
        total = carried.add_(grad_TNH[t])
        deltas[t].mul_(total)
        keep_N1 = None if keep_TN1 is None else keep_TN1[t]
        carried = _carry(total, deltas[t], hidden_GH, keep_N1, alone)
    return Deltas(input_TNG=deltas, hidden_TNG=deltas)


def _carry(
    total_NH: Tensor, delta_NG: Tensor, hidden_GH: Factor, keep_N1: Tensor | None, alone: bool
) -> Tensor:
    """Gradient of the state before a step: through the gates, or past a padded step."""
    if keep_N1 is None:
        return times(delta_NG, hidden_GH, alone)
    return add_times(total_NH.mul_(1 - keep_N1), delta_NG, hidden_GH, alone)


def _lstm_forward(
    x_TNI: Tensor, weights: CellWeights, keep_TN1: Tensor | None, alone: bool
) -> CellTrace:
    size = weights.hidden_GH.shape[1]
    bias_G = weights.input_bias_G + weights.hidden_bias_G
    gates = project(x_TNI, weights.input_GI, bias_G, alone)
    states, memory = _zero_first(x_TNI, size), _zero_first(x_TNI, size)
    recurrent = factor(weights.hidden_GH.t(), alone)
    for t in range(len(gates)):
        gates[t] = add_times(gates[t], states[t], recurrent, alone)
        gates_NG = gates[t]
        gates_NG[:, : 2 * size].sigmoid_()
        gates_NG[:, 2 * size : 3 * size].tanh_()
        gates_NG[:, 3 * size :].sigmoid_()
        write, forget, candidate, read = gates_NG.chunk(4, dim=1)
        new = torch.mul(forget, memory[t], out=memory[t + 1]).addcmul_(write, candidate)
        torch.tanh(new, out=states[t + 1]).mul_(read)
        if keep_TN1 is not None:
            _hold(memory[t + 1], memory[t], keep_TN1[t])
            _hold(states[t + 1], states[t], keep_TN1[t])
    return CellTrace(states=states, gates_TNG=gates, beside=memory)


def _lstm_backward(
    trace: CellTrace,
    weights: CellWeights,
    keep_TN1: Tensor | None,
    grad_TNH: Tensor,
    alone: bool,
) -> Deltas:
    steps, rows, size = grad_TNH.shape
    write, forget, candidate, read = trace.gates_TNG.chunk(4, dim=2)
    before, squashed = trace.beside[:-1], trace.beside[1:].tanh()
    # Everything that does not depend on the running gradients, for all steps at once.
    deltas = trace.gates_TNG.new_empty(steps, rows, 4, size)
    torch.mul(candidate, _sigmoid_slope(write), out=deltas[:, :, 0])
    torch.mul(before, _sigmoid_slope(forget), out=deltas[:, :, 1])
    torch.mul(write, 1 - candidate.square(), out=deltas[:, :, 2])
    torch.mul(squashed, _sigmoid_slope(read), out=deltas[:, :, 3])
    into_memory = read * (1 - squashed.square())
    through = forget
    if keep_TN1 is not None:
        deltas.mul_(keep_TN1.unsqueeze(-1))
        into_memory.mul_(keep_TN1)
        through = torch.lerp(torch.ones_like(forget), forget, keep_TN1)
    carried, memory_grad = grad_TNH.new_zeros(rows, size), grad_TNH.new_zeros(rows, size)
    hidden_GH = factor(weights.hidden_GH, alone)
    for t in reversed(range(steps)):
        total = carried.add_(grad_TNH[t])
        memory_grad.addcmul_(total, into_memory[t])
        deltas[t, :, :3].mul_(memory_grad.unsqueeze(1))
        deltas[t, :, 3].mul_(total)
        memory_grad.mul_(through[t])
        delta_NG = deltas[t].view(rows, 4 * size)
        keep_N1 = None if keep_TN1 is None else keep_TN1[t]
        carried = _carry(total, delta_NG, hidden_GH, keep_N1, alone)
    flat = deltas.view(steps, rows, 4 * size)
    return Deltas(input_TNG=flat, hidden_TNG=flat)


def _gru_forward(
    x_TNI: Tensor, weights: CellWeights, keep_TN1: Tensor | None, alone: bool
) -> CellTrace:
    size = weights.hidden_GH.shape[1]
    gates = project(x_TNI, weights.input_GI, weights.input_bias_G, alone)
    states = _zero_first(x_TNI, size)
    hidden_part = x_TNI.new_empty(len(gates), x_TNI.shape[1], size)
    recurrent, bias_G = factor(weights.hidden_GH.t(), alone), weights.hidden_bias_G
    for t in range(len(gates)):
        hidden_NG = add_times(bias_G, states[t], recurrent, alone)
        hidden_part[t] = hidden_NG[:, 2 * size :]
        gates[t, :, : 2 * size].add_(hidden_NG[:, : 2 * size]).sigmoid_()
        reset, update, candidate = gates[t].chunk(3, dim=1)
        candidate.addcmul_(reset, hidden_part[t]).tanh_()
        torch.lerp(candidate, states[t], update, out=states[t + 1])
        if keep_TN1 is not None:
            _hold(states[t + 1], states[t], keep_TN1[t])
    return CellTrace(states=states, gates_TNG=gates, beside=hidden_part)


def _gru_backward(
    trace: CellTrace,
    weights: CellWeights,
    keep_TN1: Tensor | None,
    grad_TNH: Tensor,
    alone: bool,
) -> Deltas:
    steps, rows, size = grad_TNH.shape
    reset, update, candidate = trace.gates_TNG.chunk(3, dim=2)
    # Every delta is the running state gradient times a factor known beforehand.
    input_deltas = trace.gates_TNG.new_empty(steps, rows, 3, size)
    into_candidate = (1 - update) * (1 - candidate.square())
    input_deltas[:, :, 2] = into_candidate
    torch.mul(into_candidate * trace.beside, _sigmoid_slope(reset), out=input_deltas[:, :, 0])
    torch.mul(trace.states[:-1] - candidate, _sigmoid_slope(update), out=input_deltas[:, :, 1])
    through = update
    if keep_TN1 is not None:
        input_deltas.mul_(keep_TN1.unsqueeze(-1))
        through = torch.lerp(torch.ones_like(update), update, keep_TN1)
    hidden_deltas = input_deltas.clone()
    hidden_deltas[:, :, 2].mul_(reset)
    totals = torch.empty_like(grad_TNH)
    carried = grad_TNH.new_zeros(rows, size)
    hidden_GH = factor(weights.hidden_GH, alone)
    for t in reversed(range(steps)):
        total = torch.add(carried, grad_TNH[t], out=totals[t])
        hidden_deltas[t].mul_(total.unsqueeze(1))
        delta_NG = hidden_deltas[t].view(rows, 3 * size)
        carried = add_times(total * through[t], delta_NG, hidden_GH, alone)
    input_deltas.mul_(totals.unsqueeze(2))
    return Deltas(
        input_TNG=input_deltas.view(steps, rows, 3 * size),
        hidden_TNG=hidden_deltas.view(steps, rows, 3 * size),
    )


def _sigmoid_slope(activated: Tensor) -> Tensor:
    """Derivative of the sigmoid in terms of its own value."""
    return activated * (1 - activated)
