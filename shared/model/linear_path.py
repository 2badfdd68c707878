"""The linear path from a step's inputs to the outputs, and the one definition of what it reads.

It stands beside a recurrent network (``skip``), or is a branch of its own.

Training, prediction, streaming and explanation call this function;
:mod:`consilium.shared.export.onnx_graph` builds the same of ONNX operators.

It reads the F measured features of a step (no codes), and for each of V time-series variables
whether it was never measured: I = F + V inputs.
"""

import math

import torch
from torch import Generator, Tensor, nn

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.branch import Branch, Inputs, begin_at, last_valid
from consilium.shared.model.layers import Linear
from consilium.shared.study.training import Task

_COUNT_BLOCK = 5  # of consilium.shared.study.input_names.feature_names: how often measured so far


def count_columns(series: int) -> slice:
    """Return where the V counts of measurements so far stand among a step's inputs."""
    return slice(_COUNT_BLOCK * series, (_COUNT_BLOCK + 1) * series)


def skip_inputs(x_F: Tensor, series: int) -> Tensor:
    """Return a step's inputs, and 1 for each series never measured so far, scaled to one length.

    The result has the shape (..., I).

    Guarantee: the length is sqrt(I); inputs shorter than 1 keep their length over sqrt(I).

    Args:
        x_F: (..., F), as :func:`consilium.shared.study.input_names.feature_names` orders them.
        series: V; 0 where sequences have no hours, and their inputs no counts.
    """
    never_V = (x_F[..., count_columns(series)] == 0).to(x_F.dtype)
    x_I = torch.cat([x_F, never_V], dim=-1)
    length = torch.linalg.vector_norm(x_I, dim=-1, keepdim=True)
    scaled: Tensor = x_I * (math.sqrt(x_I.shape[-1]) / length.clamp(min=1.0))
    return scaled


def read_of_steps(x_NTF: Tensor, mask_NT: Tensor, series: int, task: Task) -> Tensor:
    """Return what the path reads of each stay's last valid step (N, I).

    In a per-step task, of every step (N, T, I), zero at padding. ``x_NTF`` holds no codes.
    """
    if not task.per_step:
        x_NTF = last_valid(x_NTF, mask_NT)
        mask_NT = mask_NT.any(1)
    return torch.where(mask_NT.unsqueeze(-1), skip_inputs(x_NTF, series), 0.0)


class LinearModel(Branch):
    """A linear map of what :func:`read_of_steps` reads, and a bias; it starts at zero."""

    def __init__(self, inputs: Inputs, task: Task, generator: Generator | None = None) -> None:
        super().__init__(inputs.features, task, inputs.tokens)
        self.series = inputs.counted
        self.head = Linear(self.measured + self.series, task.outputs, generator=generator)
        nn.init.zeros_(self.head.weight)
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
        del generator
        read = self.read(x_NTF, mask_NT) if read is None else read
        logits: Tensor = self.head(read, books=books)
        return logits

    def read(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor:
        """See :class:`.Branch`."""
        return read_of_steps(x_NTF[..., : self.measured], mask_NT, self.series, self.task)

    @property
    def read_from(self) -> list[int]:
        """See :class:`.Branch`."""
        return [*range(self.measured), *range(self.series)]

    @property
    def numbers_kept(self) -> int:
        """See :class:`.Branch`."""
        return len(self.read_from) if self.task.per_step else 0

    @property
    def output_layers(self) -> list[Linear]:
        """See :class:`.Branch`."""
        return [self.head]
