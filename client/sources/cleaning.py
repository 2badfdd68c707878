"""Cleaning: what every source does to the events of a stay before anyone else sees them.

In this order: drop what lies outside the window; repair obvious slips of unit; drop or clip what
is out of the variable's range; sort by time; of several values of one variable at one time keep
the last. Everything set aside is counted.

A slip is repaired only when the value as given is impossible, the repaired value is possible, and
no other reading is: a temperature of 98.6 in a Celsius column, a pH of 735, a height of 1.8 or
70 in a centimetre column, 431.8 where inches were converted twice, an inspired oxygen of 40.

Legend: V variables and columns of codes of the study, E events of one stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.sources import Tally
from shared.study import Study
from shared.variables import UNKNOWN_TOKEN, token_names, token_numbers

Events = tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]]


@dataclass(frozen=True)
class Slip:
    """Values in ``low`` to ``high`` of a variable in ``unit`` mean ``factor * (x - offset)``."""

    unit: str
    low: float
    high: float
    factor: float
    offset: float = 0.0


SLIPS: Mapping[str, tuple[Slip, ...]] = {
    "Temp": (Slip("Cel", 80.0, 113.0, 5 / 9, 32.0),),
    "pH": (Slip("[pH]", 650.0, 800.0, 0.01), Slip("[pH]", 65.0, 80.0, 0.1)),
    "FiO2": (Slip("1", 21.0, 100.0, 0.01),),
    "Height": (
        Slip("cm", 1.2, 2.3, 100.0),
        Slip("cm", 48.0, 90.0, 2.54),
        Slip("cm", 305.0, 584.0, 1 / 2.54),
    ),
}


class Cleaner:
    """Cleans one study's events; built once per reading.

    Args:
        study: gives variables, ranges, window and what to do out of range.
        tally: where everything set aside is counted.
    """

    def __init__(self, study: Study, tally: Tally) -> None:
        specs = study.variables
        tokens = token_names(study)
        most = float(UNKNOWN_TOKEN + len(token_numbers(study)))
        low = [*(spec.low for spec in specs.values()), *(float(UNKNOWN_TOKEN) for _ in tokens)]
        high = [*(spec.high for spec in specs.values()), *(most for _ in tokens)]
        self._names = (*specs, *tokens)
        self._low_V = np.array(low, dtype=np.float32)
        self._high_V = np.array(high, dtype=np.float32)
        self._window_h = float(study.data.window_h)
        self._clip = study.data.on_out_of_range == "clip"
        self._slips = {
            index: tuple(slip for slip in SLIPS.get(name, ()) if slip.unit == spec.unit)
            for index, (name, spec) in enumerate(specs.items())
        }
        self._tally = tally

    def clean(
        self,
        hours_E: NDArray[np.float32],
        variable_E: NDArray[np.int16],
        value_E: NDArray[np.float32],
    ) -> Events:
        """Return hours, variable and value of the events kept, sorted by time then variable.

        Values must be finite. An event at the very end of the window belongs to it.

        Guarantee: every value returned lies in its variable's range, every time in the window,
        and no (time, variable) occurs twice.
        """
        inside_E = (hours_E >= 0) & (hours_E <= self._window_h)
        if not inside_E.all():
            self._tally.outside_window += int(np.count_nonzero(~inside_E))
            hours_E, variable_E, value_E = (
                hours_E[inside_E],
                variable_E[inside_E],
                value_E[inside_E],
            )
        low_E, high_E = self._low_V[variable_E], self._high_V[variable_E]
        out_E = (value_E < low_E) | (value_E > high_E)
        if out_E.any():
            value_E = self._repair(variable_E, value_E, out_E)
            out_E = (value_E < low_E) | (value_E > high_E)
            self._count(self._tally.out_of_range, variable_E[out_E])
            if self._clip:
                value_E = np.clip(value_E, low_E, high_E)
            else:
                hours_E, variable_E, value_E = hours_E[~out_E], variable_E[~out_E], value_E[~out_E]
        hours_E, variable_E, value_E = self._without_duplicates(hours_E, variable_E, value_E)
        self._tally.events += len(hours_E)
        return hours_E, variable_E, value_E

    def _repair(
        self, variable_E: NDArray[np.int16], value_E: NDArray[np.float32], out_E: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        value_E = value_E.copy()
        for event in np.flatnonzero(out_E):
            variable, value = int(variable_E[event]), float(value_E[event])
            for slip in self._slips.get(variable, ()):
                mended = slip.factor * (value - slip.offset)
                fits = self._low_V[variable] <= mended <= self._high_V[variable]
                if slip.low <= value <= slip.high and fits:
                    value_E[event] = mended
                    self._count(self._tally.repaired, variable_E[event : event + 1])
                    break
        return value_E

    def _without_duplicates(
        self,
        hours_E: NDArray[np.float32],
        variable_E: NDArray[np.int16],
        value_E: NDArray[np.float32],
    ) -> Events:
        order_E = np.lexsort((variable_E, hours_E))  # stable: the file's order breaks ties
        hours_E, variable_E, value_E = hours_E[order_E], variable_E[order_E], value_E[order_E]
        last_E = np.ones(len(hours_E), dtype=np.bool_)
        last_E[:-1] = (hours_E[1:] != hours_E[:-1]) | (variable_E[1:] != variable_E[:-1])
        if not last_E.all():
            self._tally.duplicates += int(np.count_nonzero(~last_E))
            hours_E, variable_E, value_E = hours_E[last_E], variable_E[last_E], value_E[last_E]
        return hours_E, variable_E, value_E

    def _count(self, counts: dict[str, int], variable_E: NDArray[np.int16]) -> None:
        for variable in variable_E:
            name = self._names[int(variable)]
            counts[name] = counts.get(name, 0) + 1
