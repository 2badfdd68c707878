"""What a study says of its networks: one recurrent network, or branches of several kinds.

Each branch reads a group of the study's inputs and learns by a loss of its own; a prediction is the
mean of the branches' logits.
"""

import difflib
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from consilium.shared.files.strict_toml import StrictTable
from consilium.shared.study.grid import check_grid

Fraction = Annotated[float, Field(ge=0, lt=1)]
Names = tuple[Annotated[str, Field(min_length=1)], ...]


class Recurrence(StrictTable):
    """A recurrent network; ``projection`` 0 feeds the inputs to the cell directly.

    ``cell`` "gru-d" is a GRU that learns how fast old values and the state fade: one layer,
    forwards, on the inputs themselves. ``skip`` adds a linear path from the inputs to the outputs,
    which withstands noise well; both learn by one loss. ``forecast`` is the weight of an auxiliary
    task: from the state after each step to tell what is measured in the next one. It shapes the
    network in training, and no prediction depends on it.
    """

    cell: Literal["rnn", "lstm", "gru", "gru-d"] = "lstm"
    hidden: int = Field(default=32, ge=1, le=4096)
    layers: int = Field(default=1, ge=1, le=8)
    bidirectional: bool = False
    pooling: Literal["last", "mean", "max", "attention"] = "last"
    projection: int = Field(default=0, ge=0, le=4096)
    layer_norm: bool = False
    dropout: Fraction = 0.0
    skip: bool = False
    forecast: float = Field(default=0.0, ge=0, le=100)

    @model_validator(mode="after")
    def _nobody_knows_the_next_step(self) -> Self:
        if self.forecast and self.bidirectional:
            raise ValueError(
                "forecast asks what the next step holds, which a bidirectional network has read; "
                "set bidirectional = false, or leave forecast out"
            )
        return self

    @model_validator(mode="after")
    def _decay_stands_alone(self) -> Self:
        plain = self.layers == 1 and not self.bidirectional and self.projection == 0
        if self.cell == "gru-d" and not plain:
            raise ValueError(
                'cell "gru-d" is one layer, forwards, on the inputs themselves; set layers = 1, '
                'bidirectional = false and projection = 0, or cell = "gru"'
            )
        return self

    @property
    def needs_numbers(self) -> bool:
        """Whether a part of it reads measured variables and no codes."""
        return bool(self.projection) or self.skip

    @property
    def described(self) -> str:
        """The network in words."""
        direction = "both directions" if self.bidirectional else "one direction"
        path = ", a linear path beside it" if self.skip else ""
        next_step = f", forecasts weigh {self.forecast:g}" if self.forecast else ""
        return (
            f"{self.cell.upper()}, {self.hidden} hidden units, {self.layers} layer(s), {direction},"
            f" pooling {self.pooling}, dropout {self.dropout:g}{path}{next_step}"
        )


class Group(StrictTable):
    """What every branch has: ``inputs`` are the variables and columns of codes that it reads.

    None named means all.
    """

    codes: ClassVar[bool] = False  # whether it reads them
    inputs: Names = Field(default=(), strict=False, max_length=10_000)

    @field_validator("inputs")
    @classmethod
    def _no_repetition(cls, names: Names) -> Names:
        if len(set(names)) != len(names):
            raise ValueError("must not hold an entry twice; remove the repetition")
        return names


class Ensemble(Group):
    """A branch of ``members`` equal networks that begin at different weights.

    Each learns by a loss of its own; the branch's logits are the mean of theirs.
    """

    members: int = Field(default=1, ge=1, le=64)


class RecurrentBranch(Recurrence, Ensemble):
    """A recurrent network as one branch among others."""

    codes: ClassVar[bool] = True
    kind: Literal["recurrent"]


class LinearBranch(Group):
    """A linear map of a step's inputs, and of which series were never measured so far."""

    members: ClassVar[int] = 1  # it starts at zero, so several would be alike
    kind: Literal["linear"]

    @property
    def described(self) -> str:
        """The branch in words."""
        return "a linear map"


class SummaryBranch(Ensemble):
    """A feed-forward network on what the steps so far come to.

    It reads of each series mean, spread, slope, minimum, maximum, last value and number of
    measurements, and the static variables. ``hidden`` are the units of each of its ``layers``.
    """

    kind: Literal["summary"]
    hidden: int = Field(default=32, ge=1, le=4096)
    layers: int = Field(default=1, ge=1, le=8)
    dropout: Fraction = 0.0

    @property
    def described(self) -> str:
        """The branch in words."""
        return (
            f"summaries, {self.hidden} hidden units, {self.layers} layer(s), "
            f"dropout {self.dropout:g}"
        )


class ConvolutionBranch(Ensemble):
    """Convolutions over time, or over a grid at each step; then pooling, or a recurrent ``cell``.

    Over time (``rows`` 0) each step's value is of this step and earlier ones alone. Each of
    ``layers`` has ``channels`` filters of ``kernel`` steps, which stand 1, 2, 4, ... steps apart in
    the first, second, third layer (Bai, Kolter and Koltun 2018, arXiv:1803.01271).

    With ``rows`` the branch's series are the cells of a grid, one row after the other in the
    study's order, such as the slices of a volume. Filters are of ``kernel`` by ``kernel`` cells,
    and after each layer every two by two cells become one, their largest value. A step's static
    variables and codes stand beside what is left of the grid.
    """

    codes: ClassVar[bool] = True
    kind: Literal["convolution"]
    channels: int = Field(default=32, ge=1, le=4096)
    kernel: int = Field(default=3, ge=1, le=256)
    layers: int = Field(default=1, ge=1, le=8)
    rows: int = Field(default=0, ge=0, le=64)
    cell: Literal["none", "rnn", "lstm", "gru"] = "none"
    hidden: int = Field(default=32, ge=1, le=4096)
    pooling: Literal["last", "mean", "max", "attention"] = "max"
    dropout: Fraction = 0.0

    @model_validator(mode="after")
    def _keys_have_a_use(self) -> Self:
        if self.cell == "none" and self.pooling == "attention":
            raise ValueError(
                'pooling "attention" weighs the states of a recurrent cell, and cell is "none"; '
                'set cell = "gru" or pooling = "max"'
            )
        if self.cell == "none" and self.hidden != 32:
            raise ValueError(
                f'hidden = {self.hidden} is of a recurrent cell, and cell is "none"; set cell = '
                '"gru" or remove hidden'
            )
        return self

    @property
    def recurrence(self) -> Recurrence | None:
        """The recurrent network that reads what the convolutions make, if there is one."""
        if self.cell == "none":
            return None
        return Recurrence(
            cell=self.cell, hidden=self.hidden, pooling=self.pooling, dropout=self.dropout
        )

    @property
    def described(self) -> str:
        """The branch in words."""
        over = f"over a grid of {self.rows} rows, " if self.rows else ""
        size = f"{self.kernel} x {self.kernel} cells" if self.rows else f"{self.kernel} steps"
        then = "" if self.cell == "none" else f"{self.cell.upper()}, {self.hidden} hidden units, "
        return (
            f"convolutions, {over}{self.channels} channels, {self.layers} layer(s) of {size}, "
            f"{then}pooling {self.pooling}, dropout {self.dropout:g}"
        )


Installed = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]{0,63}$")]
Setting = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str


class ModuleBranch(Ensemble):
    """A network of a package that people at every site and at the coordinator installed.

    The study names it and its exact package; no code travels (docs/models-from-outside.md).
    ``digest`` is the SHA-256 of the package's code; ``settings`` are handed to it as they are.
    """

    codes: ClassVar[bool] = True
    kind: Literal["module"]
    module: Installed
    version: Installed
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    settings: dict[Annotated[str, Field(min_length=1, max_length=64)], Setting] = Field(
        default={}, max_length=64
    )

    @property
    def described(self) -> str:
        """The branch in words."""
        return f"installed module {self.module} {self.version} ({self.digest[:16]})"


AnyBranch = Annotated[
    RecurrentBranch | LinearBranch | SummaryBranch | ConvolutionBranch | ModuleBranch,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[Group]] = {
    "recurrent": RecurrentBranch,
    "linear": LinearBranch,
    "summary": SummaryBranch,
    "convolution": ConvolutionBranch,
    "module": ModuleBranch,
}


class Model(Recurrence):
    """One recurrent network, or ``branches``, each with keys of its own."""

    branches: tuple[AnyBranch, ...] = Field(default=(), strict=False, max_length=16)

    @field_validator("branches", mode="before")
    @classmethod
    def _keys_are_of_the_kind(cls, branches: object) -> object:
        tables = branches if isinstance(branches, list | tuple) else ()
        for number, table in enumerate(tables, start=1):
            if not isinstance(table, dict):
                continue
            kind = table.get("kind")
            if not isinstance(kind, str) or kind not in KINDS:
                raise ValueError(
                    f"number {number} has kind {kind!r}, which must be one of "
                    f"{', '.join(map(repr, KINDS))}; choose one of them"
                )
            known = list(KINDS[kind].model_fields)
            for key in table:
                if key not in known:
                    nearest = difflib.get_close_matches(str(key), known, n=1)
                    remedy = f"did you mean {nearest[0]!r}?" if nearest else "remove it"
                    raise ValueError(
                        f"number {number}, of kind {kind!r}, knows {', '.join(known)} and not "
                        f"{key!r}; {remedy}"
                    )
        return branches

    @model_validator(mode="after")
    def _one_network_or_branches(self) -> Self:
        if self.branches:
            for key, field in Recurrence.model_fields.items():
                if getattr(self, key) != field.default:
                    raise ValueError(
                        f"has {key} of one network and also branches; move {key} into a branch of "
                        'kind "recurrent"'
                    )
        return self

    @property
    def recurrences(self) -> tuple[Recurrence, ...]:
        """The recurrent networks: the one, or those of the branches."""
        if not self.branches:
            return (self,)
        return tuple(branch for branch in self.branches if isinstance(branch, RecurrentBranch))

    @property
    def drops(self) -> bool:
        """Whether a network drops units in training; an installed module may."""
        return bool(self.modules) or self.without_dropout() != self.model_dump()

    @property
    def modules(self) -> tuple[ModuleBranch, ...]:
        """The branches that are installed modules."""
        return tuple(branch for branch in self.branches if isinstance(branch, ModuleBranch))

    def without_dropout(self) -> dict[str, object]:
        """Return the table with every network's dropout at 0."""
        content = self.model_dump()
        for table in (content, *content["branches"]):
            if "dropout" in table:
                table["dropout"] = 0.0
        return content

    @property
    def described(self) -> str:
        """The network or its branches in words."""
        if not self.branches:
            return super().described
        each = [
            f"{branch.members} x {branch.described}" if branch.members > 1 else branch.described
            for branch in self.branches
        ]
        return f"{len(each)} branches ({'; '.join(each)})"


def _check_forecast(place: str, steps: int, *, has_series: bool) -> None:
    """Refuse a forecast of nothing.

    Raises:
        ValueError: no series is read, or there is no next step.
    """
    if not has_series or steps < 2:
        raise ValueError(
            f'{place} forecasts what the next step measures of variables of role "series", and '
            f"reads {'none' if not has_series else 'one step'}; leave forecast out"
        )


def check_branches(
    model: Model,
    *,
    series: tuple[str, ...],
    static: tuple[str, ...],
    codes: tuple[str, ...],
    hours: bool,
    steps: int,
) -> None:
    """Refuse branches that cannot read what they name.

    Args:
        model: the study's.
        series: names of the study's time-series variables.
        static: names of its other variables.
        codes: names of its columns of codes.
        hours: whether its clock counts hours.
        steps: of its window.

    Raises:
        ValueError: one sentence: what does not fit, and the remedy.
    """
    if model.forecast:
        _check_forecast("[model]", steps, has_series=bool(series))
    for code in codes if model.branches else ():
        if not any(each.codes and code in (each.inputs or codes) for each in model.branches):
            raise ValueError(
                f"[tokens] names {code!r}, which no branch reads; add a branch of kind "
                '"recurrent" or "convolution" that does, or remove it'
            )
    for number, branch in enumerate(model.branches, start=1):
        place = f"[[model.branches]] number {number}, of kind {branch.kind!r},"
        for name in branch.inputs:
            if name not in (*series, *static, *codes):
                raise ValueError(
                    f"{place} reads {name!r}, which is not one of [variables] or [tokens] names; "
                    "name one that is"
                )
            if name in codes and not branch.codes:
                raise ValueError(f"{place} reads no codes; remove {name!r} from its inputs")
        measured = [n for n in branch.inputs or (*series, *static) if n not in codes]
        if isinstance(branch, RecurrentBranch) and branch.forecast:
            _check_forecast(place, steps, has_series=any(name in series for name in measured))
        if not measured and isinstance(branch, RecurrentBranch) and branch.needs_numbers:
            raise ValueError(
                f"{place} reads codes alone, and projection and skip read variables; add one to "
                "its inputs, or set projection = 0 and skip = false"
            )
        if isinstance(branch, ConvolutionBranch) and branch.rows:
            cells = tuple(name for name in series if name in measured)
            check_grid(place, cells, rows=branch.rows, kernel=branch.kernel, steps=steps)
        if (
            isinstance(branch, RecurrentBranch)
            and branch.cell == "gru-d"
            and not (hours and any(name in series for name in measured))
        ):
            raise ValueError(
                f'{place} has cell "gru-d", which fades what was measured hours ago, and reads no '
                'hours or no variable of role "series"; set cell = "gru"'
            )
