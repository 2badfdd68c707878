"""Spans: times with their precision, and how they compare.

A time that a record states is a *span*: the instants at which it can have been. An instant is a
span of no length; a day is the 23, 24 or 25 hours of that day by the hospital's clock. In a table a
column of spans is a struct (:data:`SPAN`):

- ``first``, ``until``: microseconds since 1970, in UTC; without any zone, by the hospital's clock.
  The time is not before ``first``, and not after ``until`` (before it, if the span is an hour or
  longer; the same as ``first``, if it is an instant).
- ``local``: the begin of the span by the hospital's clock, microseconds since 1970.
- ``precision``: a :class:`Precision`.

Two spans are compared at the coarser precision of the two, by the hospital's clock. What a
comparison cannot decide is null; ``&`` and ``|`` of polars carry null as *unknown* on.
"""

from enum import IntEnum

import polars as pl

US_PER_HOUR = 3_600_000_000
US_PER_DAY = 24 * US_PER_HOUR
US_PER_SECOND = 1_000_000


class Precision(IntEnum):
    """How exactly a time is known, from fine to coarse."""

    INSTANT = 0
    HOUR = 1
    DAY = 2
    MONTH = 3
    YEAR = 4


SPAN = pl.Struct(
    {"first": pl.Int64(), "until": pl.Int64(), "local": pl.Int64(), "precision": pl.Int8()}
)


def instants(time: pl.Expr) -> pl.Expr:
    """Return instants, given in microseconds since 1970 by a clock without a zone, as spans."""
    us = time.cast(pl.Int64)
    span = pl.struct(
        us.alias("first"),
        us.alias("until"),
        us.alias("local"),
        pl.lit(int(Precision.INSTANT), pl.Int8).alias("precision"),
    )
    return pl.when(us.is_not_null()).then(span)


def missing() -> pl.Expr:
    """Return a column of spans in which no time is known."""
    return pl.lit(None, dtype=SPAN)


def first(span: str) -> pl.Expr:
    """Return the begin of each span of a column."""
    return pl.col(span).struct.field("first")


def until(span: str) -> pl.Expr:
    """Return the end of each span of a column."""
    return pl.col(span).struct.field("until")


def local(span: str) -> pl.Expr:
    """Return the begin of each span of a column by the hospital's clock."""
    return pl.col(span).struct.field("local")


def precision(span: str) -> pl.Expr:
    """Return the precision of each span of a column."""
    return pl.col(span).struct.field("precision")


def number_of(time: pl.Expr, unit: Precision) -> pl.Expr:
    """Return the number of the hour, day, month or year in which a local time lies."""
    if unit is Precision.HOUR:
        return time // US_PER_HOUR
    if unit is Precision.DAY:
        return time // US_PER_DAY
    date = time.cast(pl.Datetime("us")).dt
    year = date.year().cast(pl.Int64)
    return year if unit is Precision.YEAR else year * 12 + date.month().cast(pl.Int64)


def compare(one: str, other: str) -> pl.Expr:
    """Return -1, 0 or 1 where a span of a column lies before, at, or after one of another.

    Null where it cannot be decided: instants whose spans overlap (an hour that the clock showed
    twice), and times of the same month or year of which one is known to the month or year only.
    Of one day or hour is 0, at that precision: whoever died on the day of discharge died by it.
    """
    coarser = pl.max_horizontal(precision(one), precision(other))
    points = (first(one) == until(one)) & (first(other) == until(other))
    by_clock = (
        pl.when(until(one) < first(other))
        .then(-1)
        .when(first(one) > until(other))
        .then(1)
        .when(points)
        .then(0)
    )
    orders = [pl.when(coarser == Precision.INSTANT).then(by_clock)]
    for unit in (Precision.HOUR, Precision.DAY, Precision.MONTH, Precision.YEAR):
        difference = number_of(local(one), unit) - number_of(local(other), unit)
        order = pl.when(difference < 0).then(-1).when(difference > 0).then(1)
        if unit <= Precision.DAY:
            order = order.when(difference == 0).then(0)
        orders.append(pl.when(coarser == unit).then(order))
    return pl.coalesce(orders)


def within(time: str, start: str, end: str) -> pl.Expr:
    """Return whether a span lies within a stay; null where it cannot be decided.

    A stay without an end holds all that is not before its start. A stay that ends with the first
    instant of a day holds that day's events only if they are instants; of an event known to that
    day alone it cannot be said.
    """
    at_end = compare(time, end)
    touches = (
        (precision(end) == Precision.INSTANT)
        & (precision(time) == Precision.DAY)
        & (local(end) % US_PER_DAY == 0)
        & (at_end == 0)
    )
    ended = pl.when(first(end).is_null()).then(pl.lit(value=True)).when(~touches).then(at_end <= 0)
    return (compare(time, start) >= 0) & ended


def days_between(start: str, end: str) -> pl.Expr:
    """Return the days from one span to another: exact between instants, else whole days.

    Null if one of them is known to the month or year only.
    """
    coarser = pl.max_horizontal(precision(start), precision(end))
    whole = number_of(local(end), Precision.DAY) - number_of(local(start), Precision.DAY)
    exact = (first(end) - first(start)) / US_PER_DAY
    return (
        pl.when(coarser == Precision.INSTANT)
        .then(exact)
        .when(coarser <= Precision.DAY)
        .then(whole.cast(pl.Float64))
    )


def as_days(span: str) -> pl.Expr:
    """Take a column's instants at midnight, or at the last second of a day, for that whole day.

    So records write a death or a diagnosis of which only the day is known. The comparison of days
    needs ``local`` and ``precision`` alone; ``first`` and ``until`` become the bounds of 24 hours.
    """
    clock = local(span) % US_PER_DAY
    day = (precision(span) == Precision.INSTANT) & (
        (clock == 0) | (clock >= US_PER_DAY - US_PER_SECOND)
    )
    begin = first(span) - clock
    whole = pl.struct(
        begin.alias("first"),
        (begin + US_PER_DAY).alias("until"),
        (local(span) - clock).alias("local"),
        pl.lit(int(Precision.DAY), pl.Int8).alias("precision"),
    )
    return pl.when(day).then(whole).otherwise(pl.col(span)).alias(span)


def years_between(birth: str, start: str) -> pl.Expr:
    """Return the age in whole years, as the calendar counts it by the hospital's clock.

    A birth known to the month or year only is taken in its middle.
    """
    born = local(birth).cast(pl.Datetime("us")).dt
    month = pl.when(precision(birth) == Precision.YEAR).then(7).otherwise(born.month())
    day = pl.when(precision(birth) >= Precision.MONTH).then(15).otherwise(born.day())
    now = local(start).cast(pl.Datetime("us")).dt
    before = now.month().cast(pl.Int32) * 32 + now.day() < month.cast(pl.Int32) * 32 + day
    return now.year() - born.year() - before.cast(pl.Int32)
