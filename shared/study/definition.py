"""The study: everything a coordinator may ask of a site, declared, validated and digested.

A study is a TOML file. It carries no code. A site approves its digest, every message carries the
digest, and a site refuses anything else. Defaults are filled in before the digest is taken, so two
files that mean the same have the same digest.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from consilium.shared.errors import StudyError
from consilium.shared.files.strict_toml import StrictTable, parse_toml, read_text, validate
from consilium.shared.secure_sum import mask_graph
from consilium.shared.secure_sum.thresholds import default_threshold, least_threshold
from consilium.shared.study.branches import check_branches
from consilium.shared.study.derived import check_derived
from consilium.shared.study.dictionary import Variable, completed
from consilium.shared.study.feasibility import Feasibility, check_feasibility
from consilium.shared.study.personalisation import Personalisation, check_personalisation
from consilium.shared.study.records import Data, Name, Tokens
from consilium.shared.study.rounds import MINIMUM_SITES, Aggregation, Evaluation
from consilium.shared.study.training import Model, Privacy, Task, Training

BINS, PASSES = 400, 4  # of an evaluation without privacy noise
BINS_WITH_NOISE, PASSES_WITH_NOISE = 32, 1  # each bin carries noise, and each pass is paid for
CALIBRATION_ROUNDS = 2  # one may be void
AVERAGE_RAMP = 10.0  # rounds; see Study.average_ramp


class Study(StrictTable):
    """A whole study. ``digest`` identifies it; ``seed`` makes runs without noise repeatable.

    ``variables`` that :mod:`consilium.shared.study.dictionary` has may be named without their
    declaration.

    ``schema`` 2 has two defaults that 1 has not: :attr:`calibration_rounds` and
    :attr:`average_ramp`. ``schema`` 3 has calibration rounds in survival by default, too. So a
    study means what it meant when it was approved.
    """

    schema_version: Literal[1, 2, 3] = Field(default=1, alias="schema")
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
    feasibility: Feasibility | None = None
    _submitted_with: tuple[str, ...] = PrivateAttr(default=())

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
        collusion = self.aggregation.tolerated_collusion
        if self.threshold < (needed := least_threshold(self.group_size, collusion)):
            raise ValueError(
                f"[aggregation] threshold {self.threshold} must be at least {needed} for "
                f"{self.group_size} sites of which {collusion} may collude; raise it"
            )
        if least - collusion < 2:
            raise ValueError(
                f"[aggregation] minimum_sites {least} less tolerated_collusion {collusion} must "
                "leave at least 2 honest sites; raise minimum_sites or lower tolerated_collusion"
            )
        if self.threshold > least:
            raise ValueError(
                f"[aggregation] threshold {self.threshold} must not exceed minimum_sites "
                f"{least}; raise minimum_sites or lower threshold"
            )
        return self

    @model_validator(mode="after")
    def _windows_fit_the_task(self) -> Self:
        if not self.data.fixed and self.task.per_step:
            raise ValueError(
                "[task] per_step labels every hour of a stay, but [data] cuts it into windows with "
                "one label each; remove per_step, or the table that places them"
            )
        if not self.data.fixed and self.task.kind == "survival":
            raise ValueError(
                "[task] survival counts from the start of a stay, but [data] cuts it into windows "
                "that end elsewhere; remove the table that places them"
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
        check_branches(
            self.model,
            series=tuple(name for name, v in self.variables.items() if v.role == "series"),
            static=tuple(name for name, v in self.variables.items() if v.role == "static"),
            codes=() if self.tokens is None else self.tokens.names,
            hours=self.data.clock == "hour",
            steps=self.data.steps,
        )
        check_derived(
            self.data.derived,
            self.variables,
            source=self.data.source,
            rate_hz=self.data.rate_hz,
            steps=self.data.steps,
            positions=self.data.clock == "position",
            per_step=self.task.per_step,
            at_beats=self.data.label == "aami",
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
        check_personalisation(self.personalisation, self.model, self.training, self.privacy)
        check_feasibility(self.feasibility, self.privacy, calibrated=self.calibration_rounds > 0)
        if self.privacy.calibration_rounds and not self._can_be_calibrated:
            raise ValueError(
                f"[privacy] calibration_rounds {self.privacy.calibration_rounds} shift the log-odds"
                " of a binary, multilabel or survival task whose head the sites share; set it to 0"
            )
        return self

    @property
    def first_sites(self) -> tuple[str, ...]:
        """The sites that the study's text names; ``sites`` are those of its roster in force."""
        return self._submitted_with or self.sites

    def among(self, sites: Collection[str]) -> "Study":
        """Return the same study, of the same digest, with these sites in its roster.

        Threshold, fewest sites of a sum, neighbours and shares of noise are those of the new number
        of sites. First stand those of the study's text, in its order, then the others by name.

        Raises:
            StudyError: the study's numbers do not hold with these sites, or it sums its sites in
                groups, which would be dealt anew.
        """
        if set(sites) == set(self.sites):
            return self
        if self.aggregation.groups > 1:
            raise StudyError(
                f"study {self.name}: sums its sites in {self.aggregation.groups} groups, which "
                "would be dealt anew with other sites; submit it again as another study"
            )
        first = self.first_sites
        order = [*(site for site in first if site in sites), *sorted(set(sites) - set(first))]
        changed = with_changes(self, study={"sites": order})
        changed._submitted_with = () if changed.sites == first else first
        return changed

    @property
    def keeps_parts(self) -> bool:
        """Whether sites keep a part of the model or control variates, from round to round."""
        return self.personalisation.active or self.training.control_variates

    @property
    def roster_may_change(self) -> bool:
        """Whether sites may join, leave or come under new keys while the study runs.

        Not with control variates: the coordinator holds their mean over all sites, to which one
        that left would contribute for ever.
        """
        return not self.training.control_variates

    def check_roster_may_change(self) -> None:
        """Refuse another roster of a study that keeps the one it began with.

        Raises:
            StudyError: its sites keep control variates.
        """
        if not self.roster_may_change:
            raise StudyError(
                f"study {self.name}: keeps control variates, whose mean is of the sites that it "
                "began with; submit it again as another study"
            )

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
    def affords(self) -> str:
        """What the number of sites affords, as one sentence."""
        size, lost = self.group_size, self.dropouts_tolerated
        among = f"of {size} sites" if self.aggregation.groups == 1 else f"of a group's {size} sites"
        lose = (
            "none may fail in a round, so one that does voids it"
            if lost == 0
            else f"{lost} may fail in a round"
        )
        return (
            f"{among} {lose}, and {self.aggregation.tolerated_collusion} may work with the "
            "coordinator"
        )

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
        """Sites that must agree to a sum: the study's number, or more than two thirds."""
        if self.aggregation.threshold is not None:
            return self.aggregation.threshold
        return default_threshold(self.group_size, self.aggregation.tolerated_collusion)

    @property
    def bins(self) -> int:
        """Bins of risks that evaluation counts in: many, or few where each one carries noise."""
        if self.evaluation.bins is not None:
            return self.evaluation.bins
        return BINS if self.privacy.mode == "none" else BINS_WITH_NOISE

    @property
    def calibration_rounds(self) -> int:
        """Sums over all training patients, after training, by which risks are put right.

        Clipping makes rare outcomes' risks too low, in survival their hazards. Without privacy
        nothing is clipped, so there are none; nor where the outputs' log-odds are not each site's
        alike.
        """
        if self.privacy.mode == "none" or not self._can_be_calibrated:
            return 0
        if self.privacy.calibration_rounds is not None:
            return self.privacy.calibration_rounds
        first = 3 if self.task.kind == "survival" else 2
        return CALIBRATION_ROUNDS if self.schema_version >= first else 0

    @property
    def _can_be_calibrated(self) -> bool:
        shifted = self.task.kind in ("binary", "multilabel", "survival")
        return shifted and "head" not in self.personalisation.parts

    @property
    def average_ramp(self) -> float:
        """Rounds r by which the average's decay grows, as t / (t + r) after t rounds.

        It grows until it is ``average_decay``; r is 10, or as much less as it takes to get there
        in the last round (schema 2).
        """
        decay = self.aggregation.average_decay
        if self.schema_version == 1 or decay == 0:
            return AVERAGE_RAMP
        return min(AVERAGE_RAMP, self.rounds * (1 - decay) / decay)

    @property
    def passes(self) -> int:
        """Most times that the finished model is evaluated, each with finer bins than before."""
        if self.evaluation.passes is not None:
            return self.evaluation.passes
        return PASSES if self.privacy.mode == "none" else PASSES_WITH_NOISE

    @property
    def evaluates_own(self) -> bool:
        """Whether evaluation by secure sums judges each site's own model, not the global one.

        Ditto's second model is trained without noise, so under privacy counts of its scores would
        reveal something of its training patients that no ledger was charged for.
        """
        return self.personalisation.ditto is None or self.privacy.mode == "none"

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the canonical JSON of the study with every default filled in."""
        return hashlib.sha256(self.to_canonical_json()).digest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with these fields changed, unchecked; its digest is its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("digest", None)
        return copied

    def to_canonical_json(self) -> bytes:
        """UTF-8 JSON, tables' keys sorted, no spaces; the order of ``variables`` is kept.

        The order of variables is the order of the model's inputs, so it is part of the meaning.
        Its sites are :attr:`first_sites`: another roster is no other study.
        Keys that later versions brought are left out where they say what studies meant before, so
        that digests of studies approved then stay as they are.
        """
        content = self.model_dump(mode="json", by_alias=True)
        content["sites"] = list(self.first_sites)
        if self.schema_version == 1 and self.privacy.calibration_rounds is None:
            del content["privacy"]["calibration_rounds"], content["privacy"]["calibration_fraction"]
        if self.privacy.unit == "patient":
            del content["privacy"]["unit"]
        for network in (content["model"], *content["model"]["branches"]):
            if not network.get("forecast"):
                network.pop("forecast", None)
        if not self.model.branches:
            del content["model"]["branches"]
        if self.feasibility is None:
            del content["feasibility"]
        if not self.data.derived:
            del content["data"]["derived"]
        if self.task.loss.plain:
            del content["task"]["loss"]
        if self.task.kind != "survival":
            for key in ("cuts", "start", "time_unit"):
                del content["task"][key]
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
        StudyError: the changed study is not valid, or what is to change is no table of keys.
    """
    content: dict[str, Any] = study.model_dump(by_alias=True)
    for table, changes in tables.items():
        target = content if table == "study" else content.setdefault(table, {})
        if target is None:  # a table that this study does not have
            target = content[table] = {}
        if not isinstance(target, dict) or not isinstance(changes, dict):
            raise StudyError(
                f"study {study.name}: {table} is no table of keys; give {table} as "
                f"study={{{table!r}: ...}} if it is a key of the study itself"
            )
        target.update(changes)
    return _validate(content, study.name)


def _validate(content: dict[str, object], where: str) -> Study:
    return validate(content, Study, what="study", where=where, raises=StudyError)
