"""Sources of patient records: one file per kind of data, one interface.

A source yields patients one at a time, each with all of their stays, so memory need only hold one
patient and not the file. Times are hours since the start of the stay; values are in the study's
units, inside the study's ranges, sorted by time, and without duplicates.

No patient's value is ever shown: not in an error, a log line or a ``repr``.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.reasons import BAD_LINE, UNKNOWN_UNIT
from consilium.shared.study.definition import Study
from consilium.shared.study.unit_spellings import is_spelling

MOST_SPELLINGS = 1000  # of units that are not understood, each told by itself
FEWEST_QUOTED = 10  # a text of the records is shown only if at least so many rows have it


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Stay:
    """One stay: its measurements as events, and its label.

    Attributes:
        stay_id: identifies the stay within the site; never leaves it.
        hours_E: float32, hours since the start of the stay, ascending, within the window.
        variable_E: int16, index into the study's variables, followed by its columns of codes.
        value_E: float32, in the study's units, finite and in range; a code's number
            (:func:`consilium.shared.study.input_names.token_numbers`).
        label: a number, or an array of K labels (multilabel), or of T steps (per step, NaN where
            nothing is to be predicted).
        end_h: hours the stay was observed; None when that is the whole window.
        outcome_h: hours until the outcome happened, at the earliest; None if the source does not
            know.
        outcome_until_h: hours until it had happened, at the latest; None if it is the same.
        start_us: when the stay began, microseconds since 1970; None if the source does not know.
    """

    stay_id: str
    hours_E: NDArray[np.float32]
    variable_E: NDArray[np.int16]
    value_E: NDArray[np.float32]
    label: float | NDArray[np.float32]
    end_h: float | None = None
    outcome_h: float | None = None
    outcome_until_h: float | None = None
    start_us: int | None = None

    def __repr__(self) -> str:
        return f"Stay({len(self.hours_E)} events)"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Patient:
    """One person, the unit of privacy, with every stay in this site's data.

    ``former_ids`` are identifiers that the records once had for this person, before they were
    merged; who opted out under one of them has opted out.
    """

    patient_id: str
    stays: tuple[Stay, ...]
    former_ids: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Patient({len(self.stays)} stays)"


@dataclass(frozen=True, kw_only=True)
class UnknownUnit:
    """A spelling of a unit that was not understood, or not for this variable.

    Attributes:
        variable: its name in the study.
        unit: as the records spell it; None if the rows say none; "" if it is not shown, because so
            few rows have it that it may be something else than a unit, or for all further ones of
            very many.
        rows: how many rows have it.
        where: the first file or table that has it.
        told: why it was not understood, in one sentence.
    """

    variable: str
    unit: str | None
    rows: int
    where: str
    told: str


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """Counts of what was read and what was set aside.

    ``events`` counts the events kept. The mappings count by variable. ``skipped`` holds (file,
    reason) for files left out because the study says ``on_bad_file = "skip"``. ``filtered`` counts
    stays outside the cohort selected, ``unlabelled`` stays whose outcome is unknown. ``set_aside``
    counts, by reason, the unusable rows of the hospital's own tables; ``times`` what the rules of
    time decided, by the sentence that says it. ``person_key`` says by what records were taken for
    one person's, such as PatientID; empty if the source does not say. ``notes`` counts, by what was
    done, what was read in another way than as it stands. ``funnel`` counts, by variable, the rows
    at the stage where their way ended (:mod:`.reasons`). ``clues`` counts what looks like a
    misunderstanding, ``absent`` names kinds of records that are not there, ``opted_out`` is how
    many persons were left out because they opted out, of how many named. ``counts_rows`` is whether
    the source counts the rows that it leaves out; if not, the funnel has those kept alone.
    """

    patients: int
    stays: int
    events: int
    duplicates: int
    outside_window: int
    unlabelled: int
    filtered: int
    out_of_range: Mapping[str, int]
    repaired: Mapping[str, int]
    missing_static: Mapping[str, int]
    skipped: tuple[tuple[str, str], ...]
    set_aside: Mapping[str, int] = field(default_factory=dict)
    times: Mapping[str, int] = field(default_factory=dict)
    person_key: str = ""
    notes: Mapping[str, int] = field(default_factory=dict)
    funnel: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unknown_units: tuple[UnknownUnit, ...] = ()
    clues: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    opted_out: tuple[int, int] | None = None
    counts_rows: bool = True

    def rows(self, variable: str) -> int:
        """Return how many rows of a variable were found, those of other persons included."""
        return sum(self.funnel.get(variable, {}).values())


@dataclass(kw_only=True)
class Tally:
    """The counts of a reading in progress."""

    patients: int = 0
    stays: int = 0
    events: int = 0
    duplicates: int = 0
    outside_window: int = 0
    unlabelled: int = 0
    filtered: int = 0
    out_of_range: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    missing_static: dict[str, int] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    set_aside: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    person_key: str = ""
    notes: dict[str, int] = field(default_factory=dict)
    funnel: dict[str, dict[str, int]] = field(default_factory=dict)
    unknown_units: dict[tuple[str, str | None], UnknownUnit] = field(default_factory=dict)
    clues: dict[str, int] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    bad_lines: set[tuple[str, int]] = field(default_factory=set)

    def note(self, what: str, number: int = 1) -> None:
        """Add to the number of things that were read in another way than as they stand."""
        if number:
            self.notes[what] = self.notes.get(what, 0) + number

    def bad_line(self, file: str, number: int) -> None:
        """Count a line that cannot be read, once however often its file is read."""
        if (file, number) not in self.bad_lines:
            self.bad_lines.add((file, number))
            self.count(BAD_LINE, 1)

    def ends(self, stage: str, variable: str, number: int) -> None:
        """Count rows of a variable whose way ended at a stage."""
        if number:
            stages = self.funnel.setdefault(variable, {})
            stages[stage] = stages.get(stage, 0) + number

    def ends_at(self, stage: str, names: Sequence[str], variable_E: NDArray[np.int16]) -> None:
        """Count rows whose way ended at a stage by the index of their variable."""
        if len(variable_E):
            for name, number in zip(names, np.bincount(variable_E).tolist(), strict=False):
                self.ends(stage, name, number)

    def clue(self, what: str, number: int) -> None:
        """Count rows that look like a misunderstanding."""
        if number:
            self.clues[what] = self.clues.get(what, 0) + number

    def not_understood(self, found: UnknownUnit) -> None:
        """Count rows in a unit that was not understood."""
        key = (found.variable, found.unit)
        if key not in self.unknown_units and len(self.unknown_units) >= MOST_SPELLINGS:
            key = (found.variable, "\0other")
            told = (
                f"variable {found.variable}: rows have so many different units that are no known "
                "UCUM codes that not all are told; correct the column that site.toml names as the "
                "unit"
            )
            found = replace(found, unit="", told=told)
        known = self.unknown_units.get(key)
        rows = found.rows + (known.rows if known else 0)
        self.unknown_units[key] = replace(known or found, rows=rows)
        self.count(UNKNOWN_UNIT, found.rows)

    def count(self, reason: str, number: int) -> None:
        """Add to the number of things set aside for a reason."""
        if number:
            self.set_aside[reason] = self.set_aside.get(reason, 0) + number

    def decide(self, what: str, number: int) -> None:
        """Add to the number of times about which a rule of time decided something."""
        if number:
            self.times[what] = self.times.get(what, 0) + number

    def report(self) -> ReadReport:
        """Return the counts so far."""
        return ReadReport(
            patients=self.patients,
            stays=self.stays,
            events=self.events,
            duplicates=self.duplicates,
            outside_window=self.outside_window,
            unlabelled=self.unlabelled,
            filtered=self.filtered,
            out_of_range=dict(self.out_of_range),
            repaired=dict(self.repaired),
            missing_static=dict(self.missing_static),
            skipped=tuple(self.skipped),
            set_aside=dict(self.set_aside),
            times=dict(self.times),
            person_key=self.person_key,
            notes=dict(self.notes),
            funnel={name: dict(stages) for name, stages in self.funnel.items()},
            unknown_units=tuple(map(_shown, self.unknown_units.values())),
            clues=dict(self.clues),
            absent=tuple(self.absent),
        )


def _shown(found: UnknownUnit) -> UnknownUnit:
    """Return what may be shown: a text that only few rows have might be a patient's."""
    if found.unit is None or found.rows >= FEWEST_QUOTED or is_spelling(found.unit):
        return found
    told = (
        f"variable {found.variable}: {found.rows} rows have a unit that is no known UCUM code (not "
        "quoted, as so few rows have it); correct the rows or the column that site.toml names as "
        "the unit"
    )
    return replace(found, unit="", told=told)


class Counted:
    """Base of sources that keep counts: ``_tally``, replaced at the start of each reading.

    ``person_key`` says by what records are one person's, in a source where that never differs.
    """

    _tally: Tally
    person_key = ""

    @property
    def report(self) -> ReadReport:
        """Counts of the latest reading."""
        report = self._tally.report()
        return replace(report, person_key=report.person_key or self.person_key)


class Source(Protocol):
    """Anything that can supply a study with patients."""

    @property
    def name(self) -> str:
        """The kind of data, as a study's ``[data] source`` names it."""

    @property
    def report(self) -> ReadReport:
        """Counts of the latest reading, complete once its iterator is exhausted."""

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every patient of the cohort, in an order that is always the same.

        Raises:
            DataError: the data are missing, malformed or do not fit the study.
        """


@runtime_checkable
class WithColumns(Protocol):
    """A source whose stays have further columns, such as a ward, that tell them apart."""

    def stay_column(self, column: str) -> Mapping[str, str]:
        """Return the column's cell, as text, for each stay by its identifier; "" if it is empty.

        Raises:
            DataError: there is no such column, or it cannot be read.
        """


@runtime_checkable
class WithoutLabels(Protocol):
    """A source that can also supply stays whose outcome is not known yet, for prediction."""

    def without_labels(self) -> Source:
        """Return a source of the same records that reads no outcomes; its labels mean nothing."""


class CountedWithoutLabels(Counted):
    """A :class:`WithoutLabels` that keeps counts; it reads outcomes only if ``_labelled``."""

    _labelled = True

    def without_labels(self) -> Self:
        """See :class:`WithoutLabels`."""
        unlabelled = copy.copy(self)
        unlabelled._labelled = False
        return unlabelled
