"""The network that a study asks for; the recurrent one with its inputs, cell, pooling and head.

The last M of a step's features are numbers of codes.
"""

import torch
from torch import Generator, Tensor, nn

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.branch import (
    Branch,
    Inputs,
    begin_at,
    code_vectors,
    mean_of_valid,
)
from consilium.shared.model.convolution import ConvolutionModel
from consilium.shared.model.gru_d import GRUD
from consilium.shared.model.installed_module import installed_network
from consilium.shared.model.layers import AttentionPooling, Embedding, LayerNorm, Linear
from consilium.shared.model.linear_path import LinearModel, read_of_steps
from consilium.shared.model.mean_of_branches import MeanOfBranches, Member
from consilium.shared.model.recurrent import GRU, LSTM, RNN, Recurrent, drop
from consilium.shared.model.summary import SummaryModel
from consilium.shared.study.branches import (
    ConvolutionBranch,
    LinearBranch,
    ModuleBranch,
    Recurrence,
    RecurrentBranch,
    SummaryBranch,
)
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import channels, inputs_of, series_names
from consilium.shared.study.records import Tokens
from consilium.shared.study.training import Task

OwnBranch = RecurrentBranch | LinearBranch | SummaryBranch | ConvolutionBranch
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


class RecurrentModel(Branch):
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
        model: Recurrence,
        task: Task,
        generator: Generator | None = None,
        tokens: Tokens | None = None,
        series: int = 0,
        *,
        forecasts: int = 0,
    ) -> None:
        super().__init__(features, task, tokens, model.dropout)
        self.series = series
        self.pooling = "none" if task.per_step else model.pooling
        width = model.projection or self.measured
        self.projection = (
            Linear(self.measured, width, generator=generator) if model.projection else None
        )
        self.embedding: Embedding | None = None
        if tokens is not None:
            self.embedding = Embedding(self.lines, tokens.width, generator=generator)
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
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)
        begin_at(self.head, task)
        self.forecast_weight = model.forecast
        self.forecast = Linear(size, forecasts, generator=generator) if model.forecast else None

    def forward(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """See :class:`.Branch`; beside the steps the linear path reads."""
        return self._states_and_logits(x_NTF, mask_NT, books, generator, read)[1]

    def _states_and_logits(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        books: Bookkeeping | None,
        generator: Generator | None,
        read: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        h_NTH = self._states(x_NTF, mask_NT, books, generator)
        if self.skip is not None and read is None:
            read = self.read(x_NTF, mask_NT)
        return h_NTH, self.logits_of(h_NTH, mask_NT, read, books=books, generator=generator)

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
        """See :class:`.Branch`; a forecast's loss is added."""
        h_NTH, logits = self._states_and_logits(x_NTF, mask_NT, books, generator)
        loss_N = self.loss_per_stay(logits, y, mask_NT, books, loss=self.task.loss, weight=weight)
        if self.forecast is None:
            return loss_N
        told = self._forecast_loss(self.forecast, h_NTH, x_NTF, mask_NT, books)
        return loss_N + self.forecast_weight * told

    def _forecast_loss(
        self,
        layer: Linear,
        h_NTH: Tensor,
        x_NTF: Tensor,
        mask_NT: Tensor,
        books: Bookkeeping | None,
    ) -> Tensor:
        """Return of each stay (N,) the mean squared error over what each next step measured.

        The first two blocks of the features are the series' values and whether they were measured.
        """
        told_NTV: Tensor = layer(h_NTH[:, :-1], books=books)
        series = told_NTV.shape[2]
        value_NTV, measured_NTV = x_NTF[:, 1:, :series], x_NTF[:, 1:, series : 2 * series] > 0
        known_NTV = measured_NTV & (mask_NT[:, :-1] & mask_NT[:, 1:]).unsqueeze(2)
        error_NTV = torch.where(known_NTV, told_NTV - value_NTV, 0.0).square()
        return error_NTV.sum((1, 2)) / known_NTV.sum((1, 2)).clamp(min=1)

    def logits_of(
        self,
        h_NTH: Tensor,
        mask_NT: Tensor,
        read: Tensor | None,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return the logits of recurrent states; ``read`` is what the linear path reads."""
        pooled = self._pool(h_NTH, mask_NT, books)
        if self.norm is not None:
            pooled = self.norm(pooled, books=books)
        pooled = drop(pooled, self.dropout if self.training else 0.0, generator)
        logits: Tensor = self.head(pooled, books=books)
        if self.skip is not None:
            logits = logits + self.skip(read, books=books)
        return logits

    def read(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor:
        """Return what the linear path reads; see :class:`.Branch`."""
        if self.skip is None:
            return super().read(x_NTF, mask_NT)
        return read_of_steps(x_NTF[..., : self.measured], mask_NT, self.series, self.task)

    @property
    def read_from(self) -> list[int]:
        """See :class:`.Branch`."""
        return [] if self.skip is None else [*range(self.measured), *range(self.series)]

    @property
    def streams(self) -> bool:
        """See :class:`.Branch`."""
        return not self.recurrent.bidirectional

    @property
    def numbers_kept(self) -> int:
        """See :class:`.Branch`."""
        net = self.recurrent
        return 8 * net.hidden * net.layers * (1 + net.bidirectional)

    @property
    def output_layers(self) -> list[Linear]:
        """See :class:`.Branch`."""
        return [self.head] if self.skip is None else [self.head, self.skip]

    @property
    def onnx_obstacle(self) -> str:
        """See :class:`.Branch`."""
        return "cell 'gru-d'" if isinstance(self.recurrent, GRUD) else ""

    def attended(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor | None:
        """See :class:`.Branch`."""
        return None if self.attention is None else self.attention_weights(x_NTF, mask_NT)

    def attention_weights(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor:
        """Return the attention weights (N, T) behind a prediction; they sum to 1 over valid steps.

        Raises:
            ValueError: the model does not pool by attention.
        """
        if self.attention is None:
            raise ValueError(f"pooling is {self.pooling!r}, it must be 'attention' to have weights")
        with torch.no_grad():
            return self.attention.weights(self._states(x_NTF, mask_NT, None, None), mask_NT)

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
        if self.pooling == "mean":
            return mean_of_valid(h_NTH, mask_NT)
        if self.pooling == "max":
            return h_NTH.masked_fill(~mask_NT.unsqueeze(2), -1.0).amax(1)  # states lie in (-1, 1)
        return h_NTH


def build_model(study: Study, features: int, seed: int) -> Branch:
    """Build the study's model with weights that depend on ``seed`` alone.

    torch's global random state is neither read nor changed.
    """
    generator = Generator().manual_seed(seed)
    if study.model.branches:
        return MeanOfBranches(features, study.task, study.tokens, _members(study, generator))
    series = len(series_names(study)) if study.data.clock == "hour" else 0
    return RecurrentModel(
        features,
        study.model,
        study.task,
        generator,
        study.tokens,
        series,
        forecasts=len(series_names(study)),
    )


def _members(study: Study, generator: Generator) -> list[Member]:
    """Return every network of the study's branches, a branch's members one after the other."""
    found = []
    for branch in study.model.branches:
        inputs, places = _group(study, branch.inputs)
        share = 1 / (len(study.model.branches) * branch.members)
        for _ in range(branch.members):
            if isinstance(branch, ModuleBranch):
                made: Branch = installed_network(branch, inputs, study, generator)
            else:
                made = _network(branch, inputs, study.task, generator)
            found.append(Member(network=made, share=share, places=places))
    return found


def _network(branch: OwnBranch, inputs: Inputs, task: Task, generator: Generator) -> Branch:
    if isinstance(branch, RecurrentBranch):
        return RecurrentModel(
            inputs.features,
            branch,
            task,
            generator,
            inputs.tokens,
            inputs.counted,
            forecasts=inputs.series,
        )
    if isinstance(branch, SummaryBranch):
        return SummaryModel(inputs, branch, task, generator)
    if isinstance(branch, ConvolutionBranch):
        return _convolutions(branch, inputs, task, generator)
    return LinearModel(inputs, task, generator)


def _convolutions(
    branch: ConvolutionBranch, inputs: Inputs, task: Task, generator: Generator
) -> Branch:
    then = branch.recurrence
    if then is None:
        return ConvolutionModel(inputs, branch, task, generator)

    def recurrent(width: int) -> Branch:
        return RecurrentModel(width, then, task, generator)

    return ConvolutionModel(inputs, branch, task, generator, recurrent)


def _group(study: Study, names: tuple[str, ...]) -> tuple[Inputs, list[int]]:
    """Return what a branch that reads these variables and codes reads, and where it stands."""
    columns = names or (*study.variables, *(study.tokens.names if study.tokens else ()))
    places = inputs_of(study, columns)
    tokens = study.tokens
    if tokens is not None:
        codes = tuple(name for name in tokens.names if name in columns)
        tokens = tokens.model_copy(update={"names": codes}) if codes else None
    inputs = Inputs(
        features=len(places),
        series=sum(name in columns for name in series_names(study)),
        channels=channels(study),
        tokens=tokens,
    )
    return inputs, places
