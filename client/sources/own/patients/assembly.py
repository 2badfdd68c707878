"""Makes patients of a table of stays and a stream of events, in bounded memory.

Events may come in any order; :mod:`.held_events` keeps them. Patients are then made span by span,
so memory holds only one span's events and one row per stay, whatever the size of the hospital's
files.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner
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
from consilium.client.sources.own.patients.event_times import EventTimes
from consilium.client.sources.own.patients.held_events import Events, HeldEvents, joined
from consilium.client.sources.own.patients.stay_table import StayTable
from consilium.client.sources.own.times.midnights import Midnights
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

FARTHEST_ZONE_H = 14.0  # the largest offset of a time zone from UTC
PATIENTS_AT_ONCE = 1024
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
        self._end_h_N = stays.end_h_N.astype(np.float32)
        self._midnights = Midnights()
        self._columns: list[str] = []
        self._told: dict[tuple[int, int, str], int] = {}
        self._are_days: list[NDArray[np.bool_]] = []
        self._held = HeldEvents(stays.patient_N, len(stays.patient_ids))

    def add(
        self,
        stay_E: NDArray[np.int32],
        hours_E: NDArray[np.float32],
        variable_E: NDArray[np.int16],
        value_E: NDArray[np.float32],
    ) -> None:
        """Add some events; those with ``stay_E`` below 0 belong to no stay of the cohort.

        Events after the end of their stay are set aside, as they were not known during it.

        Args:
            stay_E: their stays.
            hours_E: hours since the start of the stay.
            variable_E: their variables.
            value_E: their values.
        """
        always_E = np.zeros(len(stay_E), dtype=np.int16)
        found_E = self._judge(stay_E, hours_E, None)
        self._tell(found_E, variable_E, always_E)
        once_E = np.zeros(len(stay_E), dtype=np.bool_)
        self._hold(
            Events(stay_E, hours_E, variable_E, value_E, always_E, once_E), found_E == _TAKEN
        )

    def _judge(
        self,
        stay_E: NDArray[np.int32],
        hours_E: NDArray[np.float32],
        begun_h_E: NDArray[np.float32] | None,
    ) -> NDArray[np.int8]:
        """Return what becomes of events in these stays."""
        inside_E = stay_E >= 0
        end_h_E = self._end_h_N[stay_E]
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

    def _hold(self, events: Events, taken_E: NDArray[np.bool_]) -> None:
        """Keep those events that are taken."""
        self._held.add(events if taken_E.all() else events.chosen(taken_E))

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
        only_if_E = np.zeros(len(variable_E), dtype=np.int16)
        open_E = times.at_midnight()
        if times.clock_E is not None:
            exact = slice(None) if times.exact else times.first_E == times.until_E
            full_E, kinds = times.full_hours, len(self._study.variables)
            hours = (times.clock_E[full_E], variable_E[full_E])
            self._midnights.see(times.column, variable_E[exact], *hours, kinds)
        if len(open_E):
            if times.column not in self._columns:
                self._columns.append(times.column)
            only_if_E[open_E] = 1 + self._columns.index(times.column)
        columns = (variable_E, value_E, stay_E, patient_E)
        self._place(times.first_E, times.until_E, *columns, only_if_E)
        if len(open_E) and times.clock_E is not None and times.next_day is not None:
            until_E = times.next_day(times.clock_E[open_E])
            chosen = _chosen([*columns, -only_if_E], open_E)
            self._place(times.first_E[open_E], until_E, *chosen)

    def _place(
        self,
        first_E: NDArray[Any],
        until_E: NDArray[Any],
        variable_E: NDArray[Any],
        value_E: NDArray[Any],
        stay_E: NDArray[Any] | None,
        patient_E: NDArray[Any] | None,
        only_if_E: NDArray[np.int16],
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
            columns = (variable_E[at_E], value_E[at_E], only_if_E[at_E])
            self._hold(Events(to_E, hours_E, *columns, again_E), taken_E)
        self._tell(found_E, variable_E, only_if_E)

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

    def _tell(
        self, found_E: NDArray[np.int8], variable_E: NDArray[np.int16], only_if_E: NDArray[np.int16]
    ) -> None:
        """Count rows, now or, if it hangs on the sense of midnights, when that is known."""
        lost_E = np.flatnonzero(found_E)
        if not len(lost_E):
            return
        found_E, variable_E, only_if_E = found_E[lost_E], variable_E[lost_E], only_if_E[lost_E]
        for only_if in np.unique(only_if_E).tolist():
            for found, reasons in _REASONS.items():
                which_E = (found_E == found) & (only_if_E == only_if)
                for variable, number in enumerate(np.bincount(variable_E[which_E]).tolist()):
                    for reason in reasons if number else ():
                        self._count(reason, variable, number, only_if)

    def _count(self, reason: str, variable: int, number: int, only_if: int = 0) -> None:
        """Count rows of a variable by what is to be told of them."""
        if only_if:
            key = (only_if, variable, reason)
            self._told[key] = self._told.get(key, 0) + number
        elif reason == BY_DAY:
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

    def _meant(self, events: Events) -> Events:
        """Return the events that count, now that it is known what midnights mean."""
        open_E = np.flatnonzero(events.only_if_E)
        if not len(open_E):
            return events
        only_if_E, variable_E = events.only_if_E[open_E], events.variable_E[open_E]
        days_E = np.stack(self._are_days)[np.abs(only_if_E) - 1, variable_E]
        kept_E = np.ones(len(events.only_if_E), dtype=np.bool_)
        kept_E[open_E] = days_E == (only_if_E < 0)
        return events.chosen(kept_E)

    def patients(self) -> Iterator[Patient]:
        """Yield every patient of the cohort, in order; call once, after the last :meth:`add`."""
        self._settle()
        for low, high, parts in self._held.spans():
            yield from self._made(low, high, parts)

    def _made(self, low: int, high: int, parts: list[Events]) -> Iterator[Patient]:
        """Yield patients ``low`` to ``high``, high excluded; their events may be in any order."""
        table, bound_P = self._stays, self._stays.bound_P
        first, last = int(bound_P[low]), int(bound_P[high])
        events = self._meant(joined([*self._static(first, last), *parts]))
        del parts[:]  # they are not needed any more, and large
        stay_E, *columns = self._cleaner.clean_stays(*events[:4], events.again_E)
        del events
        for index, values in table.static.items():
            missing = int(np.count_nonzero(np.isnan(values[first:last])))
            if missing:
                name, counts = self._names[index], self.tally.missing_static
                counts[name] = counts.get(name, 0) + missing
        for begin in range(low, high, PATIENTS_AT_ONCE):
            ends_P = bound_P[begin : min(begin + PATIENTS_AT_ONCE, high) + 1].tolist()
            bounds = np.searchsorted(stay_E, np.arange(ends_P[0], ends_P[-1] + 1)).tolist()
            stays = self._stays_of(ends_P[0], ends_P[-1], bounds, columns)
            for patient, (at, end) in enumerate(pairwise(ends_P), start=begin):
                self.tally.patients += 1
                self.tally.stays += end - at
                yield Patient(
                    patient_id=table.patient_ids[patient],
                    stays=tuple(islice(stays, end - at)),
                )

    def _stays_of(
        self, first: int, last: int, bounds: list[int], columns: list[Any]
    ) -> Iterator[Stay]:
        """Yield stays ``first`` to ``last``, last excluded, given the bounds of their events."""
        table, part = self._stays, slice(first, last)
        hours_E, variable_E, value_E = columns
        label_N = table.label_N[part]
        rows = zip(
            table.stay_ids[part],
            pairwise(bounds),
            label_N.tolist() if label_N.ndim == 1 else label_N,
            table.end_h_N[part].tolist(),
            table.outcome_h_N[part].tolist(),
            table.outcome_until_h_N[part].tolist(),
            table.start_N[part].tolist(),
            strict=True,
        )
        for stay_id, (low, high), label, end_h, outcome_h, until_h, start_us in rows:
            yield Stay(
                stay_id=stay_id,
                hours_E=hours_E[low:high],
                variable_E=variable_E[low:high],
                value_E=value_E[low:high],
                label=label,
                end_h=None if isnan(end_h) else end_h,
                outcome_h=None if isnan(outcome_h) else outcome_h,
                outcome_until_h=until_h if until_h > outcome_h else None,
                start_us=start_us or None,  # 0 stands for hours without a date
            )

    def _static(self, first: int, last: int) -> Iterator[Events]:
        """Yield the static values of these stays as events at hour 0."""
        for index, values in self._stays.static.items():
            known = first + np.flatnonzero(~np.isnan(values[first:last]))
            yield Events(
                known.astype(np.int32),
                np.zeros(len(known), dtype=np.float32),
                np.full(len(known), index, dtype=np.int16),
                values[known],
                np.zeros(len(known), dtype=np.int16),
                np.zeros(len(known), dtype=np.bool_),
            )


def _chosen(parts: Sequence[Any], which: NDArray[Any]) -> list[Any]:
    """Return these elements of each array; None stays None, and one array stays one."""
    chosen = {id(part): None if part is None else part[which] for part in parts}
    return [chosen[id(part)] for part in parts]
