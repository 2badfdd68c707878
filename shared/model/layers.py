"""The layers around the recurrent ones, each able to keep books instead of weight gradients.

Names and shapes of the parameters are those of ``torch.nn.Linear``, ``LayerNorm`` and
``Embedding``. Nothing here draws from torch's global random state unless ``generator`` is None.

With books, and where no gradient is taken, no row's numbers depend on which other rows are in the
batch, to the last bit (:mod:`consilium.shared.kernels.rows`). Else, with weights made for it,
adding a patient could change what the others contribute.
"""

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from consilium.shared.kernels.rows import multiply_rows
from consilium.shared.model.bookkeeping import Bookkeeping, Direct, Lookup, Outer


def row_by_row(books: Bookkeeping | None) -> bool:
    """Whether no row's numbers may depend on the other rows: one patient's effect is bounded."""
    return books is not None or not torch.is_grad_enabled()


def by_step(values: Tensor) -> Tensor:
    """View (N, I) as (N, 1, I); leave (N, T, I) as it is."""
    return values.unsqueeze(1) if values.dim() == 2 else values


def initialise_uniform(parameter: Tensor, bound: float, generator: Generator | None) -> None:
    """Fill with the uniform distribution on [-bound, bound]."""
    with torch.no_grad():
        parameter.uniform_(-bound, bound, generator=generator)


class _LinearWithBooks(torch.autograd.Function):
    """y = x W^T + b whose backward files (x, dL/dy) and forms no weight gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, books: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.bias, ctx.books = weight, bias, books
        return multiply_rows(x, weight.t(), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        (x,) = ctx.saved_tensors
        biases = () if ctx.bias is None else (ctx.bias,)
        ctx.books.file(Outer(by_step(grad), ((ctx.weight, by_step(x.detach())),), biases))
        grad_x = multiply_rows(grad, ctx.weight) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, None


class Linear(nn.Module):
    """x (N, I) or (N, T, I) -> (..., O); weight (O, I), bias (O,) or None."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, generator: Generator | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        initialise_uniform(self.weight, 1 / math.sqrt(inputs), generator)  # as torch does

    def forward(self, x: Tensor, books: Bookkeeping | None = None) -> Tensor:
        """Apply the layer; with ``books``, its backward files a record."""
        if not row_by_row(books):
            return functional.linear(x, self.weight, self.bias)
        if books is None:
            return multiply_rows(x, self.weight.t(), self.bias)
        result: Tensor = _LinearWithBooks.apply(x, self.weight, self.bias, books)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return result


class _LayerNormWithBooks(torch.autograd.Function):
    """Layer normalisation whose backward files its two parameters' row gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, books: Any
    ) -> Tensor:
        away = x - x.mean(-1, keepdim=True)
        inverse = (away.square().mean(-1, keepdim=True) + epsilon).rsqrt()
        normal = away * inverse
        ctx.save_for_backward(normal, inverse)
        ctx.weight, ctx.bias, ctx.books = weight, bias, books
        return normal * weight + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        normal, inverse = ctx.saved_tensors
        ctx.books.file(Direct(ctx.weight, by_step(grad * normal).sum(1)))
        ctx.books.file(Direct(ctx.bias, by_step(grad).sum(1)))
        scaled = grad * ctx.weight.detach()
        along = (scaled * normal).mean(-1, keepdim=True) * normal
        return inverse * (scaled - scaled.mean(-1, keepdim=True) - along), None, None, None, None


class LayerNorm(nn.Module):
    """Normalise the last axis of (N, H) or (N, T, H); weight and bias (H,)."""

    def __init__(self, size: int, *, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor, books: Bookkeeping | None = None) -> Tensor:
        """Apply the layer; with ``books``, its backward files a record."""
        if books is None:
            return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)
        result: Tensor = _LayerNormWithBooks.apply(  # type: ignore[no-untyped-call]  # torch leaves apply untyped
            x, self.weight, self.bias, self.epsilon, books
        )
        return result


class _EmbeddingWithBooks(torch.autograd.Function):
    """Table lookup whose backward files the tokens and their gradients."""

    @staticmethod
    def forward(ctx: Any, token_NT: Tensor, table: Tensor, books: Any) -> Tensor:
        ctx.save_for_backward(token_NT)
        ctx.table, ctx.books = table, books
        return functional.embedding(token_NT, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NTO: Tensor) -> tuple[None, None, None]:
        (token_NT,) = ctx.saved_tensors
        ctx.books.file(Lookup(grad_NTO, token_NT, ctx.table))
        return None, None, None


class Embedding(nn.Module):
    """token_NT (whole numbers below the vocabulary) -> (N, T, O); weight (vocabulary, O)."""

    def __init__(self, tokens: int, outputs: int, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, outputs))
        initialise_uniform(self.weight, math.sqrt(3), generator)

    def forward(self, token_NT: Tensor, books: Bookkeeping | None = None) -> Tensor:
        """Look the tokens up; with ``books``, the backward files a record."""
        if books is None:
            return functional.embedding(token_NT, self.weight)
        result: Tensor = _EmbeddingWithBooks.apply(token_NT, self.weight, books)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return result


class AttentionPooling(nn.Module):
    """Additive attention over steps (Bahdanau et al. 2015, eq. 6, with a learnt query).

    weight_NT = softmax over valid steps of v . tanh(W h_t + b); pooled_NH = sum_t weight h_t.
    """

    def __init__(self, size: int, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.key = Linear(size, size, generator=generator)
        self.query = Linear(size, 1, bias=False, generator=generator)

    def weights(self, h_NTH: Tensor, mask_NT: Tensor, books: Bookkeeping | None = None) -> Tensor:
        """Attention weights (N, T): zero at padding, summing to 1 (to 0 where no step is valid)."""
        score_NT = self.query(torch.tanh(self.key(h_NTH, books=books)), books=books).squeeze(2)
        blocked = score_NT.masked_fill(~mask_NT, torch.finfo(score_NT.dtype).min)
        return torch.softmax(blocked, dim=1) * mask_NT

    def forward(self, h_NTH: Tensor, mask_NT: Tensor, books: Bookkeeping | None = None) -> Tensor:
        """Pool (N, T, H) to (N, H); with ``books``, the backward files records."""
        weight_NT = self.weights(h_NTH, mask_NT, books)
        if row_by_row(books):
            return (weight_NT.unsqueeze(2) * h_NTH).sum(1)
        return (weight_NT.unsqueeze(1) @ h_NTH).squeeze(1)
