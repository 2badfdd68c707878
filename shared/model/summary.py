"""A feed-forward network on running summaries of what was measured so far.

One loop over the steps makes the summaries of a batch and of a stream, so they are the same
numbers. Sums are kept in double precision.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.branch import Branch, Inputs, begin_at
from consilium.shared.model.layers import Linear
from consilium.shared.model.recurrent import drop
from consilium.shared.study.branches import SummaryBranch
from consilium.shared.study.training import Task

STATISTICS = 7  # mean, spread, slope, minimum, maximum, last value, number
COUNT_SCALE = 6.0  # divides log(1 + number), as that of the inputs is divided


@dataclass(frozen=True, kw_only=True)
class RunningSummary:
    """What N rows came to after some steps; each field but the last is (N, V).

    ``count`` is the number of steps in which a series was measured, ``total`` and ``squares`` are
    sums of its values z, ``times``, ``times_squared`` and ``timed`` sums of the steps' numbers t,
    of t^2 and of t z; ``static_NI`` are the static variables' values, then whether they are known.
    """

    count: Tensor
    total: Tensor
    squares: Tensor
    times: Tensor
    times_squared: Tensor
    timed: Tensor
    first: Tensor
    latest: Tensor
    low: Tensor
    high: Tensor
    last: Tensor
    static_NI: Tensor

    @classmethod
    def start(cls, rows: int, series: int, static: int) -> "RunningSummary":
        """Return the summary before the first step."""
        zero, bound = torch.zeros(rows, series).double(), torch.full((rows, series), torch.inf)
        return cls(
            count=zero, total=zero, squares=zero, times=zero, times_squared=zero, timed=zero,
            first=zero, latest=zero, low=bound.double(), high=-bound.double(), last=zero,
            static_NI=torch.zeros(rows, static).double(),
        )  # fmt: skip

    def after(self, x_NF: Tensor, number: int, valid_N: Tensor | None = None) -> "RunningSummary":
        """Return the summary after one more step.

        Args:
            x_NF: the step's inputs without codes; the first V are values, the next V above 0 where
                measured, the last S those of static variables.
            number: of the step, t.
            valid_N: false where the step does not count; None means it counts everywhere.
        """
        series = self.count.shape[1]
        value, there = x_NF[:, :series].double(), x_NF[:, series : 2 * series] > 0
        static_NI = x_NF[:, x_NF.shape[1] - self.static_NI.shape[1] :].double()
        last = value
        if valid_N is not None:
            valid_N1 = valid_N.unsqueeze(1)
            there = there & valid_N1
            static_NI = torch.where(valid_N1, static_NI, self.static_NI)
            last = torch.where(valid_N1, last, self.last)
        one, z = there.double(), torch.where(there, value, 0.0)
        return RunningSummary(
            count=self.count + one,
            total=self.total + z,
            squares=self.squares + z * z,
            times=self.times + number * one,
            times_squared=self.times_squared + number * number * one,
            timed=self.timed + number * z,
            first=torch.where(there & (self.count == 0), float(number), self.first),
            latest=torch.where(there, float(number), self.latest),
            low=torch.where(there, torch.minimum(self.low, value), self.low),
            high=torch.where(there, torch.maximum(self.high, value), self.high),
            last=last,
            static_NI=static_NI,
        )

    def read(self) -> Tensor:
        """Return (N, 7 V + S): the statistics, each of all series, then the static variables.

        The spread is the standard deviation of the values. The slope is how much the
        least-squares line through them rises from the first measurement to the latest: like all
        but the number it is in the values' unit, and 0 after one measurement. All are 0 without.
        """
        measured, number = self.count > 0, self.count.clamp(min=1)
        mean = self.total / number
        spread = (self.squares / number - mean * mean).clamp(min=0).sqrt()
        moment = self.times_squared - self.times * self.times / number
        rise = (self.timed - self.times * mean) / moment.clamp(min=0.25)  # of two steps, 0.5 or so
        parts = [
            mean,
            torch.where(self.count > 1, spread, 0.0),
            torch.where(self.count > 1, rise * (self.latest - self.first), 0.0),
            torch.where(measured, self.low, 0.0),
            torch.where(measured, self.high, 0.0),
            self.last,
            _log_counts(self.count),
            self.static_NI,
        ]
        return torch.cat(parts, dim=1)


def _log_counts(count: Tensor) -> Tensor:
    """Return log(1 + count) / COUNT_SCALE, from a table: the same bits wherever a number stands."""
    most = int(count.max()) if count.numel() else 0
    table = torch.log1p(torch.arange(most + 1, dtype=torch.float64)) / COUNT_SCALE
    return table[count.long()]


class SummaryModel(Branch):
    """Summaries -> layers of units that are 0 or more -> dropout -> head.

    In a per-step task the summaries of each step's past are read.
    """

    def __init__(
        self, inputs: Inputs, branch: SummaryBranch, task: Task, generator: Generator | None = None
    ) -> None:
        super().__init__(inputs.features, task, inputs.tokens, branch.dropout)
        self.series = inputs.series
        self.static = self.measured - inputs.channels * inputs.series
        width, layers = STATISTICS * self.series + self.static, []
        for _ in range(branch.layers):
            layers.append(Linear(width, branch.hidden, generator=generator))
            width = branch.hidden
        self.hidden = nn.ModuleList(layers)
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
        values = self.read(x_NTF, mask_NT) if read is None else read
        for layer in self.layers:
            values = torch.relu(layer(values, books=books))
        values = drop(values, self.dropout if self.training else 0.0, generator)
        logits: Tensor = self.head(values, books=books)
        return logits

    def read(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor:
        """See :class:`.Branch`."""
        rows, steps = mask_NT.shape
        now, found = RunningSummary.start(rows, self.series, self.static), []
        everywhere = bool(mask_NT.all())
        for step in range(steps):
            valid_N = None if everywhere else mask_NT[:, step]
            now = now.after(x_NTF[:, step, : self.measured], step, valid_N)
            if self.task.per_step:
                found.append(now.read().to(x_NTF.dtype))
        if not self.task.per_step:
            return now.read().to(x_NTF.dtype)
        return torch.where(mask_NT.unsqueeze(2), torch.stack(found, dim=1), 0.0)

    @property
    def read_from(self) -> list[int]:
        """See :class:`.Branch`."""
        static = range(self.measured - self.static, self.measured)
        return [*list(range(self.series)) * STATISTICS, *static]

    @property
    def layers(self) -> list[Linear]:
        """The layers before the head, in order."""
        return [layer for layer in self.hidden if isinstance(layer, Linear)]

    @property
    def numbers_kept(self) -> int:
        """See :class:`.Branch`."""
        hidden = sum(2 * len(layer.weight) for layer in self.layers)
        return hidden + len(self.read_from) if self.task.per_step else 0

    @property
    def output_layers(self) -> list[Linear]:
        """See :class:`.Branch`."""
        return [self.head]

    @property
    def onnx_obstacle(self) -> str:
        """See :class:`.Branch`."""
        return "running minima of every step" if self.task.per_step and self.series else ""
