"""GRU-D: a GRU whose missing inputs and whose memory fade at rates it learns.

Che, Purushotham, Cho, Sontag & Liu, "Recurrent neural networks for multivariate time series with
missing values", Sci Rep 2018;8:6085, equations 8 to 13. A value measured long ago fades towards the
variable's mean, each variable at its own rate; the state fades by all variables' ages together:

    x_t = measured ? value : g * value,  g = exp(-max(0, w * age + b))      (values have mean 0)
    h' = exp(-max(0, W age + c)) * h_(t-1),  then a GRU's step from h' on all inputs

Ages come from the recency channel, exp(-hours / 12), so they count in twelve hours. A variable
never measured has the age ``LONGEST``, beyond which ages are not told apart. The gates read the
measured channel, as the paper's do, and the study's other channels beside it.

Plain PyTorch on any device; the compiled kernel does not serve it.
"""

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from consilium.shared.model import cells
from consilium.shared.model.bookkeeping import Bookkeeping, Direct
from consilium.shared.model.layers import Linear, row_by_row
from consilium.shared.model.plain_layer import records, weight_gradients
from consilium.shared.model.recurrent import Recurrent

LONGEST = 5.0  # in units of 12 hours, as ages are
_FIRST_RATE = 0.1  # of decay, an age: half of a value is left after 3.5 days


class _ScaleWithBooks(torch.autograd.Function):
    """y = w * x + b whose backward files both rows' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, books: Any) -> Tensor:
        ctx.x, ctx.weight, ctx.bias, ctx.books = x.detach(), weight, bias, books
        return weight * x + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NTV: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        by_weight_NV, by_bias_NV = (grad_NTV * ctx.x).sum(1), grad_NTV.sum(1)
        if ctx.books is None:
            return None, by_weight_NV.sum(0), by_bias_NV.sum(0), None
        ctx.books.file(Direct(ctx.weight, by_weight_NV))
        ctx.books.file(Direct(ctx.bias, by_bias_NV))
        return None, None, None, None


class InputDecay(nn.Module):
    """age_NTV -> the part of each value that is left; weight and bias (V,)."""

    def __init__(self, series: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((series,), _FIRST_RATE))
        self.bias = nn.Parameter(torch.zeros(series))

    def forward(self, age_NTV: Tensor, books: Bookkeeping | None = None) -> Tensor:
        """Return exp(-max(0, w * age + b)), within (0, 1]; with ``books``, file records."""
        rate: Tensor = _ScaleWithBooks.apply(age_NTV, self.weight, self.bias, books)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return torch.exp(-functional.relu(rate))


class _ThroughTime(torch.autograd.Function):
    """All steps of the decayed GRU as one node of the graph; batch-major outside."""

    @staticmethod
    def forward(
        ctx: Any,
        books: Bookkeeping | None,
        alone: bool,
        keep_TN1: Tensor | None,
        x_NTI: Tensor,
        left_NTH: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        weights = cells.CellWeights(*(parameter.detach() for parameter in parameters))
        x_TNI, left_TNH = (v.detach().transpose(0, 1).contiguous() for v in (x_NTI, left_NTH))
        steps, rows, size = left_TNH.shape
        gates = cells.project(x_TNI, weights.input_GI, weights.input_bias_G, alone)
        states = x_TNI.new_zeros(steps + 1, rows, size)
        decayed, hidden_part = torch.empty_like(left_TNH), torch.empty_like(left_TNH)
        recurrent = cells.factor(weights.hidden_GH.t(), alone)
        for t in range(steps):
            torch.mul(states[t], left_TNH[t], out=decayed[t])
            hidden_NG = cells.add_times(weights.hidden_bias_G, decayed[t], recurrent, alone)
            hidden_part[t] = hidden_NG[:, 2 * size :]
            gates[t, :, : 2 * size].add_(hidden_NG[:, : 2 * size]).sigmoid_()
            reset, update, candidate = gates[t].chunk(3, dim=1)
            candidate.addcmul_(reset, hidden_part[t]).tanh_()
            torch.lerp(candidate, decayed[t], update, out=states[t + 1])
            if keep_TN1 is not None:
                states[t + 1] = torch.lerp(states[t], states[t + 1], keep_TN1[t])
        ctx.books, ctx.alone, ctx.keep, ctx.parameters = books, alone, keep_TN1, parameters
        ctx.x, ctx.left, ctx.states = x_TNI, left_TNH, states
        ctx.gates, ctx.decayed, ctx.hidden_part = gates, decayed, hidden_part
        return states[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NTH: Tensor) -> tuple[Tensor | None, ...]:
        weights = cells.CellWeights(*(parameter.detach() for parameter in ctx.parameters))
        grad_TNH = grad_NTH.transpose(0, 1)
        steps, rows, size = grad_TNH.shape
        by_input = grad_TNH.new_empty(steps, rows, 3, size)
        by_hidden, by_left = torch.empty_like(by_input), torch.empty_like(ctx.left)
        carried = grad_TNH.new_zeros(rows, size)
        hidden_GH = cells.factor(weights.hidden_GH, ctx.alone)
        for t in reversed(range(steps)):
            total = carried + grad_TNH[t]
            kept = total if ctx.keep is None else total * ctx.keep[t]
            reset, update, candidate = ctx.gates[t].chunk(3, dim=1)
            by_candidate = kept * (1 - update) * (1 - candidate.square())
            by_input[t, :, 0] = by_candidate * ctx.hidden_part[t] * reset * (1 - reset)
            by_input[t, :, 1] = kept * (ctx.decayed[t] - candidate) * update * (1 - update)
            by_input[t, :, 2] = by_candidate
            by_hidden[t] = by_input[t]
            by_hidden[t, :, 2].mul_(reset)
            by_decayed = cells.add_times(
                kept * update, by_hidden[t].flatten(1), hidden_GH, ctx.alone
            )
            by_left[t] = by_decayed * ctx.states[t]
            carried = by_decayed * ctx.left[t] + (total - kept)
        deltas = cells.Deltas(input_TNG=by_input.flatten(2), hidden_TNG=by_hidden.flatten(2))
        gradients: tuple[Tensor | None, ...] = (None,) * 4
        if ctx.books is None:
            gradients = weight_gradients(deltas, ctx.x, ctx.decayed)
        else:
            for record in records(ctx.parameters, deltas, ctx.x, ctx.decayed):
                ctx.books.file(record)
        grad_x = cells.times(deltas.input_TNG, weights.input_GI, ctx.alone).transpose(0, 1)
        return None, None, None, grad_x, by_left.transpose(0, 1), *gradients


class GRUD(Recurrent):
    """One layer, forwards; the first 3 V inputs are the values, measured and recency channels.

    Args:
        inputs: I, at least 3 V.
        hidden: H.
        series: V.
        generator: source of the initial weights; None means torch's global one.
    """

    cell = "gru"

    def __init__(
        self, inputs: int, hidden: int, *, series: int, generator: Generator | None = None
    ) -> None:
        super().__init__(inputs, hidden, generator=generator)
        self.series = series
        self.input_decay = InputDecay(series)
        self.hidden_decay = Linear(series, hidden, generator=generator)
        with torch.no_grad():  # rates begin small and positive: below 0, max(0, .) has no gradient
            self.hidden_decay.weight.abs_().mul_(_FIRST_RATE)

    def forward(
        self,
        x_NTI: Tensor,
        mask_NT: Tensor | None = None,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,  # noqa: ARG002  # one layer drops nothing between layers
    ) -> Tensor:
        """Return every step's state (N, T, H); see :class:`.Recurrent`."""
        keep_TN1 = None
        if mask_NT is not None and not bool(mask_NT.all()):
            x_NTI = torch.where(mask_NT.unsqueeze(2), x_NTI, 0.0)
            keep_TN1 = mask_NT.to(x_NTI.dtype).t().unsqueeze(2).contiguous()
        value, measured, recency = (x_NTI[..., : 3 * self.series]).chunk(3, dim=2)
        age_NTV = -torch.log(recency.clamp(min=math.exp(-LONGEST), max=1.0))
        left_NTV = self.input_decay(age_NTV, books=books)
        faded = value * torch.where(measured > 0, 1.0, left_NTV)
        inputs = torch.cat([faded, x_NTI[..., self.series :]], dim=2)
        left_NTH = torch.exp(-functional.relu(self.hidden_decay(age_NTV, books=books)))
        (weights,) = self.directions(0)
        alone = row_by_row(books)
        states: Tensor = _ThroughTime.apply(books, alone, keep_TN1, inputs, left_NTH, *weights)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return states
