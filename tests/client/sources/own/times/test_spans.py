"""How spans compare, against slow rules written in plain Python."""

import datetime as dt
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.sources.own.times import spans
from consilium.client.sources.own.times.clock import clock_of
from consilium.client.sources.own.times.reading import read_times, spans_of
from consilium.client.sources.own.times.spans import Precision

BERLIN = ZoneInfo("Europe/Berlin")
# A few days around the end of a year and of summer time, so that equal ones are common.
BEGINS = (dt.datetime(2023, 12, 30), dt.datetime(2024, 10, 26))
ROWS = 150
SEEDS = st.integers(0, 2**32 - 1)
TEXT = {
    Precision.INSTANT: "%Y-%m-%d %H:%M",
    Precision.HOUR: "%Y-%m-%d %H",
    Precision.DAY: "%Y-%m-%d",
    Precision.MONTH: "%Y-%m",
    Precision.YEAR: "%Y",
}
PARTS = {Precision.HOUR: 4, Precision.DAY: 3, Precision.MONTH: 2, Precision.YEAR: 1}
Time = tuple[dt.datetime, Precision]


def drawn(stream: np.random.Generator) -> list[Time]:
    """So many times of all precisions, by the quarter of an hour."""
    return [
        (BEGINS[begin] + dt.timedelta(minutes=15 * int(quarter)), Precision(precision))
        for begin, quarter, precision in zip(
            stream.integers(0, 2, ROWS),
            stream.integers(0, 4 * 24 * 3, ROWS) * stream.integers(0, 2, ROWS),
            stream.integers(0, len(Precision), ROWS),
            strict=True,
        )
    ]


def table(**times: Sequence[Time | None]) -> pl.DataFrame:
    """Spans, read from texts as a table would have them."""
    clock = clock_of("Europe/Berlin")
    columns = []
    for name, column in times.items():
        texts = [None if one is None else one[0].strftime(TEXT[one[1]]) for one in column]
        written = read_times(pl.Series(texts, dtype=pl.String))
        assert written is not None
        assert written.unread is None
        columns.append(spans_of(written, clock).struct().alias(name))
    return pl.DataFrame(columns)


def instants(wall: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    before, after = (wall.replace(tzinfo=BERLIN, fold=n).astimezone(dt.UTC) for n in (0, 1))
    return before, max(before, after)


def order(one: Time, other: Time) -> int | None:
    """-1, 0, 1 or None: the rule of comparison, in plain words."""
    coarser = max(one[1], other[1])
    if coarser is Precision.INSTANT:
        (a, b), (c, d) = instants(one[0]), instants(other[0])
        if b < c or a > d:
            return -1 if b < c else 1
        return 0 if a == b == c == d else None
    parts = PARTS[coarser]
    a, b = one[0].timetuple()[:parts], other[0].timetuple()[:parts]
    if a != b:
        return -1 if a < b else 1
    return 0 if coarser <= Precision.DAY else None


def during(time: Time, start: Time, end: Time | None) -> bool | None:
    """Whether a time lies in a stay: the rule, in plain words."""
    begun, ended = order(time, start), -1 if end is None else order(time, end)
    if end is not None and ended == 0 and time[1] is Precision.DAY:
        ended = None if end[1] is Precision.INSTANT and end[0].time() == dt.time() else 0
    if (begun is not None and begun < 0) or (ended is not None and ended > 0):
        return False
    return None if begun is None or ended is None else True


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_times_compare_at_the_coarser_precision_or_not_at_all(seed: int) -> None:
    stream = np.random.default_rng(seed)
    one, other = drawn(stream), drawn(stream)
    found = table(one=one, other=other).select(spans.compare("one", "other")).to_series()
    assert found.to_list() == [order(*pair) for pair in zip(one, other, strict=True)]


def check_during(times: list[Time], starts: list[Time], ends: list[Time | None]) -> None:
    frame = table(time=times, start=starts, end=ends)
    found = frame.select(spans.within("time", "start", "end")).to_series().to_list()
    assert found == [during(*case) for case in zip(times, starts, ends, strict=True)]


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_whether_a_time_lies_in_a_stay_is_yes_no_or_unknown(seed: int) -> None:
    stream = np.random.default_rng(seed)
    check_during(drawn(stream), drawn(stream), [*drawn(stream)[1:], None])


def test_the_edges_of_a_stay() -> None:
    october, march = dt.datetime(2024, 10, 28), dt.datetime(2024, 3, 1)
    whole = [(october, Precision.DAY), (march, Precision.MONTH), (march, Precision.MONTH)]
    starts = [dt.datetime(2024, 10, 26), dt.datetime(2024, 2, 10), march]
    ends = [(october, Precision.INSTANT), *[(dt.datetime(2024, 4, 1), Precision.DAY)] * 2]
    frame = table(time=whole, start=[(time, Precision.DAY) for time in starts], end=ends)
    # A stay that ends as the day begins; the whole month in a stay; a stay that begins with it.
    found = frame.select(spans.within("time", "start", "end")).to_series()
    assert found.to_list() == [None, True, None]


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_an_age_changes_on_the_birthday(seed: int) -> None:
    stream = np.random.default_rng(seed)
    now = [time for time, _ in drawn(stream)]
    days = stream.integers(0, 100, ROWS) * 365 + stream.integers(0, 26, ROWS)
    births = [
        dt.datetime(time.year, time.month, time.day) - dt.timedelta(days=int(day))
        for time, day in zip(now, days, strict=True)
    ]
    found = table(
        birth=[(born, Precision.DAY) for born in births],
        start=[(time, Precision.INSTANT) for time in now],
    )
    years = [
        time.year - born.year - ((time.month, time.day) < (born.month, born.day))
        for born, time in zip(births, now, strict=True)
    ]
    assert found.select(spans.years_between("birth", "start")).to_series().to_list() == years


def test_a_birth_of_which_the_month_or_the_year_alone_is_known_is_taken_in_its_middle() -> None:
    for precision, days in ((Precision.YEAR, (14, 15)), (Precision.MONTH, (14, 15))):
        for day, years in zip(days, (23, 24), strict=True):
            found = table(
                birth=[(dt.datetime(2000, 7, 3), precision)],
                start=[(dt.datetime(2024, 7, day), Precision.INSTANT)],
            )
            assert found.select(spans.years_between("birth", "start")).item() == years


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2024-10-26 12:00", "2024-10-27 12:00", 25 / 24),  # the clock was put back
        ("2024-03-30 12:00", "2024-03-31 12:00", 23 / 24),
        ("2024-10-26 23:00", "2024-10-27", 1),
        ("2024-10-26", "2024-10-26", 0),
        ("2024-10-26", "2024-11", None),
    ],
)
def test_days_between_are_exact_or_whole_or_unknown(start: str, end: str, days: float) -> None:
    clock = clock_of("Europe/Berlin")
    columns = []
    for name, text in (("start", start), ("end", end)):
        written = read_times(pl.Series([text]))
        assert written is not None
        columns.append(spans_of(written, clock).struct().alias(name))
    assert pl.DataFrame(columns).select(spans.days_between("start", "end")).item() == days


def test_midnight_and_the_last_second_of_a_day_stand_for_the_day_of_an_outcome() -> None:
    day = dt.datetime(2024, 5, 2)
    walls = [day, day.replace(hour=23, minute=59, second=59), day.replace(hour=1)]
    frame = pl.DataFrame({"time": walls}).select(spans.instants(pl.col("time")).alias("time"))
    found = frame.select(spans.as_days("time")).select(
        spans.precision("time").alias("of"), spans.local("time").alias("local")
    )
    assert found["of"].to_list() == [Precision.DAY, Precision.DAY, Precision.INSTANT]
    assert found["local"].n_unique() == 2
