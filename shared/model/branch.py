"""What every network of a study has in common: it is the whole model, or one branch of it.

A consumer (training, prediction, streaming, explanation, export) asks these methods and need not
know which kind of network it has.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.layers import Embedding, Linear, row_by_row
from consilium.shared.model.losses import PLAIN, in_whole_vectors, of_classes, of_labels
from consilium.shared.model.survival import first_log_odds, risks_by_cut
from consilium.shared.study.input_names import CHANNELS, UNKNOWN_TOKEN
from consilium.shared.study.loss import Loss
from consilium.shared.study.records import Tokens
from consilium.shared.study.training import Task


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a network reads of each step, in the order of ``feature_names``.

    features: F. series: V. channels: of each series. tokens: columns of codes, if there are any.
    """

    features: int
    series: int = 0
    channels: int = len(CHANNELS)
    tokens: Tokens | None = None

    @property
    def counted(self) -> int:
        """Number of series of which the inputs say how often they were measured: V or 0."""
        return self.series if self.channels == len(CHANNELS) else 0


class Branch(nn.Module):
    """A network from a stay's inputs to logits, and the loss by which it learns.

    Attributes:
        features: F, inputs of a step; the first ``measured`` are numbers, the last M codes.
        lines: lines of the table of codes' vectors.
        dropout: largest share that it drops in training.
    """

    def __init__(
        self, features: int, task: Task, tokens: Tokens | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.features, self.task, self.dropout = features, task, dropout
        self.codes = 0 if tokens is None else len(tokens.names)
        self.measured = features - self.codes
        # number 0, no code, needs no line
        self.lines = 0 if tokens is None else len(tokens.vocabulary) + UNKNOWN_TOKEN

    def forward(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """Return logits: (N, K), or (N, T, K) in a per-step task.

        Layers get books and generator by name, since Opacus's hooks detach positional arguments.

        Args:
            x_NTF: features; never looked at where ``mask_NT`` is false.
            mask_NT: boolean, true where a step counts.
            books: given, the backward files per-patient records in it instead of gradients.
            generator: source of dropout in training mode.
            read: what is read instead of what :meth:`read` returns; integrated gradients vary it.
        """
        raise NotImplementedError

    def read(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor:
        """Return what it reads of a stay beside the steps, one vector (N, I) as of the last step.

        In a per-step task, one as of every step (N, T, I). I is 0 where it reads the steps alone.
        """
        stays = mask_NT.shape if self.task.per_step else mask_NT.shape[:1]
        return x_NTF.new_zeros(*stays, 0)

    @property
    def read_from(self) -> list[int]:
        """For each of the I numbers of :meth:`read`, a feature of the same variable."""
        return []

    @property
    def streams(self) -> bool:
        """Whether it can go on from a state, step by step; one that runs backwards cannot."""
        return True

    @property
    def numbers_kept(self) -> int:
        """About how many numbers of each step a backward needs, beside the inputs."""
        return 0

    @property
    def output_layers(self) -> list[Linear]:
        """The layers that the logits are the sum of, or the mean over branches of such sums."""
        raise NotImplementedError

    @property
    def onnx_obstacle(self) -> str:
        """What ONNX has no operator for; empty if there is a graph."""
        return ""

    def attended(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor | None:
        """Return the weight (N, T) of each step, if one network pools all by attention."""
        del x_NTF, mask_NT
        return None

    def training_loss(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        y: Tensor,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return what training lowers of each stay (N,): the study's own loss.

        Arguments as of the forward and :meth:`loss_per_stay`.
        """
        logits = self(x_NTF, mask_NT, books=books, generator=generator)
        return self.loss_per_stay(logits, y, mask_NT, books, loss=self.task.loss, weight=weight)

    def loss_per_stay(
        self,
        logits: Tensor,
        y: Tensor,
        mask_NT: Tensor,
        books: Bookkeeping | None = None,
        *,
        loss: Loss = PLAIN,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return each stay's loss (N,): cross entropy, or squared error in spreads for regression.

        The mean over known outputs is taken, but the sum over intervals for survival
        (:mod:`consilium.shared.model.survival`); and over valid steps in a per-step task. ``y`` is
        whole numbers below K for multiclass, otherwise numbers: (N,) or (N, K), with a T axis after
        N in a per-step task. NaN marks a label that is not known and does not count; nor does one
        that the task does not have (class K, infinity), nor any label of a padded step.
        ``books`` as in the forward; ``loss`` is of classes and labels; ``weight``, shaped like
        ``y``, multiplies what each label adds.
        """
        alone = row_by_row(books)
        if self.task.per_step:
            y = torch.where(mask_NT.reshape(*mask_NT.shape, *[1] * (y.dim() - 2)), y, torch.nan)
        if self.task.kind == "multiclass":
            known = (y >= 0) & (y < logits.shape[-1])
            flat = of_classes(
                logits.reshape(-1, logits.shape[-1]),
                torch.where(known, y, 0).reshape(-1).long(),
                loss,
                alone=alone,
            )
            stay = flat.view(known.shape) * known
            stay = stay if weight is None else stay * weight
        else:
            target = (
                y.to(logits.dtype).reshape(logits.shape) - self.task.center
            ) / self.task.spread
            known = torch.isfinite(target)
            target = torch.where(known, target, 0.0)
            if self.task.kind == "regression":
                elementwise = functional.mse_loss(logits, target, reduction="none")
            else:
                elementwise = of_labels(logits, target, loss, alone=alone)
            if weight is not None:
                elementwise = elementwise * weight.reshape(logits.shape)
            stay = (elementwise * known).sum(-1)
            if self.task.kind != "survival":
                stay = stay / known.sum(-1).clamp(min=1)
            known = known.any(-1)
        if not self.task.per_step:
            return stay
        counted_NT = mask_NT & known
        return (stay * counted_NT).sum(1) / counted_NT.sum(1).clamp(min=1)

    def scores(self, logits: Tensor) -> Tensor:
        """Return probabilities shaped like ``logits``, or the predicted values in regression.

        Those of survival are the risks by the end of each interval.
        """
        if self.task.kind == "regression":
            return logits * self.task.spread + self.task.center
        if self.task.kind == "multiclass":
            return torch.softmax(logits, dim=-1)
        if self.task.kind == "survival":
            return risks_by_cut(logits)
        return in_whole_vectors(torch.sigmoid, logits)


def last_valid(values_NTI: Tensor, mask_NT: Tensor) -> Tensor:
    """Return each stay's values (N, I) of its last valid step; of the first if there is none."""
    step_T = torch.arange(1, mask_NT.shape[1] + 1, device=mask_NT.device)
    last_N = (mask_NT * step_T).amax(1).sub_(1).clamp_(min=0)
    row_N = torch.arange(len(values_NTI), device=values_NTI.device)
    return values_NTI[row_N, last_N]


def mean_of_valid(values_NTI: Tensor, mask_NT: Tensor) -> Tensor:
    """Return the mean (N, I) over each stay's valid steps; 0 if there is none."""
    valid_NT1 = mask_NT.unsqueeze(2)
    return (values_NTI * valid_NT1).sum(1) / valid_NT1.sum(1).clamp(min=1)


def begin_at(layer: Linear, task: Task) -> None:
    """Let the outputs begin at the task's public ``prevalence``, if it has one."""
    with torch.no_grad():
        if task.prevalence is not None and layer.bias is not None:
            odds = math.log(task.prevalence / (1 - task.prevalence))
            layer.bias.fill_(first_log_odds(task) if task.kind == "survival" else odds)


def code_vectors(table: Embedding, codes_NTM: Tensor, books: Bookkeeping | None) -> Tensor:
    """Return the sum (N, T, W) of the vectors of each step's codes, zero in a step without any.

    All lookups are one call, so that a patient's gradient of the table is filed once.
    """
    lines = (codes_NTM - 1).clamp(min=0, max=len(table.weight) - 1).flatten(1)
    vectors: Tensor = table(lines, books=books)
    vector_NTMW = vectors.view(*codes_NTM.shape, -1)
    summed: Tensor = (vector_NTMW * (codes_NTM > 0).unsqueeze(3)).sum(2)
    return summed
