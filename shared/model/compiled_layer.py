"""One recurrent layer in the compiled kernel: its node of the graph, and its record in the books.

The same numbers as :mod:`consilium.shared.model.cells` with
:class:`~consilium.shared.model.bookkeeping.Outer`, to rounding.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from consilium.shared.kernels.through_time import Direction, PatientRows
from consilium.shared.model.bookkeeping import Bookkeeping, Groups

STORED_ALWAYS = 1 << 20  # numbers (4 MiB) of patients' gradients that are kept whatever it saves
STORED_AT_MOST = 1 << 23  # numbers (32 MiB) kept where they have to be written anyway


class _CompiledLayer(torch.autograd.Function):
    """All directions of a layer as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: str,
        books: Bookkeeping | None,
        keep_NT: Tensor | None,
        x_NTI: Tensor,
        *parameters: Parameter,
    ) -> Tensor:
        x_NTI = x_NTI.detach().contiguous()
        hidden = parameters[1].shape[1]
        states = x_NTI.new_empty(*x_NTI.shape[:2], hidden * len(parameters) // 4)
        shared = states.detach()  # else the graph refers to itself, and stays until collected
        ctx.directions = []
        for place in range(0, len(parameters), 4):
            weights = tuple(part.detach().contiguous() for part in parameters[place : place + 4])
            own = shared.narrow(2, hidden * (place // 4), hidden)
            direction = Direction(cell, weights, x_NTI, keep_NT, own, reverse=place > 0)
            direction.forward()
            ctx.directions.append(direction)
        ctx.save_for_backward(x_NTI, states)  # so that a change of either is noticed
        ctx.books, ctx.parameters = books, parameters
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NTH: Tensor) -> tuple[Tensor | None, ...]:
        (x_NTI, _), directions, parameters = ctx.saved_tensors, ctx.directions, ctx.parameters
        ctx.directions = None  # used up: a second backward fails instead of reading deltas as gates
        grad_NTH = grad_NTH.contiguous()
        grad_x = torch.empty_like(x_NTI) if ctx.needs_input_grad[3] else None
        hidden, gradients = parameters[1].shape[1], []
        for place, direction in enumerate(directions):
            own = grad_NTH.narrow(2, hidden * place, hidden)
            direction.backward(own, grad_x, add=place > 0)
            if ctx.books is None:
                gradients += direction.sums(None)
            else:
                ctx.books.file(Compiled(direction, parameters[4 * place : 4 * place + 4]))
                gradients += [None] * 4
        return None, None, None, grad_x, *gradients


def run_layer(
    cell: str,
    books: Bookkeeping | None,
    keep_NT: Tensor | None,
    x_NTI: Tensor,
    directions: list[tuple[Parameter, ...]],
) -> Tensor:
    """Run one layer: x (N, T, I) to the states (N, T, directions * H), float32 on the CPU.

    Args:
        cell: "rnn", "lstm" or "gru".
        books: given, the backward files a record for each direction and forms no weight gradient.
        keep_NT: 0 at padding, contiguous; None means that every step counts.
        x_NTI: inputs, finite at padding.
        directions: each direction's weights (G, I), (G, H), (G,), (G,); the second runs backwards.
    """
    parameters = [parameter for weights in directions for parameter in weights]
    states: Tensor = _CompiledLayer.apply(cell, books, keep_NT, x_NTI, *parameters)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return states


class Compiled:
    """One direction of one layer: a :class:`~consilium.shared.model.bookkeeping.LayerRecord`."""

    def __init__(self, direction: Direction, parameters: tuple[Parameter, ...]) -> None:
        self.parameters = parameters
        self._direction = direction
        self._stored: tuple[Groups, Tensor] | None = None

    def add_squared_norms(self, total_P: Tensor, groups: Groups) -> None:
        """See ``LayerRecord``; keeps the gradients where that saves work."""
        order_P, patients = groups.by_patient
        stored = self._room(len(patients))
        squares = self._direction.squared_norms(patients, stored).to(total_P.dtype)
        self._stored = None if stored is None else (groups, stored)
        if groups.alone:
            total_P += squares
        else:
            total_P[order_P] += squares

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """See :class:`~consilium.shared.model.bookkeeping.LayerRecord`."""
        weight_N = weight_N.to(torch.float32).contiguous()
        if self._stored is not None:
            groups, stored = self._stored
            patients = groups.by_patient[1]
            if groups.alone:
                return self._direction.stored_sums(patients, weight_N, stored)
            weight_P = weight_N[patients.rows_N[patients.starts[:-1]]]
            stays_P = patients.starts.diff()
            if torch.equal(weight_N[patients.rows_N], weight_P.repeat_interleave(stays_P)):
                return self._direction.stored_sums(patients, weight_P, stored)
        return self._direction.sums(weight_N)

    def per_row(self) -> list[Tensor]:
        """See :class:`~consilium.shared.model.bookkeeping.LayerRecord`."""
        rows = self._direction.rows
        everyone = torch.arange(rows + 1)
        stored = torch.empty(rows, self._direction.gradient_size)
        self._direction.squared_norms(PatientRows(everyone, everyone[:-1]), stored)
        found = [part.new_empty(rows, *part.shape) for part in self.parameters]
        for row, gradient in enumerate(stored):
            for part, each in zip(self._direction.unpacked(gradient), found, strict=True):
                each[row] = part
        return [each.detach() for each in found]

    def _room(self, patients: int) -> Tensor | None:
        """Where to keep the patients' gradients, or None: recomputing them is cheaper."""
        size = self._direction.gradient_size
        numbers = patients * size
        if numbers <= STORED_ALWAYS or (
            numbers <= STORED_AT_MOST and not self._direction.gram_pays
        ):
            return torch.empty(patients, size)
        return None
