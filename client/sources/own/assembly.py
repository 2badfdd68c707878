"""Makes patients of a table of stays and a stream of events, in bounded memory.

Events may come in any order. Up to ``EVENTS_IN_MEMORY`` of them are kept in memory; beyond that
they go to unnamed temporary files, one for each range ("span") of patients. The operating system
frees these files when the process ends, even by a crash; they lie in the folder that the
environment variable TMPDIR names. Patients are then made span by span, so memory holds only one
span's events and one row per stay, whatever the size of the hospital's files.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import isnan
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner, Events
from consilium.client.sources.common.reasons import (
    AFTER_END,
    AROUND_END,
    BEFORE_START,
    BY_DAY,
    MIDNIGHTS,
    NO_STAY,
    SHIFTED,
    STAGE_NO_STAY,
    STAGE_OUTSIDE_STAY,
)
from consilium.client.sources.common.source import Patient, Stay, Tally
from consilium.client.sources.own.times.midnights import Midnights
from consilium.client.sources.own.times.spans import US_PER_DAY, US_PER_HOUR
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

FARTHEST_ZONE_H = 14.0  # the largest offset of a time zone from UTC
EVENTS_IN_MEMORY = 1_000_000  # 17 bytes each, and the same again while they are sorted
SPANS = 128
FOREVER = 1 << 62  # microseconds since 1970
_EVENT = np.dtype(
    [
        ("stay", "<i4"),
        ("hours", "<f4"),
        ("variable", "<i2"),
        ("value", "<f4"),
        ("only_if", "<i2"),  # see Assembler.add
        ("again", "?"),  # of a row that counts in another stay, too, and is counted there
    ]
)
_COLUMNS = ("stay", "hours", "variable", "value", "again")
# What becomes of a row in a stay.
_UNSEEN, _TAKEN, _TAKEN_BY_DAY, _BEFORE, _BEFORE_NEAR, _AFTER, _AFTER_NEAR, _AROUND, _NOWHERE = (
    range(-1, 8)
)
_REASONS = {
    _TAKEN_BY_DAY: (BY_DAY,),
    _BEFORE: (BEFORE_START,),
    _BEFORE_NEAR: (BEFORE_START, SHIFTED),
    _AFTER: (AFTER_END,),
    _AFTER_NEAR: (AFTER_END, SHIFTED),
    _AROUND: (AROUND_END,),
    _NOWHERE: (NO_STAY,),
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EventTimes:
    """When events happened: spans of time, one each.

    Attributes:
        first_E, until_E: int64, microseconds since 1970; the same array if all are instants.
        clock_E: int64, what the hospital's clock showed, if midnights are to be judged by their
            share in the column; else None.
        next_day: returns the ends of the days that begin at these times of the clock.
        column: names the column of times.
    """

    first_E: NDArray[np.int64]
    until_E: NDArray[np.int64]
    clock_E: NDArray[np.int64] | None = None
    next_day: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None
    column: str = ""

    def at_midnight(self) -> NDArray[np.int64]:
        """Return the indices of instants at midnight that may stand for their days."""
        if self.clock_E is None:
            return np.empty(0, dtype=np.int64)
        hour_E = np.flatnonzero(self.clock_E % US_PER_HOUR == 0)
        found_E = hour_E[self.clock_E[hour_E] % US_PER_DAY == 0]
        exact_E: NDArray[np.int64] = found_E[self.first_E[found_E] == self.until_E[found_E]]
        return exact_E


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StayTable:
    """All stays of the cohort, sorted by patient and start.

    Attributes:
        patient_ids: P identifiers, sorted.
        patient_N: int32, index of each stay's patient, ascending.
        stay_ids: N identifiers.
        start_N: int64, microseconds since 1970; all 0 if events give hours, not times.
        end_h_N: float64, hours from start to end, at the latest; NaN if unknown.
        held_N: int64, microseconds since 1970 until which the stay holds events: its end or, if it
            has none, the start of the patient's next stay.
        reach_N: int64, the latest ``held_N`` of the patient's stays up to this one.
        label_N: float32, (N,) or (N, K) or (N, T); NaN if unknown.
        outcome_h_N, outcome_until_h_N: float64, hours from start to the outcome, at the earliest
            and the latest; NaN if it did not happen.
        static: float32 (N,) for the index of each static variable in the study; NaN if missing.
    """

    patient_ids: tuple[str, ...]
    patient_N: NDArray[np.int32]
    stay_ids: tuple[str, ...]
    start_N: NDArray[np.int64]
    end_h_N: NDArray[np.float64]
    held_N: NDArray[np.int64]
    reach_N: NDArray[np.int64]
    label_N: NDArray[np.float32]
    outcome_h_N: NDArray[np.float64]
    outcome_until_h_N: NDArray[np.float64]
    static: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stay_ids)

    @cached_property
    def overlap(self) -> bool:
        """Whether any patient has a stay that begins before an earlier one ends."""
        same_N = self.patient_N[1:] == self.patient_N[:-1]
        return bool((same_N & (self.reach_N[:-1] >= self.start_N[1:])).any())

    def begun(
        self,
        patient_E: NDArray[np.int32],
        first_E: NDArray[np.int64],
        until_E: NDArray[np.int64],
    ) -> NDArray[np.int32]:
        """Return the patient's latest stay that had begun by each event, -1 if none had.

        An event known to the day had not happened by a stay that begins when the day ends.
        """
        starts, rank_N = np.unique(self.start_N, return_inverse=True)
        places = len(starts) + 1
        key_N = self.patient_N.astype(np.int64) * places + rank_N + 1
        time_E = until_E if first_E is until_E else until_E - (first_E < until_E)
        rank_E = np.searchsorted(starts, time_E, side="right")
        key_E = patient_E.astype(np.int64) * places + rank_E
        stay_E = np.searchsorted(key_N, key_E, side="right") - 1
        found_E = (stay_E >= 0) & (self.patient_N[np.maximum(stay_E, 0)] == patient_E)
        placed_E: NDArray[np.int32] = np.where(found_E, stay_E, -1).astype(np.int32)
        return placed_E

    def place(
        self,
        patient_E: NDArray[np.int32],
        first_E: NDArray[np.int64],
        until_E: NDArray[np.int64],
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        """Find events' stays by time: an event belongs to every stay of its patient that holds it.

        Args:
            patient_E: each event's patient.
            first_E: the first instant at which each event can have happened.
            until_E: the last; the same array if all are instants.

        Yields:
            Indices of events, and their stays. An event that no stay holds comes once, with the
            latest stay that had begun, or -1.
        """
        latest_E = self.begun(patient_E, first_E, until_E)
        event_E = np.arange(len(patient_E))
        if first_E is until_E and not self.overlap:
            yield event_E, latest_E
            return
        begun_E = first_E if first_E is until_E else first_E + (first_E < until_E)
        stay_E, alone_E = latest_E, np.ones(len(patient_E), dtype=np.bool_)
        while len(event_E):
            at_E = np.maximum(stay_E, 0)
            possible_E = (stay_E >= 0) & (self.patient_N[at_E] == patient_E[event_E])
            possible_E &= begun_E[event_E] <= self.reach_N[at_E]
            event_E, stay_E = event_E[possible_E], stay_E[possible_E]
            held_E = begun_E[event_E] <= self.held_N[stay_E]
            if held_E.any():
                alone_E[event_E[held_E]] = False
                yield event_E[held_E], stay_E[held_E]
            stay_E = stay_E - 1
        if alone_E.any():
            yield np.flatnonzero(alone_E), latest_E[alone_E]

    def hours(self, stay_E: NDArray[np.int32], time_E: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the hours from the start of each event's stay."""
        hours_E: NDArray[np.float32] = ((time_E - self.start_N[stay_E]) / US_PER_HOUR).astype(
            np.float32
        )
        return hours_E


class Assembler:
    """Collects the events of one reading and makes patients of them.

    Args:
        study: the study for which records are read.
        stays: the cohort.
        tally: counts everything set aside.

    Raises:
        DataError: the cohort is empty.
    """

    def __init__(self, study: Study, stays: StayTable, tally: Tally) -> None:
        if not len(stays):
            raise DataError(
                "no stay is left to read; check the table of stays, its label and the selection"
            )
        self._study, self._stays, self.tally = study, stays, tally
        self._names = tuple(study.variables)
        self._cleaner = Cleaner(study, tally)
        patients = len(stays.patient_ids)
        self._bound_P = np.searchsorted(stays.patient_N, np.arange(patients + 1))
        # A span is a range of patients, so no patient is in two spans.
        spans = np.linspace(0, patients, min(SPANS, max(1, patients)) + 1).astype(np.int64)
        self._spans = np.unique(spans)
        self._midnights = Midnights()
        self._columns: list[str] = []
        self._told: dict[tuple[int, int, str], int] = {}
        self._are_days: list[NDArray[np.bool_]] = []
        self._held: list[NDArray[Any]] = []
        self._events = 0
        self._files: list[IO[bytes]] = []
        self._stack = ExitStack()

    def add(
        self,
        stay_E: NDArray[np.int32],
        hours_E: NDArray[np.float32],
        variable_E: NDArray[np.int16],
        value_E: NDArray[np.float32],
        *,
        begun_h_E: NDArray[np.float32] | None = None,
        only_if: int = 0,
    ) -> None:
        """Add some events; those with ``stay_E`` below 0 belong to no stay of the cohort.

        Events after the end of their stay are set aside, as they were not known during it.

        Args:
            stay_E: their stays.
            hours_E: hours since the start of the stay, at the latest.
            variable_E: their variables.
            value_E: their values.
            begun_h_E: the same hours at the earliest, if that is not the same.
            only_if: n if they count only if the midnights of column n are instants, -n if they are
                days, 0 if they count in any case.
        """
        found_E = self._judge(stay_E, hours_E, begun_h_E)
        self._tell(found_E, variable_E, only_if)
        taken_E = found_E <= _TAKEN_BY_DAY
        self._hold(taken_E, stay_E, hours_E, variable_E, value_E, only_if, again=False)

    def _judge(
        self,
        stay_E: NDArray[np.int32],
        hours_E: NDArray[np.float32],
        begun_h_E: NDArray[np.float32] | None,
    ) -> NDArray[np.int8]:
        """Return what becomes of events in these stays."""
        inside_E = stay_E >= 0
        end_h_E = self._stays.end_h_N[stay_E].astype(np.float32)
        late_E = inside_E & (hours_E > end_h_E)
        early_E = inside_E & (hours_E < 0)
        found_E = np.full(len(stay_E), _TAKEN, dtype=np.int8)
        around_E = None
        if begun_h_E is not None:
            rough_E = begun_h_E < hours_E
            early_E |= inside_E & rough_E & (hours_E <= 0)  # an earlier day
            late_E &= ~early_E
            around_E = late_E & rough_E & (begun_h_E < end_h_E)
            found_E[hours_E - begun_h_E > 1] = _TAKEN_BY_DAY
        if late_E.any():
            near_E = hours_E - end_h_E <= FARTHEST_ZONE_H
            found_E[late_E] = np.where(near_E[late_E], _AFTER_NEAR, _AFTER)
        if early_E.any():
            near_E = hours_E >= -FARTHEST_ZONE_H
            found_E[early_E] = np.where(near_E[early_E], _BEFORE_NEAR, _BEFORE)
        if around_E is not None:
            found_E[around_E] = _AROUND
        found_E[~inside_E] = _NOWHERE
        return found_E

    def _hold(
        self,
        taken_E: NDArray[np.bool_],
        stay_E: NDArray[np.int32],
        hours_E: NDArray[np.float32],
        variable_E: NDArray[np.int16],
        value_E: NDArray[np.float32],
        only_if: int,
        *,
        again: NDArray[np.bool_] | bool,
    ) -> None:
        """Keep events for their stays."""
        event_E = np.empty(int(np.count_nonzero(taken_E)), dtype=_EVENT)
        event_E["stay"], event_E["hours"] = stay_E[taken_E], hours_E[taken_E]
        event_E["variable"], event_E["value"] = variable_E[taken_E], value_E[taken_E]
        event_E["only_if"] = only_if
        event_E["again"] = again if isinstance(again, bool) else again[taken_E]
        self._held.append(event_E)
        self._events += len(event_E)
        if self._events > EVENTS_IN_MEMORY:
            self._spill()

    def add_timed(
        self,
        times: EventTimes,
        variable_E: NDArray[np.int16],
        value_E: NDArray[np.float32],
        *,
        stay_E: NDArray[np.int32] | None = None,
        patient_E: NDArray[np.int32] | None = None,
    ) -> None:
        """Add events by their times.

        An event belongs to the stay that it names, or to every stay of its patient that holds it.
        An event known to the day counts from the end of that day: then it was known for certain.
        A midnight that may stand for its day is kept in both senses, until all are read and its
        column is judged by the share of midnights.

        Args:
            times: when they happened.
            variable_E: their variables.
            value_E: their values.
            stay_E: the stays that they name, -1 for those that name none.
            patient_E: the patients of events that name no stay.
        """
        parts: list[Any] = [times.first_E, times.until_E, variable_E, value_E, stay_E, patient_E]
        if times.clock_E is not None:
            exact_E = True if times.first_E is times.until_E else times.first_E == times.until_E
            kinds = len(self._study.variables)
            self._midnights.see(times.column, times.clock_E, variable_E, kinds, exact_E)
        open_E = times.at_midnight()
        if times.clock_E is None or times.next_day is None or not len(open_E):
            self._place(*parts)
            return
        rest_E = np.ones(len(variable_E), dtype=np.bool_)
        rest_E[open_E] = False
        rest = _chosen(parts, rest_E)
        if times.first_E is times.until_E:
            rest[1] = rest[0]  # one array says that all are instants
        self._place(*rest)
        first_E, _, *others = _chosen(parts, open_E)
        if times.column not in self._columns:
            self._columns.append(times.column)
        number = 1 + self._columns.index(times.column)
        self._place(first_E, first_E, *others, only_if=number)
        until_E = times.next_day(times.clock_E[open_E])
        self._place(first_E, until_E, *others, only_if=-number)

    def _place(
        self,
        first_E: NDArray[Any],
        until_E: NDArray[Any],
        variable_E: NDArray[Any],
        value_E: NDArray[Any],
        stay_E: NDArray[Any] | None,
        patient_E: NDArray[Any] | None,
        *,
        only_if: int = 0,
    ) -> None:
        """Add events with spans of time to the stays that they name, or that hold them.

        A row that counts in several stays is counted once: in the one of them that began last, so
        with the fewest hours. One that counts in none is counted with the last of its stays.
        """
        rough = first_E is not until_E and bool((first_E < until_E).any())
        found_E = np.full(len(variable_E), _UNSEEN, dtype=np.int8)
        for at_E, to_E in self._layers(first_E, until_E, stay_E, patient_E):
            hours_E = self._stays.hours(to_E, until_E[at_E])
            begun_h_E = self._stays.hours(to_E, first_E[at_E]) if rough else None
            here_E, before_E = self._judge(to_E, hours_E, begun_h_E), found_E[at_E]
            taken_E = here_E <= _TAKEN_BY_DAY
            again_E = (before_E == _TAKEN) | (before_E == _TAKEN_BY_DAY)
            found_E[at_E] = np.where((before_E == _UNSEEN) | (taken_E & ~again_E), here_E, before_E)
            values = (hours_E, variable_E[at_E], value_E[at_E])
            self._hold(taken_E, to_E, *values, only_if, again=again_E)
        self._tell(found_E, variable_E, only_if)

    def _layers(
        self,
        first_E: NDArray[Any],
        until_E: NDArray[Any],
        stay_E: NDArray[Any] | None,
        patient_E: NDArray[Any] | None,
    ) -> Iterator[tuple[Any, NDArray[np.int32]]]:
        """Yield which events belong to which stays; an event may come several times."""
        if patient_E is None:
            if stay_E is not None:
                yield slice(None), stay_E
            return
        if stay_E is None or not (stay_E >= 0).any():
            yield from self._stays.place(patient_E, first_E, until_E)
            return
        named_E, other_E = np.flatnonzero(stay_E >= 0), np.flatnonzero(stay_E < 0)
        yield named_E, stay_E[named_E]
        for event_E, to_E in self._stays.place(*_chosen([patient_E, first_E, until_E], other_E)):
            yield other_E[event_E], to_E

    def _tell(self, found_E: NDArray[np.int8], variable_E: NDArray[np.int16], only_if: int) -> None:
        """Count rows, now or, if it hangs on the sense of midnights, when that is known."""
        if not found_E.any():  # all are taken
            return
        for found, reasons in _REASONS.items():
            which_E = found_E == found
            if not which_E.any():
                continue
            for variable, number in enumerate(np.bincount(variable_E[which_E]).tolist()):
                for reason in reasons if number else ():
                    if only_if:
                        key = (only_if, variable, reason)
                        self._told[key] = self._told.get(key, 0) + number
                    else:
                        self._count(reason, variable, number)

    def _count(self, reason: str, variable: int, number: int) -> None:
        """Count rows of a variable by what is to be told of them."""
        if reason == BY_DAY:
            self.tally.decide(reason, number)
        elif reason == SHIFTED:
            self.tally.clue(reason, number)
        else:
            self.tally.count(reason, number)
            stage = STAGE_NO_STAY if reason == NO_STAY else STAGE_OUTSIDE_STAY
            self.tally.ends(stage, self._names[variable], number)

    def _settle(self) -> None:
        """Judge the midnights, and count what hung on it."""
        self._are_days = [self._midnights.are_days(column) for column in self._columns]
        for (only_if, variable, reason), number in self._told.items():
            if self._are_days[abs(only_if) - 1][variable] == (only_if < 0):
                self._count(reason, variable, number)
        self._told = {}
        for column, are_days in zip(self._columns, self._are_days, strict=True):
            self.tally.decide(MIDNIGHTS, self._midnights.number(column, are_days))

    def _meant(self, event_E: NDArray[Any]) -> NDArray[Any]:
        """Return the events that count, now that it is known what midnights mean."""
        if not self._columns:
            return event_E
        kept_E = event_E["only_if"] == 0
        for number, are_days in enumerate(self._are_days, start=1):
            days_E = are_days[event_E["variable"]]
            kept_E |= (event_E["only_if"] == number) & ~days_E
            kept_E |= (event_E["only_if"] == -number) & days_E
        meant_E: NDArray[Any] = event_E[kept_E]
        return meant_E

    def patients(self) -> Iterator[Patient]:
        """Yield every patient of the cohort, in order; call once, after the last :meth:`add`."""
        self._settle()
        with self._stack:
            if not self._files:
                held, self._held = self._held, []
                yield from self._made(0, int(self._spans[-1]), _joined(held))
                return
            self._spill()
            for file, low, high in zip(self._files, self._spans[:-1], self._spans[1:], strict=True):
                file.seek(0)
                yield from self._made(int(low), int(high), np.frombuffer(file.read(), _EVENT))

    def _spill(self) -> None:
        """Move the events from memory to the files of their spans."""
        if not self._files:
            self._files = [
                self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
                for _ in self._spans[1:]
            ]
        event_E = _joined(self._held)
        self._held, self._events = [], 0
        patient_E = self._stays.patient_N[event_E["stay"]]
        span_E = np.searchsorted(self._spans, patient_E, side="right") - 1
        order_E = np.argsort(span_E, kind="stable")
        bounds = np.searchsorted(span_E[order_E], np.arange(len(self._files) + 1))
        for span, file in enumerate(self._files):
            file.write(event_E[order_E[bounds[span] : bounds[span + 1]]].tobytes())

    def _made(self, low: int, high: int, event_E: NDArray[Any]) -> Iterator[Patient]:
        """Yield patients ``low`` to ``high``, high excluded; their events may be in any order."""
        first, last = int(self._bound_P[low]), int(self._bound_P[high])
        stay_E, hours_E, variable_E, value_E = self._cleaner.clean_stays(
            *self._with_static(self._meant(event_E), first, last)
        )
        bounds = np.searchsorted(stay_E, np.arange(first, last + 1)).tolist()
        stays = [
            self._stay(first + at, slice(low_E, high_E), (hours_E, variable_E, value_E))
            for at, (low_E, high_E) in enumerate(pairwise(bounds))
        ]
        for index, values in self._stays.static.items():
            missing = int(np.count_nonzero(np.isnan(values[first:last])))
            if missing:
                name = list(self._study.variables)[index]
                counts = self.tally.missing_static
                counts[name] = counts.get(name, 0) + missing
        ends = (self._bound_P[low : high + 1] - first).tolist()
        for patient, (begin, end) in enumerate(pairwise(ends), start=low):
            self.tally.patients += 1
            self.tally.stays += end - begin
            yield Patient(
                patient_id=self._stays.patient_ids[patient], stays=tuple(stays[begin:end])
            )

    def _stay(self, stay: int, part: slice, events: Events) -> Stay:
        hours_E, variable_E, value_E = events
        table = self._stays
        label, end_h, outcome_h = table.label_N[stay], table.end_h_N[stay], table.outcome_h_N[stay]
        until_h = table.outcome_until_h_N[stay]
        return Stay(
            stay_id=table.stay_ids[stay],
            hours_E=hours_E[part],
            variable_E=variable_E[part],
            value_E=value_E[part],
            label=float(label) if label.ndim == 0 else label,
            end_h=None if isnan(end_h) else float(end_h),
            outcome_h=None if isnan(outcome_h) else float(outcome_h),
            outcome_until_h=float(until_h) if until_h > outcome_h else None,
            start_us=int(table.start_N[stay]) or None,  # 0 stands for hours without a date
        )

    def _with_static(
        self, event_E: NDArray[Any], first: int, last: int
    ) -> tuple[NDArray[np.int32], *Events, NDArray[np.bool_]]:
        """Return the events' columns, preceded by the static values as events at hour 0."""
        columns: list[list[NDArray[Any]]] = [[event_E[name]] for name in _COLUMNS]
        for index, values in self._stays.static.items():
            known = first + np.flatnonzero(~np.isnan(values[first:last]))
            columns[0].insert(0, known.astype(np.int32))
            columns[1].insert(0, np.zeros(len(known), dtype=np.float32))
            columns[2].insert(0, np.full(len(known), index, dtype=np.int16))
            columns[3].insert(0, values[known])
            columns[4].insert(0, np.zeros(len(known), dtype=np.bool_))
        stay_E, hours_E, variable_E, value_E, again_E = (np.concatenate(part) for part in columns)
        return stay_E, hours_E, variable_E, value_E, again_E


def _chosen(parts: list[Any], which: NDArray[Any]) -> list[Any]:
    """Return these elements of each array; None stays None, and one array stays one."""
    chosen = {id(part): None if part is None else part[which] for part in parts}
    return [chosen[id(part)] for part in parts]


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=_EVENT)
