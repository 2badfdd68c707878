"""The recurrent model a study asks for: inputs, cell, pooling, head, loss and scores.

The last M of a step's features are numbers of codes.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.gru_d import GRUD
from consilium.shared.model.layers import (
    AttentionPooling,
    Embedding,
    LayerNorm,
    Linear,
    row_by_row,
)
from consilium.shared.model.linear_path import skip_inputs
from consilium.shared.model.recurrent import GRU, LSTM, RNN, Recurrent, drop
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import UNKNOWN_TOKEN, series_names
from consilium.shared.study.records import Tokens
from consilium.shared.study.training import Model, Task

_VECTOR = 64  # numbers; the longest vectors of any processor, a few together

CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


class RecurrentModel(nn.Module):
    """[projection], [vectors of codes] -> recurrent layers -> pooling -> [norm] -> dropout -> head.

    In a per-step task there is no pooling: the head reads every step's state. With ``skip`` the
    inputs of the last valid step (of every step, in a per-step task), scaled to one length, also
    reach the outputs by a linear map that starts at zero. What a linear model can learn is then
    learned by few weights, which withstand privacy noise; and a stay's part of their gradient is
    equally long whether much was measured or little, so clipping favours nobody. Which of the
    ``series`` variables were never measured so far is a further input of this path: zeros of the
    other channels say it too, but not linearly (see :mod:`consilium.shared.model.linear_path`).
    """

    def __init__(
        self,
        features: int,
        model: Model,
        task: Task,
        generator: Generator | None = None,
        tokens: Tokens | None = None,
        series: int = 0,
    ) -> None:
        super().__init__()
        self.codes = 0 if tokens is None else len(tokens.names)
        self.series = series
        self.features, self.task, self.pooling, self.dropout = (
            features,
            task,
            "none" if task.per_step else model.pooling,
            model.dropout,
        )
        self.measured = features - self.codes
        width = model.projection or self.measured
        self.projection = (
            Linear(self.measured, width, generator=generator) if model.projection else None
        )
        self.embedding: Embedding | None = None
        if tokens is not None:
            lines = len(tokens.vocabulary) + UNKNOWN_TOKEN  # number 0, no code, needs no line
            self.embedding = Embedding(lines, tokens.width, generator=generator)
            width += tokens.width
        self.recurrent: Recurrent
        if model.cell == "gru-d":
            self.recurrent = GRUD(width, model.hidden, series=series, generator=generator)
        else:
            self.recurrent = CELLS[model.cell](
                width,
                model.hidden,
                layers=model.layers,
                bidirectional=model.bidirectional,
                dropout=model.dropout,
                generator=generator,
            )
        size = model.hidden * (2 if model.bidirectional else 1)
        self.attention = (
            AttentionPooling(size, generator=generator) if self.pooling == "attention" else None
        )
        self.norm = LayerNorm(size) if model.layer_norm else None
        self.head = Linear(size, task.outputs, generator=generator)
        self.skip = (
            Linear(self.measured + series, task.outputs, bias=False, generator=generator)
            if model.skip
            else None
        )
        with torch.no_grad():
            if self.skip is not None:
                self.skip.weight.zero_()
            if task.prevalence is not None and self.head.bias is not None:
                self.head.bias.fill_(math.log(task.prevalence / (1 - task.prevalence)))

    def forward(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
        skipped: Tensor | None = None,
    ) -> Tensor:
        """Return logits: (N, K), or (N, T, K) in a per-step task.

        Layers get books and generator by name, since Opacus's hooks detach positional arguments.

        Args:
            x_NTF: features; never looked at where ``mask_NT`` is false.
            mask_NT: boolean, true where a step counts.
            books: given, the backward files per-patient records in it instead of gradients.
            generator: source of dropout in training mode.
            skipped: what the linear path reads instead of what :meth:`skipped` returns; integrated
                gradients vary it.
        """
        h_NTH = self._states(x_NTF, mask_NT, books, generator)
        if self.skip is not None and skipped is None:
            skipped = self.skipped(x_NTF, mask_NT)
        return self.logits_of(h_NTH, mask_NT, skipped, books=books, generator=generator)

    def logits_of(
        self,
        h_NTH: Tensor,
        mask_NT: Tensor,
        skipped: Tensor | None,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return the logits of recurrent states; ``skipped`` is what the linear path reads."""
        pooled = self._pool(h_NTH, mask_NT, books)
        if self.norm is not None:
            pooled = self.norm(pooled, books=books)
        pooled = drop(pooled, self.dropout if self.training else 0.0, generator)
        logits: Tensor = self.head(pooled, books=books)
        if self.skip is not None:
            logits = logits + self.skip(skipped, books=books)
        return logits

    def skipped(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor:
        """Return what the linear path reads of each stay's last valid step (N, I).

        In a per-step task, of every step (N, T, I), zero at padding.
        """
        x_NTF = x_NTF[..., : self.measured]
        if not self.task.per_step:
            step_T = torch.arange(1, mask_NT.shape[1] + 1, device=mask_NT.device)
            last_N = (mask_NT * step_T).amax(1).sub_(1).clamp_(min=0)
            row_N = torch.arange(len(x_NTF), device=x_NTF.device)
            x_NTF, mask_NT = x_NTF[row_N, last_N], mask_NT[row_N, last_N]
        return torch.where(mask_NT.unsqueeze(-1), skip_inputs(x_NTF, self.series), 0.0)

    def attention_weights(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor:
        """Return the attention weights (N, T) behind a prediction; they sum to 1 over valid steps.

        Raises:
            ValueError: the model does not pool by attention.
        """
        if self.attention is None:
            raise ValueError(f"pooling is {self.pooling!r}, it must be 'attention' to have weights")
        with torch.no_grad():
            return self.attention.weights(self._states(x_NTF, mask_NT, None, None), mask_NT)

    def loss_per_stay(
        self, logits: Tensor, y: Tensor, mask_NT: Tensor, books: Bookkeeping | None = None
    ) -> Tensor:
        """Return each stay's loss (N,): cross entropy, or squared error in spreads for regression.

        The mean over known outputs is taken, and over valid steps in a per-step task. ``y`` is
        whole numbers below K for multiclass, otherwise numbers: (N,) or (N, K), with a T axis after
        N in a per-step task. NaN marks a label that is not known and does not count; nor does one
        that the task does not have (class K, infinity), nor any label of a padded step.
        ``books`` as in the forward.
        """
        if self.task.per_step:
            y = torch.where(mask_NT.reshape(*mask_NT.shape, *[1] * (y.dim() - 2)), y, torch.nan)
        if self.task.kind == "multiclass":
            known = (y >= 0) & (y < logits.shape[-1])
            flat = functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]),
                torch.where(known, y, 0).reshape(-1).long(),
                reduction="none",
            )
            loss = flat.view(known.shape) * known
        else:
            target = (
                y.to(logits.dtype).reshape(logits.shape) - self.task.center
            ) / self.task.spread
            known = torch.isfinite(target)
            target = torch.where(known, target, 0.0)
            if self.task.kind == "regression":
                elementwise = functional.mse_loss(logits, target, reduction="none")
            elif row_by_row(books):
                elementwise = in_whole_vectors(_cross_entropy, logits, target)
            else:
                elementwise = _cross_entropy(logits, target)
            loss = (elementwise * known).sum(-1) / known.sum(-1).clamp(min=1)
            known = known.any(-1)
        if not self.task.per_step:
            return loss
        counted_NT = mask_NT & known
        return (loss * counted_NT).sum(1) / counted_NT.sum(1).clamp(min=1)

    def scores(self, logits: Tensor) -> Tensor:
        """Return probabilities shaped like ``logits``, or the predicted values in regression."""
        if self.task.kind == "regression":
            return logits * self.task.spread + self.task.center
        if self.task.kind == "multiclass":
            return torch.softmax(logits, dim=-1)
        return in_whole_vectors(torch.sigmoid, logits)

    def _states(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        books: Bookkeeping | None,
        generator: Generator | None,
    ) -> Tensor:
        measured = x_NTF[..., : self.measured]
        if self.projection is not None:
            measured = self.projection(
                torch.where(mask_NT.unsqueeze(2), measured, 0.0), books=books
            )
        if self.embedding is not None:
            codes_NTM = torch.where(mask_NT.unsqueeze(2), x_NTF[..., -self.codes :], 0.0).long()
            measured = torch.cat([measured, code_vectors(self.embedding, codes_NTM, books)], dim=2)
        states: Tensor = self.recurrent(measured, mask_NT, books=books, generator=generator)
        return states

    def _pool(self, h_NTH: Tensor, mask_NT: Tensor, books: Bookkeeping | None) -> Tensor:
        if self.attention is not None:
            pooled: Tensor = self.attention(h_NTH, mask_NT, books=books)
            return pooled
        if self.pooling == "last":
            if not self.recurrent.bidirectional:
                return h_NTH[:, -1]
            size = self.recurrent.hidden
            return torch.cat([h_NTH[:, -1, :size], h_NTH[:, 0, size:]], dim=1)
        valid_NT1 = mask_NT.unsqueeze(2)
        if self.pooling == "mean":
            return (h_NTH * valid_NT1).sum(1) / valid_NT1.sum(1).clamp(min=1)
        if self.pooling == "max":
            return h_NTH.masked_fill(~valid_NT1, -1.0).amax(1)  # states lie in (-1, 1)
        return h_NTH


def in_whole_vectors(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Apply an elementwise function; a number's result does not depend on where it stands.

    torch computes the last few numbers, which fill no vector register, by another rule than the
    rest, and differs in the last bit; so zeros are appended.
    """
    size = values[0].numel()
    padded = [functional.pad(value.reshape(-1), (0, -size % _VECTOR)) for value in values]
    return function(*padded)[:size].view(values[0].shape)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def code_vectors(table: Embedding, codes_NTM: Tensor, books: Bookkeeping | None) -> Tensor:
    """Return the sum (N, T, W) of the vectors of each step's codes, zero in a step without any.

    All lookups are one call, so that a patient's gradient of the table is filed once.
    """
    lines = (codes_NTM - 1).clamp(min=0, max=len(table.weight) - 1).flatten(1)
    vectors: Tensor = table(lines, books=books)
    vector_NTMW = vectors.view(*codes_NTM.shape, -1)
    summed: Tensor = (vector_NTMW * (codes_NTM > 0).unsqueeze(3)).sum(2)
    return summed


def build_model(study: Study, features: int, seed: int) -> RecurrentModel:
    """Build the study's model with weights that depend on ``seed`` alone.

    torch's global random state is neither read nor changed.
    """
    generator = Generator().manual_seed(seed)
    series = len(series_names(study)) if study.data.clock == "hour" else 0
    return RecurrentModel(features, study.model, study.task, generator, study.tokens, series)
