"""The study: everything a coordinator may ask of a site, declared, validated and digested.

A study is a TOML file. It carries no code. A site approves its digest, every message carries the
digest, and a site refuses anything else. Defaults are filled in before the digest is taken, so two
files that mean the same have the same digest.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from shared import mask_graph
from shared.declaration import Part, parse_toml, read_text, validate
from shared.dictionary import Finite, Positive, Variable, completed
from shared.errors import StudyError
from shared.personalisation import Personalisation, check_personalisation

MINIMUM_SITES = 3  # the sum of two sites tells each of them the other's update
BINS, PASSES = 400, 4  # of an evaluation without privacy noise
BINS_WITH_NOISE, PASSES_WITH_NOISE = 32, 1  # each bin carries noise, and each pass is paid for

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0, lt=1)]
RingBits = Literal[16, 20, 24, 28, 32]


class Landmarks(Part):
    """Rolling windows for early warning: from every landmark, does the outcome happen soon?

    Landmarks stand every ``every_h`` hours of the first ``longest_h`` of a stay, before its end and
    before the outcome. Each is a window of the ``window_h`` hours before it, with the label 1 if
    the outcome happens within ``horizon_h`` after it.
    """

    every_h: int = Field(ge=1)
    horizon_h: int = Field(ge=1)
    longest_h: int = Field(default=24 * 14, ge=1, le=24 * 365)


class BeforeEvent(Part):
    """A window of ``window_h`` that ends ``gap_h`` before the outcome, or the end of the stay.

    Outcomes more than ``longest_h`` after the start of a stay have no window.
    """

    gap_h: int = Field(default=1, ge=1)
    longest_h: int = Field(default=24 * 14, ge=1, le=24 * 365)


class AfterEvent(Part):
    """A window of ``window_h`` that begins when ``variable`` is first at ``least`` or above.

    A stay has no window where that does not happen, or where the stay, the outcome or the first
    ``longest_h`` end before the window does.
    """

    variable: str = Field(min_length=1, max_length=256)
    least: Finite
    longest_h: int = Field(default=24 * 14, ge=1, le=24 * 365)


class Data(Part):
    """Which records a site must bring, and how they become steps.

    With ``clock`` "hour" time is time. With "position" a record is a sequence without hours
    (samples of a heart beat, slices, tokens, visits), and ``window_h`` and ``step_h`` count places
    in it: place 0 lies at hour 0, place 1 at hour 1. ``rate_hz`` is the samples a second to which
    sources of waveforms resample.
    """

    source: Name
    clock: Literal["hour", "position"] = "hour"
    rate_hz: Positive | None = None
    label: str = Field(min_length=1, max_length=256)
    window_h: int = Field(default=48, ge=1, le=24 * 365)
    step_h: int = Field(default=1, ge=1)
    on_bad_file: Literal["refuse", "skip"] = "refuse"
    on_out_of_range: Literal["drop", "clip"] = "drop"
    minimum_patients: int = Field(default=20, ge=1)
    landmarks: Landmarks | None = None
    before_event: BeforeEvent | None = None
    after_event: AfterEvent | None = None

    @model_validator(mode="after")
    def _one_kind_of_window(self) -> Self:
        if len(self._placed) > 1:
            raise ValueError(f"has {' and '.join(self._placed)}; keep one of these tables")
        if not self.fixed and self.clock == "position":
            raise ValueError(
                'has windows that end in the middle of a stay, and clock = "position", which has '
                'no hours; set clock = "hour" or remove the table'
            )
        return self

    @property
    def fixed(self) -> bool:
        """Whether the window is the first hours of every stay."""
        return not self._placed

    @property
    def reach_h(self) -> int:
        """Hours from the start of a stay in which its events are read."""
        return next((table.longest_h for table in self._placed.values()), self.window_h)

    @property
    def _placed(self) -> dict[str, Landmarks | BeforeEvent | AfterEvent]:
        """The tables that place windows elsewhere than in the first hours, by name."""
        tables = {
            "landmarks": self.landmarks,
            "before_event": self.before_event,
            "after_event": self.after_event,
        }
        return {name: table for name, table in tables.items() if table is not None}

    @property
    def steps(self) -> int:
        """Number of time steps T."""
        return -(-self.window_h // self.step_h)


class Tokens(Part):
    """Codes that become learned vectors: diagnoses, drugs, atoms.

    ``names`` are the source's columns of codes; the vectors of several codes in one step are added.
    ``vocabulary`` is a public list; all codes outside it share one more vector. ``width`` is the
    length of a vector.
    """

    names: tuple[str, ...] = Field(min_length=1, max_length=64, strict=False)
    vocabulary: tuple[str, ...] = Field(min_length=1, max_length=65_000, strict=False)
    width: int = Field(default=16, ge=1, le=4096)

    @model_validator(mode="after")
    def _no_repetition(self) -> Self:
        for key in ("names", "vocabulary"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                raise ValueError(f"{key} must not hold an entry twice; remove the repetition")
        return self


class Task(Part):
    """What the model predicts; ``outputs`` is the number of classes, labels or targets.

    In regression ``center`` and ``spread`` are public reference values of the target, in its unit:
    a typical value and a typical deviation. The model learns (target - center) / spread.
    ``prevalence`` is a public estimate of how often a binary outcome occurs; the model starts there
    instead of spending noisy steps on it.
    """

    kind: Literal["binary", "multiclass", "multilabel", "regression"] = "binary"
    outputs: int = Field(default=1, ge=1, le=4096)
    per_step: bool = False
    center: Finite = 0.0
    spread: Positive = 1.0
    prevalence: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _outputs_fit_kind(self) -> Self:
        if self.kind != "regression" and (self.center, self.spread) != (0.0, 1.0):
            raise ValueError(
                f"center and spread are for a regression task, not {self.kind}; remove them"
            )
        if self.prevalence is not None and self.kind != "binary":
            raise ValueError(f"prevalence is for a binary task, not {self.kind}; remove it")
        if self.kind == "binary" and self.outputs != 1:
            raise ValueError(f"outputs {self.outputs} must be 1 for a binary task")
        if self.kind == "multiclass" and self.outputs < 2:
            raise ValueError(f"outputs {self.outputs} must be at least 2 for a multiclass task")
        return self


class Model(Part):
    """The recurrent network; ``projection`` 0 feeds the inputs to the cell directly.

    ``cell`` "gru-d" is a GRU that learns how fast old values and the state fade: one layer,
    forwards, on the inputs themselves. ``skip`` adds a linear path from the inputs to the outputs,
    which stands noise well.
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

    @model_validator(mode="after")
    def _decay_stands_alone(self) -> Self:
        plain = self.layers == 1 and not self.bidirectional and self.projection == 0
        if self.cell == "gru-d" and not plain:
            raise ValueError(
                'cell "gru-d" is one layer, forwards, on the inputs themselves; set layers = 1, '
                'bidirectional = false and projection = 0, or cell = "gru"'
            )
        return self


class Training(Part):
    """What a site does with its own patients in one round.

    ``proximal`` is FedProx's mu: the local loss has mu / 2 times the squared distance to the
    weights that the round began with added to it. ``control_variates`` are SCAFFOLD's: every local
    step is corrected by how the site's mean gradient differs from all sites'. In privacy mode
    ``distributed`` a round is one step, whose length is ``[aggregation] server_learning_rate``
    alone; ``learning_rate`` is that of training at a site.
    """

    local_steps: int = Field(default=10, ge=1, le=10_000)
    sampling_rate: float = Field(default=0.1, gt=0, le=1)
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: Fraction = 0.0
    weight_decay: float = Field(default=0.0, ge=0)
    l1: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=0.0, ge=0)
    proximal: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    control_variates: bool = False

    @model_validator(mode="after")
    def _steps_can_drift(self) -> Self:
        if self.control_variates and self.local_steps == 1:
            raise ValueError(
                "control_variates cancel in the sum over sites where each takes one step; raise "
                "local_steps above 1 or leave them out"
            )
        if self.control_variates and (self.optimizer != "sgd" or self.momentum):
            raise ValueError(
                f"control_variates are mean gradients, which steps of optimizer {self.optimizer!r} "
                f'with momentum {self.momentum:g} do not show; set optimizer = "sgd" and '
                "momentum = 0, or leave them out"
            )
        if self.control_variates and self.proximal:
            raise ValueError(
                f"control_variates and proximal {self.proximal:g} both hold back the same drift; "
                "keep one of the two"
            )
        if self.proximal and self.local_steps == 1:
            raise ValueError(
                f"proximal {self.proximal:g} holds a site near the weights a round began with, "
                "which one step never leaves; raise local_steps above 1 or set proximal = 0"
            )
        return self


class Privacy(Part):
    """Patient-level differential privacy; ``none`` is for research on public data only.

    ``clip_norm`` bounds a patient's gradient (L2). ``statistics_fraction`` is the part of epsilon
    spent on the normalisation statistics.
    """

    mode: Literal["none", "site", "distributed"] = "site"
    epsilon: Positive = 8.0
    delta: float = Field(default=1e-5, gt=0, le=0.01)
    clip_norm: Positive = 1.0
    statistics_fraction: float = Field(default=0.1, gt=0, lt=1)


class Aggregation(Part):
    """The secure sum and the server's step on the mean update.

    ``strategy`` is how the server steps along the mean update (:mod:`server.aggregation`).
    ``neighbours`` is the number of other sites with which each shares masks: all of them up to 200
    sites, the fewest that are safe beyond, unless given. With ``groups`` above 1 each group of
    sites, consecutive in ``sites``, is summed by itself and the model takes the coordinate-wise
    median of the groups' mean updates: fewer than half of the groups can be poisoned, and the
    coordinator sees the sum of every group.
    """

    strategy: Literal["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"] = "fedavg"
    server_learning_rate: Positive = 1.0
    momentum: Fraction = 0.9
    second_moment: Fraction = 0.99
    adaptivity: Positive = 1e-3
    average_decay: Fraction = 0.0
    weighting: Literal["patients", "uniform"] = "patients"
    update_norm: Positive = 10.0
    ring_bits: RingBits = 32
    minimum_sites: int | None = Field(default=None, ge=MINIMUM_SITES)
    threshold: int | None = Field(default=None, ge=2)
    tolerated_collusion: int = Field(default=1, ge=0)
    neighbours: int | None = Field(default=None, ge=2)
    groups: int = Field(default=1, ge=1)
    profile: Literal["semi-honest", "malicious"] = "semi-honest"
    max_weight: int = Field(default=100_000, ge=1)
    round_timeout_s: Positive = 600.0


class Subgroup(Part):
    """How patients are told apart by a static variable: below the first cut, between two, above.

    ``names`` are words for the parts, from below the first cut upwards.
    """

    cuts: tuple[Finite, ...] = Field(min_length=1, max_length=16, strict=False)
    names: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), strict=False
    )

    @model_validator(mode="after")
    def _names_fit_cuts(self) -> Self:
        if any(low >= high for low, high in zip(self.cuts, self.cuts[1:], strict=False)):
            raise ValueError(f"cuts {list(self.cuts)} must ascend; put them in order")
        if self.names and len(self.names) != len(self.cuts) + 1:
            raise ValueError(
                f"names has {len(self.names)} entries and must have one more than cuts, "
                f"{len(self.cuts) + 1}; name every part"
            )
        return self


class Evaluation(Part):
    """Federated evaluation on patients kept out of training, by secure sums of score counts.

    ``bins`` and ``passes`` follow from the privacy mode unless given (docs/decisions/090): the
    finished model is evaluated up to ``passes`` times, each with bins placed where the one before
    found risks. Counts are exact at risks of ``thresholds``. Beside all patients, it sums up each
    of ``subgroups``, told by a static variable, and with ``per_site`` those hospitals whose own
    policy releases their figures; none with fewer than ``smallest_group`` patients with, or
    without, the outcome is told. At most ``explained_patients`` of each site are explained, and
    what the model looks at is summed over them.
    """

    validation_fraction: Fraction = 0.0
    bins: int | None = Field(default=None, ge=8, le=10_000)
    passes: int | None = Field(default=None, ge=1, le=10)
    every: int = Field(default=1, ge=1)
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.05, 0.1, 0.2, 0.3, 0.5), max_length=5, strict=False
    )

    per_site: bool = False
    subgroups: dict[str, Subgroup] = Field(default={}, max_length=64)
    smallest_group: int = Field(default=10, ge=1)
    explained_patients: int = Field(default=0, ge=0, le=10_000)

    @model_validator(mode="after")
    def _thresholds_ascend(self) -> Self:
        if any(a >= b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False)):
            raise ValueError(f"thresholds {list(self.thresholds)} must ascend; put them in order")
        return self


class Study(Part):
    """A whole study. ``digest`` identifies it; ``seed`` makes runs without noise repeatable.

    ``variables`` that :mod:`shared.dictionary` has may be named without their declaration.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Name
    title: str = Field(min_length=1, max_length=200)
    purpose: str = Field(default="", max_length=2000)
    rounds: int = Field(ge=1, le=100_000)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    sites: tuple[Name, ...] = Field(strict=False)
    data: Data
    variables: dict[str, Variable] = Field(min_length=1, max_length=10_000)
    tokens: Tokens | None = None
    task: Task = Task()
    model: Model = Model()
    training: Training = Training()
    privacy: Privacy = Privacy()
    aggregation: Aggregation = Aggregation()
    personalisation: Personalisation = Personalisation()
    evaluation: Evaluation = Evaluation()

    @field_validator("variables", mode="before")
    @classmethod
    def _known_by_name(cls, variables: object) -> object:
        return completed(variables)

    @model_validator(mode="after")
    def _sites_can_be_summed(self) -> Self:
        sites, least = len(self.sites), self.minimum_sites
        if len(set(self.sites)) != sites:
            raise ValueError("sites must not name a site twice; remove the repetition")
        if sites % self.aggregation.groups or self.aggregation.groups == 2:
            raise ValueError(
                f"[aggregation] groups {self.aggregation.groups} must be 1, or at least 3 and "
                f"divide the number of sites, {sites}; choose another number of groups or of sites"
            )
        if self.group_size < least:
            raise ValueError(
                f"{self._place} {self.group_size}, below minimum_sites {least}; "
                "add sites or lower [aggregation] minimum_sites"
            )
        try:
            mask_graph.check_degree(
                self.group_size, self.degree, self.aggregation.tolerated_collusion
            )
        except StudyError as error:
            raise ValueError(f"[aggregation] neighbours: {error}") from None
        if self.threshold > least:
            raise ValueError(
                f"[aggregation] threshold {self.threshold} must not exceed minimum_sites "
                f"{least}; raise minimum_sites or lower threshold"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.tokens is not None and (both := set(self.tokens.names) & set(self.variables)):
            raise ValueError(
                f"[tokens] names {sorted(both)[0]!r}, which is also one of [variables]; "
                "name it in one place only"
            )
        if self.model.cell == "gru-d" and (
            self.data.clock == "position"
            or all(variable.role == "static" for variable in self.variables.values())
        ):
            raise ValueError(
                '[model] cell "gru-d" fades what was measured hours ago, and this study has no '
                'hours or no variable of role "series"; set cell = "gru"'
            )
        if not self.data.fixed and self.task.per_step:
            raise ValueError(
                "[task] per_step labels every hour of a stay, but [data] cuts it into windows with "
                "one label each; remove per_step, or the table that places them"
            )
        after = self.data.after_event
        if after is not None and (
            after.variable not in self.variables or self.variables[after.variable].role != "series"
        ):
            raise ValueError(
                f"[data.after_event] names {after.variable!r}, which is not one of [variables] "
                'with role = "series"; name one that is'
            )
        if self.data.landmarks is not None and self.task.kind != "binary":
            raise ValueError(
                f"[data.landmarks] asks whether an outcome happens, a task kind of {self.task.kind}"
                ' does not; set [task] kind = "binary"'
            )
        for name in self.evaluation.subgroups:
            if name not in self.variables or self.variables[name].role != "static":
                raise ValueError(
                    f"[evaluation] subgroups names {name!r}, which is not one of [variables] with "
                    'role = "static"; name one that is'
                )
        explained = self.evaluation.explained_patients
        if explained and (self.task.outputs > 1 or not self.evaluation.validation_fraction):
            raise ValueError(
                f"[evaluation] explained_patients {explained} explains the one output of a task on "
                f"validation patients; this study has {self.task.outputs} outputs and "
                f"validation_fraction {self.evaluation.validation_fraction:g}: set it to 0, or "
                "validation_fraction above 0"
            )
        if self.privacy.mode == "distributed" and self.training.local_steps != 1:
            raise ValueError(
                f"[training] local_steps {self.training.local_steps} must be 1 in privacy mode "
                "distributed, whose guarantee covers one step a round; set local_steps = 1"
            )
        if self.training.control_variates and self.aggregation.groups > 1:
            raise ValueError(
                "[training] control_variates need the mean over all sites, and [aggregation] "
                f"groups {self.aggregation.groups} take a median; set groups = 1 or leave them out"
            )
        check_personalisation(self)
        return self

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Sites that are summed together, by group; one group of all unless the study says so."""
        size = self.group_size
        return tuple(self.sites[i : i + size] for i in range(0, len(self.sites), size))

    @property
    def group_size(self) -> int:
        """Number of sites in each group."""
        return len(self.sites) // self.aggregation.groups

    @property
    def dropouts_tolerated(self) -> int:
        """Sites that may fail in a round before the sum of their group is void."""
        return self.group_size - self.minimum_sites

    @property
    def degree(self) -> int:
        """Other sites with which each site shares masks."""
        if self.aggregation.neighbours is not None:
            return self.aggregation.neighbours
        if self.group_size <= mask_graph.COMPLETE_SITES:
            return self.group_size - 1
        return mask_graph.least_degree(self.group_size, self.aggregation.tolerated_collusion)

    @property
    def _place(self) -> str:
        return "sites names" if self.aggregation.groups == 1 else "each group of sites has"

    @property
    def minimum_sites(self) -> int:
        """Fewest sites whose sum may be released: the study's, or the threshold, never below 3."""
        if self.aggregation.minimum_sites is not None:
            return self.aggregation.minimum_sites
        return max(MINIMUM_SITES, self.threshold, self.aggregation.tolerated_collusion + 2)

    @property
    def threshold(self) -> int:
        """Shares needed to unmask: the study's, or the smallest its profile allows."""
        if self.aggregation.threshold is not None:
            return self.aggregation.threshold
        sites, collusion = self.group_size, self.aggregation.tolerated_collusion
        if self.aggregation.profile == "malicious":
            return max((sites + collusion) // 2 + 1, collusion + 1)
        return max(sites // 2 + 1, collusion + 1)

    @property
    def bins(self) -> int:
        """Bins of risks that evaluation counts in: many, or few where each one carries noise."""
        if self.evaluation.bins is not None:
            return self.evaluation.bins
        return BINS if self.privacy.mode == "none" else BINS_WITH_NOISE

    @property
    def passes(self) -> int:
        """Most times that the finished model is evaluated, each with finer bins than before."""
        if self.evaluation.passes is not None:
            return self.evaluation.passes
        return PASSES if self.privacy.mode == "none" else PASSES_WITH_NOISE

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the canonical JSON of the study with every default filled in."""
        return hashlib.sha256(self.to_canonical_json()).digest()

    def to_canonical_json(self) -> bytes:
        """UTF-8 JSON, tables' keys sorted, no spaces; the order of ``variables`` is kept.

        The order of variables is the order of the model's inputs, so it is part of the meaning.
        """
        content = self.model_dump(mode="json", by_alias=True)
        content["variables"] = [[name, spec] for name, spec in content["variables"].items()]
        return json.dumps(
            content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()


def load_study(path: Path) -> Study:
    """Read and validate a study file.

    Raises:
        StudyError: the file is missing, is not TOML, or is not a valid study; one sentence that
            names the file, the key, the value, the bound and the remedy.
    """
    text = read_text(path, what="study", raises=StudyError)
    return parse_study(text, where=str(path))


def parse_study(text: str, *, where: str = "study") -> Study:
    """Validate a study given as TOML text; ``where`` names it in errors.

    Raises:
        StudyError: as :func:`load_study`.
    """
    return _validate(parse_toml(text, what="study", where=where, raises=StudyError), where)


def parse_canonical(content: bytes, *, where: str = "in canonical JSON") -> Study:
    """Return the study that :meth:`Study.to_canonical_json` wrote, with the same digest.

    Raises:
        StudyError: the bytes are not a study's canonical JSON of this version.
    """
    try:
        plain = json.loads(content)
        plain["variables"] = dict(plain["variables"])
    except (ValueError, TypeError, KeyError) as error:
        raise StudyError(f"study {where}: is not a study's canonical JSON; make it anew") from error
    study = _validate(plain, where)
    if study.to_canonical_json() != content:
        raise StudyError(
            f"study {study.name}: is not in the canonical form of this version; "
            "use the version that wrote it"
        )
    return study


def with_changes(study: Study, /, **tables: dict[str, object]) -> Study:
    """Return the study with some keys of some tables replaced, validated again.

    Example: ``with_changes(study, privacy={"epsilon": 3.0})``; top-level keys go under ``study``.

    Raises:
        StudyError: the changed study is not valid.
    """
    content: dict[str, Any] = study.model_dump(by_alias=True)
    for table, changes in tables.items():
        target = content if table == "study" else content[table]
        target.update(changes)
    return _validate(content, study.name)


def _validate(content: dict[str, object], where: str) -> Study:
    return validate(content, Study, what="study", where=where, raises=StudyError)
