"""Cleaning: what every source does to the events of a stay before it yields them.

In this order: drop what lies outside the window; repair obvious mistakes of unit; drop or clip what
is outside the variable's range; sort by time; of several values of a variable at the same time,
keep the last. Everything set aside is counted.

A unit is repaired only if the value as given is impossible, the repaired value is possible, and no
other repair is: a temperature of 98.6 in a Celsius column, a pH of 735, a height of 1.8 or 70 in a
centimetre column, 431.8 where inches were converted twice, an inspired oxygen of 40.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.reasons import (
    KEPT,
    OUTSIDE_WINDOW,
    REPEATED,
    STAGE_OUT_OF_RANGE,
)
from consilium.client.sources.common.source import Tally
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import UNKNOWN_TOKEN, token_names, token_numbers

Events = tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]]
_BITS, _HOURS_BITS = 64, 31  # of an integer, and of hours that are not negative
_Events = tuple[NDArray[np.int32] | None, *Events, NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Slip:
    """A repair: x from ``low`` to ``high``, given in ``unit``, means ``factor * (x - offset)``."""

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
        study: gives variables, ranges, window, and what to do with values out of range.
        tally: counts everything set aside.
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
        self._reach_h = float(study.data.reach_h)
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
        """Return hours, variable and value of one stay's kept events, by time, then variable.

        Values must be finite. An event at the very end of the window is inside it.

        Guarantee: every value returned lies in its variable's range, every time in the window,
        and no (time, variable) occurs twice.
        """
        _, hours_E, variable_E, value_E, _ = self._clean(None, hours_E, variable_E, value_E, None)
        return hours_E, variable_E, value_E

    def clean_stays(
        self,
        stay_E: NDArray[np.int32],
        hours_E: NDArray[np.float32],
        variable_E: NDArray[np.int16],
        value_E: NDArray[np.float32],
        again_E: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int32], *Events]:
        """Like :meth:`clean` for many stays at once; the result is sorted by stay first.

        ``again_E`` are events of rows that belong to another stay, too, and are counted by
        variable there; None if there are none.
        """
        again_E = again_E if again_E is not None and again_E.any() else None
        kept_E, hours_E, variable_E, value_E, _ = self._clean(
            stay_E, hours_E, variable_E, value_E, again_E
        )
        return stay_E if kept_E is None else kept_E, hours_E, variable_E, value_E

    def _clean(
        self,
        stay_E: NDArray[np.int32] | None,
        hours_E: NDArray[np.float32],
        variable_E: NDArray[np.int16],
        value_E: NDArray[np.float32],
        again_E: NDArray[np.bool_] | None,
    ) -> _Events:
        kept_E = (hours_E >= 0) & (hours_E <= self._reach_h)
        self._ends(OUTSIDE_WINDOW, variable_E, ~kept_E, again_E)
        self._tally.outside_window += int(np.count_nonzero(~kept_E))
        low_E, high_E = self._low_V[variable_E], self._high_V[variable_E]
        out_E = kept_E & ((value_E < low_E) | (value_E > high_E))
        if out_E.any():
            value_E = self._repair(variable_E, value_E, out_E)
            out_E &= (value_E < low_E) | (value_E > high_E)
            self._count(self._tally.out_of_range, variable_E[out_E])
            if self._clip:
                value_E = np.clip(value_E, low_E, high_E)
            else:
                self._ends(STAGE_OUT_OF_RANGE, variable_E, out_E, again_E)
                kept_E &= ~out_E
        stay_E, hours_E, variable_E, value_E, again_E = _kept(
            kept_E, stay_E, hours_E, variable_E, value_E, again_E
        )
        order_E = _order(stay_E, hours_E, variable_E)
        stay_E, hours_E, variable_E, value_E, again_E = _kept(
            order_E, stay_E, hours_E, variable_E, value_E, again_E
        )
        last_E = np.ones(len(hours_E), dtype=np.bool_)
        last_E[:-1] = (hours_E[1:] != hours_E[:-1]) | (variable_E[1:] != variable_E[:-1])
        if stay_E is not None:
            last_E[:-1] |= stay_E[1:] != stay_E[:-1]
        self._ends(REPEATED, variable_E, ~last_E, again_E)
        self._ends(KEPT, variable_E, last_E, again_E)
        self._tally.duplicates += int(np.count_nonzero(~last_E))
        self._tally.events += int(np.count_nonzero(last_E))
        return _kept(last_E, stay_E, hours_E, variable_E, value_E, again_E)

    def _repair(
        self, variable_E: NDArray[np.int16], value_E: NDArray[np.float32], out_E: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Repair mistakes of unit among the values out of range."""
        value_E = value_E.copy()
        for variable, slips in self._slips.items():
            at = np.flatnonzero(out_E & (variable_E == variable)) if slips else ()
            if not len(at):
                continue
            given, done = value_E[at], np.zeros(len(at), dtype=np.bool_)
            for slip in slips:
                mended = (slip.factor * (given.astype(np.float64) - slip.offset)).astype(np.float32)
                fits = (self._low_V[variable] <= mended) & (mended <= self._high_V[variable])
                fits &= (slip.low <= given) & (given <= slip.high) & ~done
                value_E[at[fits]] = mended[fits]
                done |= fits
            self._count(self._tally.repaired, variable_E[at[done]])
        return value_E

    def _ends(
        self,
        stage: str,
        variable_E: NDArray[np.int16],
        which_E: NDArray[np.bool_],
        again_E: NDArray[np.bool_] | None,
    ) -> None:
        which_E = which_E if again_E is None else which_E & ~again_E
        if which_E.any():
            every = which_E.all()
            self._tally.ends_at(stage, self._names, variable_E if every else variable_E[which_E])

    def _count(self, counts: dict[str, int], variable_E: NDArray[np.int16]) -> None:
        for variable, number in enumerate(np.bincount(variable_E, minlength=len(self._names))):
            if number:
                name = self._names[variable]
                counts[name] = counts.get(name, 0) + int(number)


def _kept(
    which: NDArray[Any],
    stay_E: NDArray[np.int32] | None,
    hours_E: NDArray[np.float32],
    variable_E: NDArray[np.int16],
    value_E: NDArray[np.float32],
    again_E: NDArray[np.bool_] | None,
) -> _Events:
    """Return the events that a boolean or integer index selects."""
    if which.dtype == np.bool_ and which.all():
        return stay_E, hours_E, variable_E, value_E, again_E
    stays = None if stay_E is None else stay_E[which]
    agains = None if again_E is None else again_E[which]
    return stays, hours_E[which], variable_E[which], value_E[which], agains


def _order(
    stay_E: NDArray[np.int32] | None, hours_E: NDArray[np.float32], variable_E: NDArray[np.int16]
) -> NDArray[np.int64]:
    """Return the order by stay, hour and variable; ties stay in the order of the file.

    Many events are sorted by integers: the bits of a float32 that is not negative, read as an
    integer, sort in the order of the numbers.
    """
    if stay_E is None or not len(stay_E):
        return np.lexsort((variable_E, hours_E))
    bits_E = (hours_E + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0.0 becomes 0.0
    key_E = (stay_E.astype(np.uint64) << np.uint64(32)) | bits_E
    if (key_E[1:] > key_E[:-1]).all():
        return np.arange(len(key_E))
    numbers = np.uint64(len(key_E).bit_length())
    kinds = np.uint64(int(variable_E.max()).bit_length())
    if _HOURS_BITS + kinds + numbers > _BITS:
        return np.lexsort((variable_E, hours_E, stay_E))
    # The hours, then the variable, then the place in the file: sorting numbers is several times
    # faster than sorting places by numbers.
    key_E = (bits_E << kinds) | variable_E.astype(np.uint64)
    key_E = (key_E << numbers) | np.arange(len(key_E), dtype=np.uint64)
    key_E.sort()
    order_E = (key_E & ((np.uint64(1) << numbers) - np.uint64(1))).astype(np.int64)
    from_E = (stay_E - stay_E.min()).astype(np.uint32)
    for digit_E in (from_E.astype(np.uint16), (from_E >> np.uint32(16)).astype(np.uint16)):
        if digit_E.any():
            order_E = order_E[np.argsort(digit_E[order_E], kind="stable")]  # by radix
    return order_E
