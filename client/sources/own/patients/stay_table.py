"""The stays of a cohort, as the assembler needs them: which of them holds an event."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.own.times.spans import US_PER_HOUR

FOREVER = 1 << 62  # microseconds since 1970


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
    def bound_P(self) -> NDArray[np.int64]:
        """The index of each patient's first stay, and last the number of stays."""
        return np.searchsorted(self.patient_N, np.arange(len(self.patient_ids) + 1))

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
        time_E = until_E if first_E is until_E else until_E - (first_E < until_E)
        end_E = self.bound_P[patient_E + 1]
        placed_E = self.bound_P[patient_E] - 1
        most = int(np.diff(self.bound_P).max(initial=0))  # stays of one patient
        for step in (1 << power for power in reversed(range(most.bit_length()))):
            next_E = placed_E + step
            begun_E = self.start_N[np.minimum(next_E, len(self) - 1)] <= time_E
            placed_E = np.where(begun_E & (next_E < end_E), next_E, placed_E)
        placed_E[placed_E < self.bound_P[patient_E]] = -1
        return placed_E.astype(np.int32)

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
