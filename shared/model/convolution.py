"""Convolutions over time that look back only, so that a stream can go on, or over a grid.

A layer's value at step t is of its inputs at t, t - d, t - 2 d, ..., with d = 1, 2, 4, ... in its
first, second, third layer; before the first step they are 0. The true steps of a stay come first.
Over a grid, such as a slice of a volume, a layer's value at a cell is of the cells around it in the
same step; beyond the edge they are 0.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.branch import (
    Branch,
    Inputs,
    begin_at,
    code_vectors,
    last_valid,
    mean_of_valid,
)
from consilium.shared.model.layers import Embedding, Linear
from consilium.shared.model.recurrent import drop
from consilium.shared.study.branches import ConvolutionBranch
from consilium.shared.study.training import Task

Map = Callable[[Tensor], Tensor]  # a layer's linear map of the last axis


class ConvolutionModel(Branch):
    """Convolutions of units that are 0 or more -> recurrent network, or pooling -> dropout -> head.

    Over time they read the inputs and the vectors of codes; over a grid the series alone, and what
    else there is stands beside their result. In a per-step task there is no pooling. A convolution
    is a linear map of what lies side by side, so per-patient gradients are those of
    :class:`~consilium.shared.model.layers.Linear`.

    Args:
        inputs: what is read of each step.
        branch: what the study says.
        task: the study's.
        generator: source of the first weights.
        recurrent: makes the network of the study's ``cell`` for inputs of a width; None if it has
            no cell.
    """

    def __init__(
        self,
        inputs: Inputs,
        branch: ConvolutionBranch,
        task: Task,
        generator: Generator | None = None,
        recurrent: Callable[[int], Branch] | None = None,
    ) -> None:
        super().__init__(inputs.features, task, inputs.tokens, branch.dropout)
        self.kernel = branch.kernel
        self.pooling = "none" if task.per_step else branch.pooling
        beside = 0
        self.embedding: Embedding | None = None
        if inputs.tokens is not None:
            self.embedding = Embedding(self.lines, inputs.tokens.width, generator=generator)
            beside = inputs.tokens.width
        self.rows = branch.rows
        self.columns = inputs.series // branch.rows if branch.rows else 0
        self.of_cell = inputs.channels if branch.rows else 0
        side_by_side, width = self.kernel, self.measured + beside
        if branch.rows:
            side_by_side, width = self.kernel**2, self.of_cell
        layers = []
        for _ in range(branch.layers):
            layers.append(Linear(side_by_side * width, branch.channels, generator=generator))
            width = branch.channels
        self.convolution = nn.ModuleList(layers)
        if branch.rows:
            left = self.grids[-1]
            width = left[0] * left[1] * width + self.measured - self.cells + beside
        self.recurrent = None if recurrent is None else recurrent(width)
        self.head: Linear | None = None
        if recurrent is None:
            self.head = Linear(width, task.outputs, generator=generator)
            begin_at(self.head, task)

    def forward(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """See :class:`.Branch`."""
        del read
        values = self.filtered(x_NTF, mask_NT, books)
        if self.recurrent is not None:
            return self.recurrent(values, mask_NT, books=books, generator=generator)  # type: ignore[no-any-return]  # torch leaves calls untyped
        if self.pooling == "last":
            values = last_valid(values, mask_NT)
        elif self.pooling == "mean":
            values = mean_of_valid(values, mask_NT)
        elif self.pooling == "max":
            lowest = torch.finfo(values.dtype).min  # what stands beside a grid may be below 0
            there = mask_NT.unsqueeze(2)
            values = values.masked_fill(~there, lowest).amax(1) * there.any(1)
        values = drop(values, self.dropout if self.training else 0.0, generator)
        logits: Tensor = self.output_layers[0](values, books=books)
        return logits

    def filtered(self, x_NTF: Tensor, mask_NT: Tensor, books: Bookkeeping | None = None) -> Tensor:
        """Return what the convolutions make of each step (N, T, W), 0 at padding."""
        mask_NT1 = mask_NT.unsqueeze(2)
        values = torch.where(mask_NT1, x_NTF[..., : self.measured], 0.0)
        if self.embedding is not None:
            codes_NTM = torch.where(mask_NT1, x_NTF[..., -self.codes :], 0.0).long()
            values = torch.cat([values, code_vectors(self.embedding, codes_NTM, books)], dim=2)
        maps = [partial(layer, books=books) for layer in self.layers]
        if self.rows:
            values = self.over_grid(values, maps)
        else:
            for layer, apart in zip(maps, self.apart, strict=True):
                values = torch.relu(layer(self._side_by_side(values, apart)))
        return torch.where(mask_NT1, values, 0.0)

    def over_grid(self, values_NTI: Tensor, maps: Sequence[Map]) -> Tensor:
        """Return what is left of each step's grid after these layers, and the other inputs beside.

        A layer's filters see the cells around each; then every two by two cells become one, their
        largest value. At an odd edge fewer are compared.
        """
        rows, steps = values_NTI.shape[:2]
        cells = values_NTI[..., : self.cells].view(rows, steps, self.of_cell, *self.grids[0])
        grid = cells.movedim(2, -1)  # rows, steps, rows of the grid, columns, values of a cell
        for layer, (high, wide) in zip(maps, self.grids, strict=False):
            around = self._around(grid)
            made = torch.relu(layer(around.reshape(rows, steps * high * wide, -1)))
            made = made.view(rows, steps, high, wide, -1)
            made = functional.pad(made, (0, 0, 0, wide % 2, 0, high % 2))  # none is below 0
            made = torch.maximum(made[:, :, ::2], made[:, :, 1::2])
            grid = torch.maximum(made[:, :, :, ::2], made[:, :, :, 1::2])
        return torch.cat([grid.flatten(2), values_NTI[..., self.cells :]], dim=2)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Rows and columns of the grid before each layer, and after the last."""
        found = [(self.rows, self.columns)]
        for _ in self.layers:
            high, wide = found[-1]
            found.append(((high + 1) // 2, (wide + 1) // 2))
        return found

    @property
    def apart(self) -> list[int]:
        """How many steps a filter's inputs stand apart, by layer."""
        return [2**layer for layer in range(len(self.layers))]

    @property
    def layers(self) -> list[Linear]:
        """The convolutions' layers, in order."""
        return [layer for layer in self.convolution if isinstance(layer, Linear)]

    @property
    def numbers_kept(self) -> int:
        """See :class:`.Branch`."""
        later = (
            0 if self.recurrent is None else self.recurrent.features + self.recurrent.numbers_kept
        )
        each = [layer.weight.shape[1] + 3 * layer.weight.shape[0] for layer in self.layers]
        if self.rows:
            each = [
                kept * high * wide for kept, (high, wide) in zip(each, self.grids, strict=False)
            ]
        return sum(each) + later

    @property
    def output_layers(self) -> list[Linear]:
        """See :class:`.Branch`."""
        if self.recurrent is not None:
            return self.recurrent.output_layers
        return [] if self.head is None else [self.head]

    @property
    def cells(self) -> int:
        """How many of a step's first inputs are values of the grid's cells."""
        return self.of_cell * self.rows * self.columns

    def _around(self, grid: Tensor) -> Tensor:
        """Return each cell's and its neighbours' values side by side: row by row of the filter."""
        before, after = (self.kernel - 1) // 2, self.kernel // 2
        padded = functional.pad(grid, (0, 0, before, after, before, after))
        high, wide = grid.shape[2:4]
        places = [(row, column) for row in range(self.kernel) for column in range(self.kernel)]
        return torch.cat([padded[:, :, r : r + high, c : c + wide] for r, c in places], dim=-1)

    def _side_by_side(self, values_NTI: Tensor, apart: int) -> Tensor:
        """Return (N, T, kernel * I): of each step its inputs and earlier ones, oldest first."""
        steps = values_NTI.shape[1]
        back = [apart * place for place in reversed(range(self.kernel))]
        return torch.cat(
            [functional.pad(values_NTI, (0, 0, by, 0))[:, :steps] for by in back], dim=2
        )
