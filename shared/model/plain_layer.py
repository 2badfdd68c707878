"""One recurrent layer in plain PyTorch, on any device and in any precision: its node of the graph.

The same numbers as :mod:`consilium.shared.model.compiled_layer`, to rounding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from consilium.shared.model import cells
from consilium.shared.model.bookkeeping import Bookkeeping, Outer
from consilium.shared.model.graphics_card import Processor
from consilium.shared.model.layers import row_by_row


@dataclass(frozen=True)
class _Direction:
    """What a direction's forward leaves for its backward; time runs as the direction does."""

    parameters: tuple[Parameter, ...]
    weights: cells.CellWeights
    x_TNI: Tensor
    keep_TN1: Tensor | None
    trace: cells.CellTrace


class _PlainLayer(torch.autograd.Function):
    """All directions of a layer as one node of the graph, batch-major outside."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: cells.CellName,
        books: Bookkeeping | None,
        alone: bool,
        place: Processor,
        keep_NT: Tensor | None,
        x_NTI: Tensor,
        *parameters: Parameter,
    ) -> Tensor:
        x_TNI = place.take(x_NTI.detach())
        keep_TN1 = None if keep_NT is None else place.take(keep_NT.unsqueeze(2))
        directions, states = [], []
        for first in range(0, len(parameters), 4):
            if first:
                x_TNI, keep_TN1 = x_TNI.flip(0), None if keep_TN1 is None else keep_TN1.flip(0)
            own = parameters[first : first + 4]
            weights = place.weights(own)
            trace = place.forward(cell, x_TNI, weights, keep_TN1, alone=alone)
            directions.append(_Direction(own, weights, x_TNI, keep_TN1, trace))
            states.append(trace.states[1:].flip(0) if first else trace.states[1:])
        ctx.cell, ctx.books, ctx.alone, ctx.place = cell, books, alone, place
        ctx.directions = directions
        return place.give(states[0] if len(states) == 1 else torch.cat(states, dim=2), len(x_NTI))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NTH: Tensor) -> tuple[Tensor | None, ...]:
        rows, place, directions = len(grad_NTH), ctx.place, ctx.directions
        ctx.directions = None  # used up: a second backward fails instead of reading deltas as gates
        gradients: list[Tensor | None] = []
        grad_x = None
        grads = place.take(grad_NTH).chunk(len(directions), dim=2)
        for number, (one, grad_TNH) in enumerate(zip(directions, grads, strict=True)):
            grad_TNH = (grad_TNH.flip(0) if number else grad_TNH).contiguous()
            deltas = place.backward(
                ctx.cell, one.trace, one.weights, one.keep_TN1, grad_TNH, alone=ctx.alone
            )
            if ctx.needs_input_grad[5]:
                by_x = cells.times(deltas.input_TNG, one.weights.input_GI, ctx.alone)
                grad_x = by_x if grad_x is None else grad_x + by_x.flip(0)
            deltas = deltas.of_rows(rows)
            x_TNI, before_TNH = one.x_TNI[:, :rows], one.trace.states[:-1, :rows]
            if ctx.books is None:
                gradients += place.gradients(weight_gradients(deltas, x_TNI, before_TNH))
            else:
                for record in records(one.parameters, deltas, x_TNI, before_TNH):
                    ctx.books.file(place.record(record))
                gradients += [None] * 4
        grad_x = None if grad_x is None else place.give(grad_x, rows)
        return None, None, None, None, None, grad_x, *gradients


def run_plain_layer(
    place: Processor,
    cell: cells.CellName,
    books: Bookkeeping | None,
    keep_NT: Tensor | None,
    x_NTI: Tensor,
    directions: list[tuple[Parameter, ...]],
) -> Tensor:
    """``compiled_layer.run_layer`` in plain PyTorch, computed at ``place``."""
    parameters = [parameter for weights in directions for parameter in weights]
    states: Tensor = _PlainLayer.apply(  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        cell, books, row_by_row(books), place, keep_NT, x_NTI, *parameters
    )
    return states


def weight_gradients(deltas: cells.Deltas, x_TNI: Tensor, before_TNH: Tensor) -> tuple[Tensor, ...]:
    """Ordinary gradients of both weights and both biases, summed over rows and steps."""
    by_input, by_hidden = deltas.input_TNG.flatten(0, 1), deltas.hidden_TNG.flatten(0, 1)
    return (
        by_input.t() @ x_TNI.flatten(0, 1),
        by_hidden.t() @ before_TNH.flatten(0, 1),
        by_input.sum(0),
        by_hidden.sum(0),
    )


def records(
    parameters: tuple[Parameter, ...], deltas: cells.Deltas, x_TNI: Tensor, before_TNH: Tensor
) -> list[Outer]:
    """Return one record, or two where inputs and states saw different deltas (GRU)."""
    input_weight, hidden_weight, input_bias, hidden_bias = parameters
    of_input = (input_weight, x_TNI.transpose(0, 1))
    of_hidden = (hidden_weight, before_TNH.transpose(0, 1))
    by_input, by_hidden = deltas.input_TNG.transpose(0, 1), deltas.hidden_TNG.transpose(0, 1)
    if deltas.are_one:
        return [Outer(by_input, (of_input, of_hidden), (input_bias, hidden_bias))]
    return [
        Outer(by_input, (of_input,), (input_bias,)),
        Outer(by_hidden, (of_hidden,), (hidden_bias,)),
    ]
