"""Where the recurrent layers of a network are computed: on the processor, or on a graphics card.

On a card they run forward and backward through time, and each patient's gradient norm and the sum
of the clipped gradients are taken there too: nearly all of a training step's arithmetic. States,
their gradients and the sums travel; all else of the network, its loss and the noise stay on the
processor (docs/decisions/229).

The clip bound of :mod:`~consilium.shared.model.bookkeeping` holds on a card as well. Products with
books are exact sums (:mod:`~consilium.shared.kernels.exact_product`), so the same bits on every
device and in every batch. What else there is between them are functions of single numbers, which a
card computes by the same instructions wherever a number stands. Norms and sums are in double
precision, which that bound's argument takes in any order. A card that does otherwise when tried out
is not taken (:mod:`~consilium.shared.model.card_check`).
"""

import threading
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from torch.nn import Parameter

from consilium.shared.kernels.recorded import RecordedFunctions, Recorder, Tensors
from consilium.shared.model import cells
from consilium.shared.model.bookkeeping import Groups, LayerRecord


class Processor:
    """Computes a layer where its tensors are, step by step."""

    def take(self, values: Tensor) -> Tensor:
        """Return (N, T, I) as the loops over time want it: (T, N, I), contiguous."""
        return values.transpose(0, 1).contiguous()

    def give(self, values: Tensor, rows: int) -> Tensor:  # noqa: ARG002  # here there are no rows beside them
        """Return (T, N, I) as (N, T, I)."""
        return values.transpose(0, 1)

    def weights(self, parameters: tuple[Parameter, ...]) -> cells.CellWeights:
        """Return one direction's weights, without a graph."""
        return cells.CellWeights(*(parameter.detach() for parameter in parameters))

    def gradients(self, found: Tensors) -> Tensors:
        """Return weights' gradients where the weights are."""
        return found

    def record(self, record: LayerRecord) -> LayerRecord:
        """Return a record for the books, which are where the weights are."""
        return record

    def forward(
        self,
        cell: cells.CellName,
        x_TNI: Tensor,
        weights: cells.CellWeights,
        keep_TN1: Tensor | None,
        *,
        alone: bool,
    ) -> cells.CellTrace:
        """See :func:`consilium.shared.model.cells.forward`."""
        return cells.forward(cell, x_TNI, weights, keep_TN1, alone=alone)

    def backward(
        self,
        cell: cells.CellName,
        trace: cells.CellTrace,
        weights: cells.CellWeights,
        keep_TN1: Tensor | None,
        grad_TNH: Tensor,
        *,
        alone: bool,
    ) -> cells.Deltas:
        """See :func:`consilium.shared.model.cells.backward`."""
        return cells.backward(cell, trace, weights, keep_TN1, grad_TNH, alone=alone)


PROCESSOR = Processor()


class GraphicsCard(Processor):
    """Computes a layer on another device, all its steps as one recording.

    Rows are filled up with zeros to one of few numbers, so that few recordings serve all batches.

    Args:
        device: where.
        record: makes recordings there.

    Attributes:
        usable: false once it has failed; it is not asked again.
    """

    def __init__(self, device: torch.device, record: Recorder) -> None:
        self.device, self.usable = device, True
        self._recorded, self._busy = RecordedFunctions(record), threading.Lock()

    def take(self, values: Tensor) -> Tensor:
        """Return (N, T, I) on the card as (T, N', I), N' rows of which the first N are given."""
        rows, steps, width = values.shape
        taken = torch.zeros(steps, filled_up(rows), width, dtype=values.dtype, device=self.device)
        taken[:, :rows] = values.detach().to(self.device).transpose(0, 1)
        return taken

    def give(self, values: Tensor, rows: int) -> Tensor:
        """Return the first rows of (T, N', I) on the processor: (N, T, I)."""
        chosen = values[:, :rows].transpose(0, 1)
        pinned = self.device.type == "cuda"  # a card writes to such memory without a detour
        found = torch.empty(chosen.shape, dtype=chosen.dtype, pin_memory=pinned)
        return found.copy_(chosen)

    def weights(self, parameters: tuple[Parameter, ...]) -> cells.CellWeights:
        """See :meth:`Processor.weights`."""
        return cells.CellWeights(*(each.detach().to(self.device) for each in parameters))

    def gradients(self, found: Tensors) -> Tensors:
        """See :meth:`Processor.gradients`."""
        return tuple(each.cpu() for each in found)

    def record(self, record: LayerRecord) -> LayerRecord:
        """See :meth:`Processor.record`."""
        return Elsewhere(record, self.device)

    def forward(
        self,
        cell: cells.CellName,
        x_TNI: Tensor,
        weights: cells.CellWeights,
        keep_TN1: Tensor | None,
        *,
        alone: bool,
    ) -> cells.CellTrace:
        """See :meth:`Processor.forward`."""

        def work(x_TNI: Tensor, *more: Tensor) -> Tensors:
            weights, keep = cells.CellWeights(*more[:4]), (*more[4:], None)[0]
            trace = cells.forward(cell, x_TNI, weights, keep, alone=alone)
            return trace.states, trace.gates_TNG, trace.beside

        arguments = x_TNI, *weights, *(() if keep_TN1 is None else (keep_TN1,))
        with self._busy:
            found = self._recorded.call(("forward", cell, alone), work, arguments)
        return cells.CellTrace(states=found[0], gates_TNG=found[1], beside=found[2])

    def backward(
        self,
        cell: cells.CellName,
        trace: cells.CellTrace,
        weights: cells.CellWeights,
        keep_TN1: Tensor | None,
        grad_TNH: Tensor,
        *,
        alone: bool,
    ) -> cells.Deltas:
        """See :meth:`Processor.backward`."""

        def work(states: Tensor, gates: Tensor, beside: Tensor, *more: Tensor) -> Tensors:
            trace = cells.CellTrace(states=states, gates_TNG=gates, beside=beside)
            weights, keep = cells.CellWeights(*more[:4]), (*more[5:], None)[0]
            deltas = cells.backward(cell, trace, weights, keep, more[4], alone=alone)
            same = deltas.input_TNG is deltas.hidden_TNG
            return (deltas.input_TNG,) if same else (deltas.input_TNG, deltas.hidden_TNG)

        kept = trace.states, trace.gates_TNG, trace.beside
        arguments = *kept, *weights, grad_TNH, *(() if keep_TN1 is None else (keep_TN1,))
        with self._busy:
            found = self._recorded.call(("backward", cell, alone), work, arguments)
        return cells.Deltas(input_TNG=found[0], hidden_TNG=found[-1])


def filled_up(rows: int) -> int:
    """Return the least of 8, 12, 16, 24, 32, 48 and so on that is not below ``rows``."""
    return next(
        size for power in count(3) for size in (1 << power, 3 << (power - 1)) if size >= rows
    )


@dataclass(frozen=True)
class Elsewhere:
    """A record whose tensors are on another device than the books, which ask for it as usual."""

    record: LayerRecord
    device: torch.device

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Those of the record."""
        return self.record.parameters

    def add_norms(self, squares_P: Tensor, terms_P: Tensor, groups: Groups) -> None:
        """See ``LayerRecord``."""
        squares, terms = (
            torch.zeros_like(each, device=self.device) for each in (squares_P, terms_P)
        )
        self.record.add_norms(squares, terms, groups.on(self.device))
        squares_P += squares.to(squares_P.device)
        terms_P += terms.to(terms_P.device)

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """See ``LayerRecord``."""
        sums = self.record.weighted_sums(weight_N.to(self.device))
        return [total.to(weight_N.device) for total in sums]

    def sums_of(self, rows: slice, weight_N: Tensor) -> list[Tensor]:
        """See ``LayerRecord``."""
        sums = self.record.sums_of(rows, weight_N.to(self.device))
        return [total.to(weight_N.device) for total in sums]

    def per_row(self) -> list[Tensor]:
        """See ``LayerRecord``."""
        device = self.parameters[0].device
        return [each.to(device) for each in self.record.per_row()]


def failure_of(error: RuntimeError) -> str:
    """Return what a card lacks or did, in words that tell no array's shape."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the graphics card has too little memory free"
    return f"the graphics card failed ({type(error).__name__})"
