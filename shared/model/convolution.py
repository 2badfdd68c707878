"""Convolutions over time that look back only, so that a stream can go on with them.

A layer's value at step t is of its inputs at t, t - d, t - 2 d, ..., with d = 1, 2, 4, ... in its
first, second, third layer; before the first step they are 0. The true steps of a stay come first.
"""

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


class ConvolutionModel(Branch):
    """[vectors of codes] -> convolutions of units that are 0 or more -> pooling -> dropout -> head.

    In a per-step task there is no pooling. A convolution is a linear map of the steps side by side,
    so per-patient gradients are those of :class:`~consilium.shared.model.layers.Linear`.
    """

    def __init__(
        self,
        inputs: Inputs,
        branch: ConvolutionBranch,
        task: Task,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(inputs.features, task, inputs.tokens, branch.dropout)
        self.kernel = branch.kernel
        self.pooling = "none" if task.per_step else branch.pooling
        width, layers = self.measured, []
        self.embedding: Embedding | None = None
        if inputs.tokens is not None:
            self.embedding = Embedding(self.lines, inputs.tokens.width, generator=generator)
            width += inputs.tokens.width
        for _ in range(branch.layers):
            layers.append(Linear(self.kernel * width, branch.channels, generator=generator))
            width = branch.channels
        self.convolution = nn.ModuleList(layers)
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
        mask_NT1 = mask_NT.unsqueeze(2)
        values = torch.where(mask_NT1, x_NTF[..., : self.measured], 0.0)
        if self.embedding is not None:
            codes_NTM = torch.where(mask_NT1, x_NTF[..., -self.codes :], 0.0).long()
            values = torch.cat([values, code_vectors(self.embedding, codes_NTM, books)], dim=2)
        for layer, apart in zip(self.layers, self.apart, strict=True):
            values = torch.relu(layer(self._side_by_side(values, apart), books=books))
        values = torch.where(mask_NT1, values, 0.0)
        if self.pooling == "last":
            values = last_valid(values, mask_NT)
        elif self.pooling == "mean":
            values = mean_of_valid(values, mask_NT)
        elif self.pooling == "max":
            values = values.amax(1)  # none is below 0
        values = drop(values, self.dropout if self.training else 0.0, generator)
        logits: Tensor = self.head(values, books=books)
        return logits

    @property
    def apart(self) -> list[int]:
        """How many steps a filter's inputs stand apart, by layer."""
        return [2**layer for layer in range(len(self.layers))]

    @property
    def layers(self) -> list[Linear]:
        """The layers before the head, in order."""
        return [layer for layer in self.convolution if isinstance(layer, Linear)]

    @property
    def numbers_kept(self) -> int:
        """See :class:`.Branch`."""
        return sum(layer.weight.shape[1] + 3 * layer.weight.shape[0] for layer in self.layers)

    @property
    def output_layers(self) -> list[Linear]:
        """See :class:`.Branch`."""
        return [self.head]

    def _side_by_side(self, values_NTI: Tensor, apart: int) -> Tensor:
        """Return (N, T, kernel * I): of each step its inputs and earlier ones, oldest first."""
        steps = values_NTI.shape[1]
        back = [apart * place for place in reversed(range(self.kernel))]
        return torch.cat(
            [functional.pad(values_NTI, (0, 0, by, 0))[:, :steps] for by in back], dim=2
        )
