"""When rows of events happened: from spans to what the assembler takes.

A table of events has ``time`` (microseconds since 1970: the first instant at which a row can have
happened), and, only where it is needed, ``until`` (the last), ``local`` (what the hospital's clock
showed), ``open`` (whether that is a midnight which may stand for its day).
"""

import polars as pl

from consilium.client.sources.own.assembly import EventTimes
from consilium.client.sources.own.settings import Midnight
from consilium.client.sources.times.clock import Clock
from consilium.client.sources.times.reading import Spans
from consilium.client.sources.times.spans import US_PER_DAY, US_PER_HOUR

LONGEST_DAY = 27 * US_PER_HOUR  # a longer span is a month or a year


def time_columns(spans: Spans, clock: Clock, midnight: Midnight) -> list[pl.Series]:
    """Return the columns of times for a table of events.

    Args:
        spans: when the rows happened.
        clock: the hospital's clock.
        midnight: what midnights stand for, as the hospital's settings say.
    """
    first, until = spans.first, spans.until
    columns = [first.alias("time")]
    if midnight == "instant":
        return columns if until is first else [*columns, until.alias("until")]
    open_ = spans.midnight
    if midnight == "day" and open_.any():
        until = clock.utc(spans.local + US_PER_DAY).zip_with(open_, until)
    if until is not first:
        columns.append(until.alias("until"))
    if midnight == "detect":
        columns.append(open_.alias("open"))
        if spans.local is not first:
            columns.append(spans.local.alias("local"))
    return columns


def event_times(rows: pl.DataFrame, clock: Clock, column: str) -> EventTimes:
    """Return when the rows of a table of events happened; all must have a time.

    Args:
        rows: has the columns described above for the module.
        clock: the hospital's clock.
        column: names the column of times, in which midnights are judged by their share.
    """
    first_E = rows["time"].to_numpy()
    until_E = rows["until"].to_numpy() if "until" in rows.columns else first_E
    if "open" not in rows.columns:
        return EventTimes(first_E=first_E, until_E=until_E)
    local = rows["local" if "local" in rows.columns else "time"]
    next_day = clock.utc(local.filter(rows["open"]) + US_PER_DAY)
    return EventTimes(
        first_E=first_E,
        until_E=until_E,
        column=column,
        clock_E=local.to_numpy(),
        open_E=rows["open"].to_numpy(),
        next_day_E=next_day.to_numpy(),
    )


def vague(rows: pl.DataFrame) -> pl.Series:
    """Return which rows are known to the month or year only."""
    if "until" not in rows.columns:
        return pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(rows))
    return (rows["until"] - rows["time"] > LONGEST_DAY).fill_null(value=False)
