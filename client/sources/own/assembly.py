"""Makes patients of a table of stays and a stream of events, in bounded memory.

Events may come in any order. Up to ``EVENTS_IN_MEMORY`` of them are kept in memory; beyond that
they go to unnamed temporary files, one for each range ("span") of patients. The operating system
frees these files when the process ends, even by a crash; they lie in the folder that the
environment variable TMPDIR names. Patients are then made span by span, so memory holds only one
span's events and one row per stay, whatever the size of the hospital's files.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from math import isnan
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner, Events
from consilium.client.sources.common.reasons import (
    AFTER_END,
    BEFORE_START,
    NO_STAY,
    SHIFTED,
    STAGE_NO_STAY,
    STAGE_OUTSIDE_STAY,
)
from consilium.client.sources.common.source import Patient, Stay, Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

FARTHEST_ZONE_H = 14.0  # the largest offset of a time zone from UTC
EVENTS_IN_MEMORY = 1_000_000  # 14 bytes each, and the same again while they are sorted
SPANS = 128
US_PER_HOUR = 3_600_000_000
_EVENT = np.dtype([("stay", "<i4"), ("hours", "<f4"), ("variable", "<i2"), ("value", "<f4")])


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StayTable:
    """All stays of the cohort, sorted by patient and start.

    Attributes:
        patient_ids: P identifiers, sorted.
        patient_N: int32, index of each stay's patient, ascending.
        stay_ids: N identifiers.
        start_N: int64, microseconds since 1970; all 0 if events give hours, not times.
        end_h_N: float64, hours from start to end; NaN if unknown.
        label_N: float32, (N,) or (N, K) or (N, T); NaN if unknown.
        outcome_h_N: float64, hours from start to the outcome; NaN if it did not happen.
        static: float32 (N,) for the index of each static variable in the study; NaN if missing.
    """

    patient_ids: tuple[str, ...]
    patient_N: NDArray[np.int32]
    stay_ids: tuple[str, ...]
    start_N: NDArray[np.int64]
    end_h_N: NDArray[np.float64]
    label_N: NDArray[np.float32]
    outcome_h_N: NDArray[np.float64]
    static: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stay_ids)

    def place(
        self, patient_E: NDArray[np.int32], time_E: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Find each event's stay by time: the patient's latest stay that had begun.

        Returns:
            stay_E (-1 if no stay had begun), and hours_E since the stay's start.
        """
        starts, rank_N = np.unique(self.start_N, return_inverse=True)
        places = len(starts) + 1
        key_N = self.patient_N.astype(np.int64) * places + rank_N + 1
        rank_E = np.searchsorted(starts, time_E, side="right")
        key_E = patient_E.astype(np.int64) * places + rank_E
        stay_E = np.searchsorted(key_N, key_E, side="right") - 1
        found_E = (stay_E >= 0) & (self.patient_N[np.maximum(stay_E, 0)] == patient_E)
        placed_E: NDArray[np.int32] = np.where(found_E, stay_E, -1).astype(np.int32)
        return placed_E, self.hours(placed_E, time_E)

    def place_all(
        self, patient_E: NDArray[np.int32], time_E: NDArray[np.int64], reach_h: float
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]]:
        """Like :meth:`place`, for stays that overlap: an event belongs to all stays around it.

        Args:
            patient_E: each event's patient.
            time_E: each event's time.
            reach_h: a stay contains events up to this many hours after its start.

        Yields:
            Indices of events, their stays, and the hours since the stays' starts.
        """
        event_E = np.arange(len(patient_E))
        stay_E, hours_E = self.place(patient_E, time_E)
        while len(event_E):
            held = (stay_E >= 0) & (hours_E <= reach_h)
            held &= self.patient_N[np.maximum(stay_E, 0)] == patient_E[event_E]
            event_E, stay_E, hours_E = event_E[held], stay_E[held], hours_E[held]
            yield event_E, stay_E, hours_E
            stay_E = stay_E - 1
            hours_E = self.hours(stay_E, time_E[event_E])

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
    ) -> None:
        """Add some events; those with ``stay_E`` below 0 belong to no stay of the cohort.

        Events after the end of their stay are set aside, as they were not known during it.
        """
        inside_E = stay_E >= 0
        self.count(NO_STAY, int(np.count_nonzero(~inside_E)))
        self.tally.ends_at(STAGE_NO_STAY, self._names, variable_E[~inside_E])
        if not inside_E.any():
            return
        late_E = inside_E & (hours_E > self._stays.end_h_N[stay_E].astype(np.float32))
        early_E = inside_E & (hours_E < 0)
        self.count(AFTER_END, int(np.count_nonzero(late_E)))
        self.count(BEFORE_START, int(np.count_nonzero(early_E)))
        outside_E = late_E | early_E
        self.tally.ends_at(STAGE_OUTSIDE_STAY, self._names, variable_E[outside_E])
        if outside_E.any():
            beyond_E = hours_E - np.where(early_E, 0, self._stays.end_h_N[stay_E])
            near_E = outside_E & (np.abs(beyond_E) <= FARTHEST_ZONE_H)
            self.tally.clue(SHIFTED, int(np.count_nonzero(near_E)))
        kept_E = inside_E & ~outside_E
        event_E = np.empty(int(np.count_nonzero(kept_E)), dtype=_EVENT)
        event_E["stay"], event_E["hours"] = stay_E[kept_E], hours_E[kept_E]
        event_E["variable"], event_E["value"] = variable_E[kept_E], value_E[kept_E]
        self._held.append(event_E)
        self._events += len(event_E)
        if self._events > EVENTS_IN_MEMORY:
            self._spill()

    def count(self, reason: str, number: int) -> None:
        """Add to the number of things set aside for a reason."""
        self.tally.count(reason, number)

    def patients(self) -> Iterator[Patient]:
        """Yield every patient of the cohort, in order; call once, after the last :meth:`add`."""
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
            *self._with_static(event_E, first, last)
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
        return Stay(
            stay_id=table.stay_ids[stay],
            hours_E=hours_E[part],
            variable_E=variable_E[part],
            value_E=value_E[part],
            label=float(label) if label.ndim == 0 else label,
            end_h=None if isnan(end_h) else float(end_h),
            outcome_h=None if isnan(outcome_h) else float(outcome_h),
        )

    def _with_static(
        self, event_E: NDArray[Any], first: int, last: int
    ) -> tuple[NDArray[np.int32], *Events]:
        """Return the events' columns, preceded by the static values as events at hour 0."""
        columns: list[list[NDArray[Any]]] = [[event_E[name]] for name in _EVENT.names or ()]
        for index, values in self._stays.static.items():
            known = first + np.flatnonzero(~np.isnan(values[first:last]))
            columns[0].insert(0, known.astype(np.int32))
            columns[1].insert(0, np.zeros(len(known), dtype=np.float32))
            columns[2].insert(0, np.full(len(known), index, dtype=np.int16))
            columns[3].insert(0, values[known])
        stay_E, hours_E, variable_E, value_E = (np.concatenate(parts) for parts in columns)
        return stay_E, hours_E, variable_E, value_E


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=_EVENT)
