"""The events of one reading until patients are made of them, in bounded memory.

Up to ``EVENTS_IN_MEMORY`` of them are kept in memory; beyond that they go to unnamed temporary
files, one for each range ("span") of patients. The operating system frees these files when the
process ends, even by a crash; they lie in the folder that the environment variable TMPDIR names.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

EVENTS_IN_MEMORY = 1_000_000  # 17 bytes each, and several times that while they are sorted
SPANS = 128


class Events(NamedTuple):
    """Events by column, one element each.

    Attributes:
        stay_E: int32, its stay.
        hours_E: float32, hours since the start of the stay.
        variable_E: int16, its variable.
        value_E: float32, in the study's unit.
        only_if_E: int16, n if it counts only if the midnights of the n-th column of times are
            instants, -n if they are days, 0 if it counts in any case.
        again_E: bool, whether its row counts in another stay, too, and is counted there.
    """

    stay_E: NDArray[np.int32]
    hours_E: NDArray[np.float32]
    variable_E: NDArray[np.int16]
    value_E: NDArray[np.float32]
    only_if_E: NDArray[np.int16]
    again_E: NDArray[np.bool_]

    def chosen(self, which: NDArray[Any]) -> "Events":
        """Return the events that an index selects."""
        return Events(*(column[which] for column in self))


_TYPES = ("<i4", "<f4", "<i2", "<f4", "<i2", "?")
_RECORD = np.dtype(list(zip(Events._fields, _TYPES, strict=True)))


def joined(parts: Sequence[Events]) -> Events:
    """Return the events of all parts, in their order."""
    if not parts:
        return Events(*(np.empty(0, dtype=kind) for kind in _TYPES))
    return Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class HeldEvents:
    """Takes events in any order, and gives them back by spans of patients.

    Args:
        patient_N: int32, each stay's patient, ascending from 0.
        patients: how many there are.
    """

    def __init__(self, patient_N: NDArray[np.int32], patients: int) -> None:
        self._patient_N = patient_N
        # A span is a range of patients, so no patient is in two spans.
        bounds = np.linspace(0, patients, min(SPANS, max(1, patients)) + 1).astype(np.int64)
        self._bounds = np.unique(bounds)
        self._parts: list[Events] = []
        self._number = 0
        self._files: list[IO[bytes]] = []
        self._stack = ExitStack()

    def add(self, events: Events) -> None:
        """Take some events."""
        self._parts.append(events)
        self._number += len(events.stay_E)
        if self._number > EVENTS_IN_MEMORY:
            self._spill()

    def spans(self) -> Iterator[tuple[int, int, list[Events]]]:
        """Yield ranges of patients (first, last excluded) and their events; call it once."""
        with self._stack:
            if not self._files:
                parts, self._parts = self._parts, []
                yield 0, int(self._bounds[-1]), parts
                return
            self._spill()
            for file, low, high in zip(
                self._files, self._bounds[:-1], self._bounds[1:], strict=True
            ):
                file.seek(0)
                records = np.frombuffer(file.read(), _RECORD)
                yield int(low), int(high), [Events(*(records[name] for name in Events._fields))]

    def _spill(self) -> None:
        """Move the events from memory to the files of their spans."""
        if not self._files:
            self._files = [
                self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
                for _ in self._bounds[1:]
            ]
        events = joined(self._parts)
        self._parts, self._number = [], 0
        span_N = np.searchsorted(self._bounds, self._patient_N, side="right") - 1
        span_E = span_N.astype(np.uint8)[events.stay_E]  # sorted by radix, as it is so small
        order_E = np.argsort(span_E, kind="stable")
        records = np.empty(len(order_E), dtype=_RECORD)
        for name, column in zip(Events._fields, events, strict=True):
            records[name] = np.asarray(column)[order_E]
        ends = np.cumsum(np.bincount(span_E, minlength=len(self._files))).tolist()
        for file, begin, end in zip(self._files, [0, *ends], ends, strict=False):
            file.write(records[begin:end].tobytes())
