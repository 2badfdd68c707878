"""One recurrent layer in the compiled kernel: its node of the graph, and its record in the books.

The same numbers as :mod:`consilium.shared.model.cells` with
:class:`~consilium.shared.model.bookkeeping.Outer`, to rounding.
"""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from consilium.shared.errors import PrivacyError
from consilium.shared.kernels import buffers
from consilium.shared.kernels.through_time import Direction, PatientRows
from consilium.shared.model.bookkeeping import Bookkeeping, Groups


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
                gradients += direction.sums()
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
    """One direction of one layer: a :class:`~consilium.shared.model.bookkeeping.LayerRecord`.

    Every patient's gradient is written once, in single precision; these numbers are measured, and
    these are summed. So a patient's part is as long as its measured norm says, whatever the numbers
    lost to rounding when they were written.
    """

    def __init__(self, direction: Direction, parameters: tuple[Parameter, ...]) -> None:
        self.parameters = parameters
        self._direction = direction
        self._stored: tuple[Groups, Tensor] | None = None

    def add_norms(self, squares_P: Tensor, terms_P: Tensor, groups: Groups) -> None:  # noqa: ARG002  # a sum that is measured as written has no terms that could cancel
        """See ``LayerRecord``; keeps the gradients for the sums."""
        order_P, patients = groups.by_patient
        stored = self._room(len(patients))
        squares = self._direction.squared_norms(patients, stored)
        self._stored = groups, stored
        squares_P[order_P] += squares

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """See :class:`~consilium.shared.model.bookkeeping.LayerRecord`."""
        weight_N = weight_N.double()
        if self._stored is not None:
            groups, stored = self._stored
            patients = groups.by_patient[1]
            weight_P = weight_N[patients.rows_N[patients.starts[:-1]]]
            stays_P = patients.starts.diff()
            if torch.equal(weight_N[patients.rows_N], weight_P.repeat_interleave(stays_P)):
                return self._direction.stored_sums(patients, weight_P.contiguous(), stored)
        rows, stored = self._written_rows()
        return self._direction.stored_sums(rows, weight_N.contiguous(), stored)

    def sums_of(self, rows: slice, weight_N: Tensor) -> list[Tensor]:
        """See :class:`~consilium.shared.model.bookkeeping.LayerRecord`; after ``add_norms``."""
        if self._stored is None:
            raise PrivacyError("books: sums of some rows were asked for before the norms")
        groups, stored = self._stored
        patients = groups.by_patient[1]
        first_P = patients.rows_N[patients.starts[:-1]]
        chosen = torch.nonzero((first_P >= rows.start) & (first_P < rows.stop)).squeeze(1)
        gradients = stored[: len(patients) * self._size].view(len(patients), self._size)
        if len(chosen) and int(chosen[-1]) - int(chosen[0]) + 1 == len(chosen):
            picked = gradients[int(chosen[0]) : int(chosen[-1]) + 1]
        else:
            picked = gradients[chosen].contiguous()
        weight_P = weight_N.double()[first_P[chosen] - rows.start].contiguous()
        alone = PatientRows(torch.arange(len(chosen) + 1), chosen)
        return self._direction.stored_sums(alone, weight_P, picked)

    def per_row(self) -> list[Tensor]:
        """See :class:`~consilium.shared.model.bookkeeping.LayerRecord`."""
        rows, stored = self._written_rows()
        found = [part.new_empty(len(rows), *part.shape) for part in self.parameters]
        for row in range(len(rows)):
            gradient = stored[row * self._size : (row + 1) * self._size]
            for part, each in zip(self._direction.unpacked(gradient), found, strict=True):
                each[row] = part
        return [each.detach() for each in found]

    @property
    def _size(self) -> int:
        return self._direction.gradient_size

    def _written_rows(self) -> tuple[PatientRows, Tensor]:
        """Every row's own gradient, as if each were a patient."""
        everyone = torch.arange(self._direction.rows + 1)
        rows = PatientRows(everyone, everyone[:-1])
        stored = self._room(len(rows))
        self._direction.squared_norms(rows, stored)
        return rows, stored

    def _room(self, patients: int) -> Tensor:
        """Where to write so many gradients; given back with this record."""
        room = buffers.borrow(patients * self._size)
        weakref.finalize(self, buffers.give_back, room).atexit = False
        return room
