"""``policy.toml``: the hospital's policy as its people write it, read strictly.

A missing key has the value shown in the commented default file. An unknown key is an error, so that
a typing mistake never leaves a bound unset.
"""

import re
from datetime import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from consilium.client.hospital.policy import (
    TASKS,
    DecisionPolicy,
    Identifiers,
    OnMovedCohort,
    Policy,
    TaskKind,
)
from consilium.client.hospital.working_hours import DAYS, Day, WorkingHours
from consilium.shared.errors import SettingsError
from consilium.shared.files.strict_toml import parse_toml, read_text, validate
from consilium.shared.study.rounds import MINIMUM_SITES
from consilium.shared.wire.encoding import MAX_SITES

FILE_NAME = "policy.toml"
LEAST_MEMORY_MIB = 1024  # PyTorch alone, imported and idle, takes about half of it

TEMPLATE = """\
# What this hospital allows, whatever a study asks for. Nothing a coordinator sends can widen it.
# A refusal is told to the coordinator in one sentence, which never depends on a record, and it is
# noted in audit.jsonl.
# The site reads this file when it starts; every change is noted in audit.jsonl then.

[studies]
# Digests of the studies that a person here may approve; without it, any study within the bounds
# below may be approved. Nothing runs without an approval either way.
# allowed = ["9f2c..."]
# How many persons must approve a study before it is approved. Above 1 each says who it is, with a
# password of its own ('consilium-site web-user'), on the page or with 'approve --as NAME'.
approvals_needed = 1

[privacy]
# Epsilon bounds what anyone can learn about one patient; smaller is stricter.
study_epsilon = 8.0
# All studies together, for ever. The ledger counts; raising this is a decision, not a repair.
lifetime_epsilon = 16.0
# Probability with which the bound may fail.
delta = 1e-5
# Studies without differential privacy: only for data that is public already.
allow_without_privacy = false

[federation]
# Fewest sites in any sum that is opened; never below 3.
minimum_sites = 3
# Fewest patients of yours that may train a study's model.
minimum_patients = 20

[roster]
# Fewest other sites, of those summed with yours, that must be vouched for: by you, who checked
# their fingerprints by telephone, or by enough hospitals that you checked ('consilium-site vouch').
# A site that nobody checked may be the coordinator's invention. Without it, as many as the study's
# guarantee needs: all but the colluding sites it tolerates, and more than those. 0 asks none.
# vouched_at_least = 3
# Whether a hospital of an approved study that lost its machine may go on under a new key without
# a person here being asked, if its recovery code proves that it is the same hospital.
new_keys_by_rule = true
# Whether sites join and leave an approved study once all others agree, without a person here being
# asked. Whoever joins is vouched for here in any case, and with a larger size than any of the sites
# that stay it waits for a person. 'consilium-site roster STUDY' shows what waits.
members_by_rule = false

[release]
# Fewest of your patients that are told apart as a subgroup, such as an age band, in a study without
# privacy noise; with noise, noise hides them.
smallest_group = 5
# Whether a study that asks for figures by site may have those of your patients as a whole.
own_figures = false
# Whether the coordinator's operator sees how much of your lifetime epsilon is left. It says nothing
# of a patient, but how much other work you do.
budget_left = false

[data]
tasks = ["binary", "multiclass", "multilabel", "regression", "survival"]
# Kinds of records and measurements that may be used; without them, all that site.toml sets up.
# sources = ["physionet2012"]
# variables = ["HR", "Temp", "Lactate"]
# Databases live. When a study's persons, stays or outcomes are not those that were approved,
# 'consilium-site status' says so here: "tell" goes on, "stop" answers nothing more until the study
# is approved again. That this site stops is seen by the coordinator: it learns that the records
# moved, though not how.
on_moved_cohort = "tell"

# Sources of records that your own people's packages add (entry points of consilium.sources). Their
# code runs in the site's process and reads your records, so name only what you wrote or checked.
# Without it, no code but Consilium's own is loaded.
# [sources]
# installed = ["our-laboratory"]

# Networks that packages installed by your own people add (entry points of consilium.models), by the
# name that a study gives. Their code runs in the site's process with all its rights, so name only
# what you wrote or checked. Without it, a study that names one is refused, and nothing is loaded.
# [models]
# installed = ["our-transformer"]

# Note at the bedside who was scored when, by which model, from which inputs (a digest), for whom.
# The notes stay here, in decisions/ ('consilium-site decision-log' shows them). Without this table
# nothing is noted.
# [decisions]
# required = true          # nobody is scored where it cannot be noted, as on a full disk
# keep_days = 365          # older notes are deleted
# largest_mib = 16         # of one file; there is at least one a day
# identifiers = "digest"   # of patients and stays, by a key of this site; or "clear"

# Work only at night, by this machine's local time. Without this table the site always works.
# Days are those on which the span starts. A round that has begun is still helped to its end.
# [hours]
# days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
# start = "20:00"
# end = "06:00"

[machine]
# Threads of each computation.
threads = 1
# Most memory of the site's process, in MiB, at least 1024; without it, no bound. Linux only.
# memory_mib = 4096
# Whether a graphics card may compute recurrent layers in training; 'preflight' says what is used.
gpu = false
# How long a round's computation takes depends a little on your records. With this, every answer to
# a round leaves so many seconds after its request; take twice what a round of yours takes, and
# less than the study's round_timeout_s.
# answer_after_s = 60
"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Names = tuple[Annotated[str, Field(min_length=1, max_length=64)], ...]


class _Studies(_Part):
    allowed: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    approvals_needed: int = Field(default=Policy.approvals_needed, ge=1, le=9)

    @field_validator("allowed")
    @classmethod
    def _are_digests(cls, allowed: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for digest in allowed or ():
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(
                    f"{digest[:70]!r} is not a study's digest of 64 hexadecimal digits; copy it "
                    "from 'consilium-site review'"
                )
        return allowed


class _Privacy(_Part):
    study_epsilon: Positive = Policy.largest_study_epsilon
    lifetime_epsilon: Positive = Policy.lifetime_epsilon
    delta: float = Field(default=Policy.delta, gt=0, le=0.01)
    allow_without_privacy: bool = Policy.allow_without_privacy


class _Federation(_Part):
    minimum_sites: int = Field(default=Policy.minimum_sites, ge=MINIMUM_SITES)
    minimum_patients: int = Field(default=Policy.minimum_patients, ge=1)


class _Roster(_Part):
    vouched_at_least: int | None = Field(default=None, ge=0, le=MAX_SITES)
    new_keys_by_rule: bool = Policy.new_keys_by_rule
    members_by_rule: bool = Policy.members_by_rule


class _Release(_Part):
    smallest_group: int = Field(default=Policy.smallest_group, ge=1)
    own_figures: bool = Policy.release_own_figures
    budget_left: bool = Policy.tell_budget_left


class _Data(_Part):
    tasks: tuple[TaskKind, ...] = Field(default=TASKS, strict=False)
    sources: Annotated[Names, Field(strict=False)] | None = None
    variables: Annotated[Names, Field(strict=False)] | None = None
    on_moved_cohort: OnMovedCohort = Policy.on_moved_cohort


class _Installed(_Part):
    installed: Annotated[Names, Field(strict=False)] = ()


class _Hours(_Part):
    days: tuple[Day, ...] = Field(default=DAYS, min_length=1, strict=False)
    start: str
    end: str

    @field_validator("start", "end")
    @classmethod
    def _are_times(cls, text: str) -> str:
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
            raise ValueError(f'{text!r} is not a time of day; write it as "20:00"')
        return text


class _Machine(_Part):
    threads: int = Field(default=Policy.threads, ge=1, le=1024)
    memory_mib: int | None = Field(default=None, ge=LEAST_MEMORY_MIB)
    gpu: bool = Policy.gpu
    answer_after_s: Positive | None = None


class _Decisions(_Part):
    required: bool = DecisionPolicy.required
    keep_days: int = Field(default=DecisionPolicy.keep_days, ge=1, le=36_500)
    largest_mib: int = Field(default=DecisionPolicy.largest_mib, ge=1, le=1024)
    identifiers: Identifiers = DecisionPolicy.identifiers


class _PolicyFile(_Part):
    studies: _Studies = _Studies()
    privacy: _Privacy = _Privacy()
    federation: _Federation = _Federation()
    roster: _Roster = _Roster()
    release: _Release = _Release()
    data: _Data = _Data()
    sources: _Installed = _Installed()
    models: _Installed = _Installed()
    hours: _Hours | None = None
    machine: _Machine = _Machine()
    decisions: _Decisions | None = None


def allowed_sources(folder: Path) -> frozenset[str]:
    """Return the sources of installed packages that a site allows, none if it has no policy.

    Raises:
        SettingsError: as :func:`read_policy`.
    """
    there = (folder / FILE_NAME).exists()
    return read_policy(folder).installed_sources if there else frozenset()


def read_policy(folder: Path) -> Policy:
    """Return the policy in a site's folder, or the default policy if there is no folder yet.

    Raises:
        SettingsError: the file is missing or malformed, or a value is out of bounds; the sentence
            names the key and the remedy.
    """
    path = folder / FILE_NAME
    if not folder.exists():
        return Policy()
    if not path.exists():
        raise SettingsError(
            f"policy {path}: is missing, and without it nothing is allowed; restore it, or run "
            "'consilium-site init' to write the default one"
        )
    text = read_text(path, what="policy", raises=SettingsError)
    return parse_policy(text, where=str(path))


def parse_policy(text: str, *, where: str = "policy") -> Policy:
    """Validate a policy given as TOML text; ``where`` names it in errors.

    Raises:
        SettingsError: as :func:`read_policy`.
    """
    content: dict[str, Any] = parse_toml(text, what="policy", where=where, raises=SettingsError)
    file = validate(content, _PolicyFile, what="policy", where=where, raises=SettingsError)
    allowed, hours = file.studies.allowed, file.hours
    return Policy(
        largest_study_epsilon=file.privacy.study_epsilon,
        lifetime_epsilon=file.privacy.lifetime_epsilon,
        delta=file.privacy.delta,
        allow_without_privacy=file.privacy.allow_without_privacy,
        minimum_sites=file.federation.minimum_sites,
        vouched_at_least=file.roster.vouched_at_least,
        new_keys_by_rule=file.roster.new_keys_by_rule,
        members_by_rule=file.roster.members_by_rule,
        minimum_patients=file.federation.minimum_patients,
        smallest_group=file.release.smallest_group,
        release_own_figures=file.release.own_figures,
        tell_budget_left=file.release.budget_left,
        approvals_needed=file.studies.approvals_needed,
        studies=None if allowed is None else frozenset(map(bytes.fromhex, allowed)),
        tasks=frozenset(file.data.tasks),
        sources=_names(file.data.sources),
        installed_sources=frozenset(file.sources.installed),
        installed_models=frozenset(file.models.installed),
        variables=_names(file.data.variables),
        on_moved_cohort=file.data.on_moved_cohort,
        hours=None if hours is None else _working_hours(hours),
        threads=file.machine.threads,
        memory_mib=file.machine.memory_mib,
        gpu=file.machine.gpu,
        answer_after_s=file.machine.answer_after_s,
        decisions=None if file.decisions is None else DecisionPolicy(**file.decisions.model_dump()),
    )


def _names(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _working_hours(hours: _Hours) -> WorkingHours:
    return WorkingHours(
        days=frozenset(hours.days),
        start=time.fromisoformat(hours.start),
        end=time.fromisoformat(hours.end),
    )
