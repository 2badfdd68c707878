"""How spans compare, against slow rules written in plain Python."""

import datetime as dt
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consilium.client.sources.times import spans
from consilium.client.sources.times.clock import clock_of
from consilium.client.sources.times.reading import read_times, spans_of
from consilium.client.sources.times.spans import Precision

BERLIN = ZoneInfo("Europe/Berlin")
# A few days around the end of a year and of summer time, so that equal ones are common.
WALL = st.builds(
    lambda begin, quarter: begin + dt.timedelta(minutes=15 * quarter),
    st.sampled_from([dt.datetime(2023, 12, 30), dt.datetime(2024, 10, 26)]),
    st.integers(0, 4 * 24 * 3),
)
TEXT = {
    Precision.INSTANT: "%Y-%m-%d %H:%M",
    Precision.HOUR: "%Y-%m-%d %H",
    Precision.DAY: "%Y-%m-%d",
    Precision.MONTH: "%Y-%m",
    Precision.YEAR: "%Y",
}
PARTS = {Precision.HOUR: 4, Precision.DAY: 3, Precision.MONTH: 2, Precision.YEAR: 1}
TIME = st.tuples(WALL, st.sampled_from(Precision))
Time = tuple[dt.datetime, Precision]


def table(**times: Time | None) -> pl.DataFrame:
    """One row of spans, read from texts as a table would have them."""
    clock = clock_of("Europe/Berlin")
    columns = []
    for name, time in times.items():
        text = None if time is None else time[0].strftime(TEXT[time[1]])
        written = read_times(pl.Series([text], dtype=pl.String))
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


@settings(max_examples=300, deadline=None)
@given(TIME, TIME)
def test_times_compare_at_the_coarser_precision_or_not_at_all(one: Time, other: Time) -> None:
    found = table(one=one, other=other).select(spans.compare("one", "other")).item()
    assert found == order(one, other)


@settings(max_examples=300, deadline=None)
@given(TIME, TIME, st.none() | TIME)
@example((dt.datetime(2024, 10, 28), Precision.DAY), (dt.datetime(2024, 10, 26), Precision.DAY),
         (dt.datetime(2024, 10, 28), Precision.INSTANT))  # fmt: skip  # ends as the day begins
@example((dt.datetime(2024, 3, 1), Precision.MONTH), (dt.datetime(2024, 2, 10), Precision.DAY),
         (dt.datetime(2024, 4, 1), Precision.DAY))  # fmt: skip  # the whole month in the stay
def test_whether_a_time_lies_in_a_stay_is_yes_no_or_unknown(
    time: Time, start: Time, end: Time | None
) -> None:
    begun, ended = order(time, start), -1 if end is None else order(time, end)
    if end is not None and ended == 0 and time[1] is Precision.DAY:
        ended = None if end[1] is Precision.INSTANT and end[0].time() == dt.time() else 0
    expected: bool | None = None if begun is None or ended is None else True
    if (begun is not None and begun < 0) or (ended is not None and ended > 0):
        expected = False
    frame = table(time=time, start=start, end=end)
    assert frame.select(spans.within("time", "start", "end")).item() is expected


@settings(max_examples=200, deadline=None)
@given(st.dates(dt.date(1900, 1, 1), dt.date(2024, 12, 30)), WALL)
@example(dt.date(2001, 2, 28), dt.datetime(2024, 2, 28, 0, 15))  # the birthday itself
@example(dt.date(2004, 2, 29), dt.datetime(2023, 12, 31, 0, 0))
def test_an_age_changes_on_the_birthday(born: dt.date, now: dt.datetime) -> None:
    birth = dt.datetime.combine(born, dt.time())
    found = table(birth=(birth, Precision.DAY), start=(now, Precision.INSTANT))
    years = now.year - born.year - ((now.month, now.day) < (born.month, born.day))
    assert found.select(spans.years_between("birth", "start")).item() == years


def test_a_birth_of_which_the_month_or_the_year_alone_is_known_is_taken_in_its_middle() -> None:
    for precision, days in ((Precision.YEAR, (14, 15)), (Precision.MONTH, (14, 15))):
        for day, years in zip(days, (23, 24), strict=True):
            found = table(
                birth=(dt.datetime(2000, 7, 3), precision),
                start=(dt.datetime(2024, 7, day), Precision.INSTANT),
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
    walls = [
        dt.datetime(2024, 5, 2),
        dt.datetime(2024, 5, 2, 23, 59, 59),
        dt.datetime(2024, 5, 2, 1),
    ]
    frame = pl.DataFrame({"time": walls}).select(spans.instants(pl.col("time")).alias("time"))
    found = frame.select(spans.as_days("time")).select(
        spans.precision("time").alias("of"), spans.local("time").alias("local")
    )
    assert found["of"].to_list() == [Precision.DAY, Precision.DAY, Precision.INSTANT]
    assert found["local"].n_unique() == 2
