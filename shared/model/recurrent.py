"""RNN, LSTM and GRU: any number of layers and directions, padded sequences, private gradients.

One forward and one backward through time. Without books the backward returns ordinary gradients;
with :class:`~consilium.shared.model.bookkeeping.Bookkeeping` it files the gate gradients, from
which per-patient norms and clipped sums follow. Parameters carry the names, shapes and gate order
of ``torch.nn.RNN``, ``LSTM`` and ``GRU``, so state dicts go both ways.

Padding: ``mask_NT`` is true where a step counts. A padded step leaves the state unchanged and its
input is never looked at, so the reverse direction starts at each row's last valid step and the
last output is the state after the last valid step.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from consilium.shared.kernels import through_time
from consilium.shared.model import cells
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.compiled_layer import run_layer
from consilium.shared.model.graphics_card import PROCESSOR, GraphicsCard, Processor
from consilium.shared.model.layers import initialise_uniform
from consilium.shared.model.plain_layer import run_plain_layer


class Recurrent(nn.Module):
    """Base of RNN, LSTM and GRU: x (N, T, I) -> states of the last layer (N, T, H or 2H).

    Args:
        inputs: I.
        hidden: H, units of each direction.
        layers: how many layers stand on one another.
        bidirectional: also run from the last valid step to the first; outputs are concatenated.
        dropout: share of each layer's outputs dropped before the next layer, in training.
        generator: source of the initial weights; None means torch's global one.

    Attributes:
        place: where its layers are computed; inputs and outputs stay where they are.
    """

    cell: ClassVar[cells.CellName]
    place: Processor = PROCESSOR

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.inputs, self.hidden, self.layers = inputs, hidden, layers
        self.bidirectional, self.dropout = bidirectional, dropout
        gate_rows, directions = cells.GATES[self.cell] * hidden, 2 if bidirectional else 1
        for layer in range(layers):
            width = inputs if layer == 0 else directions * hidden
            for suffix in self._suffixes(layer):
                for name, shape in (
                    (f"weight_ih_{suffix}", (gate_rows, width)),
                    (f"weight_hh_{suffix}", (gate_rows, hidden)),
                    (f"bias_ih_{suffix}", (gate_rows,)),
                    (f"bias_hh_{suffix}", (gate_rows,)),
                ):
                    self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new weights.

        Input weights are uniform with variance 2 / (I + H) (Glorot & Bengio 2010); each gate's
        recurrent weights are orthogonal (Saxe et al. 2014); biases are 0, but the LSTM's forget
        gate starts at 1 (Jozefowicz et al. 2015).
        """
        for weights in chain.from_iterable(map(self.directions, range(self.layers))):
            width = weights[0].shape[1]
            initialise_uniform(weights[0], math.sqrt(6 / (width + self.hidden)), generator)
            for gate in weights[1].detach().chunk(cells.GATES[self.cell]):
                nn.init.orthogonal_(gate, generator=generator)
            with torch.no_grad():
                weights[2].zero_()
                weights[3].zero_()
                if self.cell == "lstm":
                    weights[2][self.hidden : 2 * self.hidden] = 1.0

    def forward(
        self,
        x_NTI: Tensor,
        mask_NT: Tensor | None = None,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return every step's state (N, T, H), or (N, T, 2H) with both directions side by side.

        Args:
            x_NTI: inputs.
            mask_NT: boolean, true where a step counts; None means everywhere.
            books: given, the backward files records in it and leaves no weight gradient.
            generator: source of dropout, needed only in training with ``dropout`` above 0.
        """
        keep_NT = None
        if mask_NT is not None and not bool(mask_NT.all()):
            x_NTI = torch.where(mask_NT.unsqueeze(2), x_NTI, 0.0)
            keep_NT = mask_NT.to(x_NTI.dtype).contiguous()
        return self.from_layer(0, x_NTI, keep_NT, books, generator)

    def from_layer(
        self,
        first: int,
        values: Tensor,
        keep_NT: Tensor | None = None,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return the last layer's states, given the inputs of the layer ``first``.

        ``keep_NT`` is 0 at padding, and None if there is none; the rest as for :meth:`forward`.
        """
        compiled = not isinstance(self.place, GraphicsCard) and through_time.serves(values)
        for layer in range(first, self.layers):
            if layer:
                values = drop(values, self.dropout if self.training else 0.0, generator)
            weights = self.directions(layer)
            if compiled:
                values = run_layer(self.cell, books, keep_NT, values, weights)
            else:
                values = run_plain_layer(self.place, self.cell, books, keep_NT, values, weights)
        return values

    def directions(self, layer: int) -> list[tuple[nn.Parameter, ...]]:
        """Return each direction's weights ih and hh and biases ih and hh, of one layer."""
        return [
            tuple(
                self.get_parameter(f"{kind}_{suffix}")
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            for suffix in self._suffixes(layer)
        ]

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"l{layer}", f"l{layer}_reverse") if self.bidirectional else (f"l{layer}",)


class RNN(Recurrent):
    """Elman network with tanh; see :class:`Recurrent`."""

    cell = "rnn"


class LSTM(Recurrent):
    """Long short-term memory; see :class:`Recurrent`."""

    cell = "lstm"


class GRU(Recurrent):
    """Gated recurrent unit in torch's form (reset after the product); see :class:`Recurrent`."""

    cell = "gru"


@contextmanager
def computed_on(place: Processor, model: nn.Module) -> Iterator[None]:
    """Let the model's recurrent layers be computed at a place within the block.

    Those of :class:`consilium.shared.model.gru_d.GRUD` stay on the processor.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Recurrent)]
    for layer in layers:
        layer.place = place
    try:
        yield
    finally:
        for layer in layers:
            layer.place = PROCESSOR


def drop(values: Tensor, share: float, generator: Generator | None) -> Tensor:
    """Inverted dropout drawn from ``generator`` (None: torch's global one)."""
    if share == 0.0:
        return values
    kept = torch.rand(values.shape, generator=generator, device=values.device) >= share
    return values * kept.to(values.dtype) / (1 - share)
