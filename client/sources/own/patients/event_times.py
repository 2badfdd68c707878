"""When rows of events happened: from spans to what the assembler takes.

A table of events has ``time`` (microseconds since 1970: the first instant at which a row can have
happened), and, only where it is needed, ``until`` (the last) and ``local`` (what the hospital's
clock showed).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from consilium.client.sources.own.settings.hospital import Midnight
from consilium.client.sources.own.times.clock import Clock
from consilium.client.sources.own.times.midnights import at_multiples
from consilium.client.sources.own.times.reading import Spans
from consilium.client.sources.own.times.spans import US_PER_DAY, US_PER_HOUR

LONGEST_DAY = 27 * US_PER_HOUR  # a longer span is a month or a year


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

    @property
    def exact(self) -> bool:
        """Whether all are instants."""
        return self.first_E is self.until_E

    @cached_property
    def full_hours(self) -> NDArray[np.int64]:
        """The indices of instants at a full hour of the clock."""
        if self.clock_E is None:
            return np.empty(0, dtype=np.int64)
        hour_E = at_multiples(self.clock_E, US_PER_HOUR)
        return hour_E if self.exact else hour_E[self.first_E[hour_E] == self.until_E[hour_E]]

    def at_midnight(self) -> NDArray[np.int64]:
        """Return the indices of instants at midnight that may stand for their days."""
        if self.clock_E is None or self.next_day is None:
            return np.empty(0, dtype=np.int64)
        hour_E = self.full_hours
        found_E: NDArray[np.int64] = hour_E[self.clock_E[hour_E] % US_PER_DAY == 0]
        return found_E


def time_columns(spans: Spans, clock: Clock, midnight: Midnight) -> list[pl.Series]:
    """Return the columns of times for a table of events.

    Args:
        spans: when the rows happened.
        clock: the hospital's clock.
        midnight: what midnights stand for, as the hospital's settings say.
    """
    first, until = spans.first, spans.until
    if midnight == "day" and (at := spans.midnight).any():
        until = clock.utc(spans.local + US_PER_DAY).zip_with(at, until)
    columns = [first.alias("time")]
    if until is not first:
        columns.append(until.alias("until"))
    if midnight == "detect" and spans.local is not first:
        columns.append(spans.local.alias("local"))
    return columns


def event_times(rows: pl.DataFrame, clock: Clock, midnight: Midnight, column: str) -> EventTimes:
    """Return when the rows of a table of events happened; all must have a time.

    Args:
        rows: has the columns described above for the module.
        clock: the hospital's clock.
        midnight: what midnights stand for, as the hospital's settings say.
        column: names the column of times, in which midnights are judged by their share.
    """
    first_E = rows["time"].to_numpy()
    until_E = rows["until"].to_numpy() if "until" in rows.columns else first_E
    if midnight != "detect":
        return EventTimes(first_E=first_E, until_E=until_E)

    def next_day(clock_E: NDArray[np.int64]) -> NDArray[np.int64]:
        return clock.utc(pl.Series(clock_E) + US_PER_DAY).to_numpy()

    return EventTimes(
        first_E=first_E,
        until_E=until_E,
        clock_E=rows["local"].to_numpy() if "local" in rows.columns else first_E,
        next_day=next_day,
        column=column,
    )


def vague(rows: pl.DataFrame) -> pl.Series:
    """Return which rows are known to the month or year only."""
    if "until" not in rows.columns:
        return pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(rows))
    return (rows["until"] - rows["time"] > LONGEST_DAY).fill_null(value=False)
