"""What a cell says of a time, and what is refused."""

import datetime as dt

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.sources.own.times.clock import clock_of
from consilium.client.sources.own.times.reading import (
    Written,
    births,
    joined,
    read_times,
    spans_of,
    suggestion,
)
from consilium.client.sources.own.times.spans import Precision

DAY, MONTH, YEAR, HOUR, INSTANT = (
    Precision.DAY, Precision.MONTH, Precision.YEAR, Precision.HOUR, Precision.INSTANT
)  # fmt: skip


def read(*cells: object, given: str | tuple[str, ...] | None = None) -> Written:
    written = read_times(pl.Series(list(cells)), given)
    assert written is not None
    return written


def told(written: Written) -> list[tuple[str, int] | None]:
    """Each cell's local time and precision."""
    times = written.local.cast(pl.Datetime("us")).to_list()
    levels = [0] * len(times) if written.precision is None else written.precision.to_list()
    return [None if t is None else (f"{t}", level) for t, level in zip(times, levels, strict=True)]


@pytest.mark.parametrize(
    ("cell", "local", "precision"),
    [
        ("2024-03-29 08:30", "2024-03-29 08:30:00", INSTANT),
        ("2024-03-29T08:30:15.5", "2024-03-29 08:30:15.500000", INSTANT),
        (" 2024-03-29 08:30:15 ", "2024-03-29 08:30:15", INSTANT),
        ("2024-03-29", "2024-03-29 00:00:00", DAY),
        ("2024-03-29 08", "2024-03-29 08:00:00", HOUR),
        ("2024-03", "2024-03-01 00:00:00", MONTH),
        ("2024", "2024-01-01 00:00:00", YEAR),
        ("2024-03-29 24:00", "2024-03-29 23:59:59.999999", INSTANT),  # the end of its own day
        ("2016-12-31 23:59:60", "2017-01-01 00:00:00", INSTANT),  # a leap second
        ("2024-03-29T08:30:00Z", "2024-03-29 08:30:00", INSTANT),
        ("2024-03-29T08:30+05:30", "2024-03-29 08:30:00", INSTANT),
        ("2024-03-29 08:30:00-03", "2024-03-29 08:30:00", INSTANT),
    ],
)
def test_a_text_says_a_time_and_how_exactly_it_is_known(
    cell: str, local: str, precision: Precision
) -> None:
    assert told(read(cell, None, "")) == [(local, precision), None, None]


@pytest.mark.parametrize("cell", ["2024-13-01", "24-03-29", "yesterday", "12", "2024-03-29 25:00"])
def test_what_is_no_time_is_not_guessed(cell: str) -> None:
    written = read(cell, "2024-03-29")
    assert written.unread is not None
    assert written.unread.to_list() == [True, False]


def test_formats_zones_and_precisions_may_differ_from_row_to_row() -> None:
    written = read("2024-03-29T08:00:00+02:00", "2024-03-29 08:00", "2024-03-29", "2024-03", None)
    assert [level for _, level in filter(None, told(written))] == [INSTANT, INSTANT, DAY, MONTH]
    assert written.zones == (1, 1)
    found = spans_of(written, clock_of("Europe/Berlin"))
    assert ((found.first[1] - found.first[0]) / 3_600_000_000) == 1  # 08:00+01:00, 08:00+02:00
    hours = [(b - a) / 3_600_000_000 for a, b in zip(found.first, found.until, strict=True) if a]
    assert hours == [0, 0, 24, 31 * 24 - 1]  # the clock is put forward in March


@pytest.mark.parametrize(
    ("given", "cells", "times"),
    [
        (
            "%d.%m.%Y %H:%M",
            ("29.03.2024 08:30", "29.03.2024"),
            [("2024-03-29 08:30:00", 0), ("2024-03-29 00:00:00", 2)],
        ),
        (
            ("%d.%m.%Y %H:%M", "%Y-%m-%d %H:%M:%S"),
            ("29.03.2024 08:30", "2024-03-29 08:30:00", "2024-03-29"),
            [("2024-03-29 08:30:00", 0), ("2024-03-29 08:30:00", 0), ("2024-03-29 00:00:00", 2)],
        ),
        ("%m/%d/%Y %I:%M %p", ("03/29/2024 01:00 PM",), [("2024-03-29 13:00:00", 0)]),
        ("%m/%Y", ("03/2024",), [("2024-03-01 00:00:00", 3)]),
        ("%d.%m.%Y %H", ("29.03.2024 08",), [("2024-03-29 08:00:00", 1)]),
        ("epoch", ("1711701000",), [("2024-03-29 08:30:00", 0)]),
        ("epoch-ms", (1711701000000,), [("2024-03-29 08:30:00", 0)]),
        (
            "excel",
            (45380.5, 45380.0, 45380.354166666664),
            [("2024-03-29 12:00:00", 0), ("2024-03-29 00:00:00", 2), ("2024-03-29 08:30:00", 0)],
        ),
    ],
)
def test_a_stated_format_is_read(
    given: str | tuple[str, ...], cells: tuple[object, ...], times: list[tuple[str, int]]
) -> None:
    written = read(*cells, given=given)
    assert told(written) == times
    assert written.unclear == 0


def test_two_formats_that_disagree_about_a_cell_are_counted() -> None:
    written = read("01/02/2024", "13/02/2024", "03/03/2024", given=("%d/%m/%Y", "%m/%d/%Y"))
    assert written.unclear == 1


def test_years_of_two_digits_are_read_as_such_and_births_lie_in_the_past() -> None:
    assert read("29.03.24", given="%d.%m.%Y").unread is not None
    written = read("29.03.24", "29.03.45", given="%d.%m.%y")
    years = [time[:4] for time, _ in filter(None, told(births(written)))]
    assert years == ["2024", "1945"]
    zoned = births(read("1950-05-01T00:00:00Z"))
    assert told(zoned) == [("1950-05-01 00:00:00", 0)]
    assert zoned.offset is None


def test_dates_stand_beside_times_of_day() -> None:
    dates = pl.Series(["2024-03-29 00:00:00", "2024-03-30", "2024-03-31", None])
    clocks = pl.Series(["08:30", "09:15:30", None, "10:00"])
    expected = [("2024-03-29 08:30:00", 0), ("2024-03-30 09:15:30", 0), ("2024-03-31 00:00:00", 2)]
    assert told(read(*joined(dates, clocks))) == [*expected, None]
    typed = joined(
        pl.Series([dt.date(2024, 3, 29), dt.date(2024, 3, 30)]), pl.Series([dt.time(8, 30), None])
    )
    assert told(read(*typed)) == [("2024-03-29 08:30:00", 0), ("2024-03-30 00:00:00", 2)]


def test_typed_columns_keep_their_zone_and_their_precision() -> None:
    tokyo = pl.Series([dt.datetime(2024, 3, 29, 8)], dtype=pl.Datetime("ms")).dt
    written = read_times(tokyo.replace_time_zone("Asia/Tokyo"))
    assert written is not None
    assert told(written) == [("2024-03-29 08:00:00", 0)]
    assert written.offset is not None
    assert written.offset[0] == 9 * 3_600_000_000
    days = read_times(pl.Series([dt.date(2024, 3, 29), None]))
    assert days is not None
    assert told(days) == [("2024-03-29 00:00:00", 2), None]
    assert read_times(pl.Series([1.5])) is None


@pytest.mark.parametrize(
    ("cells", "likely"),
    [
        (["29.03.2024 08:00", "01.04.2024 09:00"], "%d.%m.%Y %H:%M"),
        (["03/29/2024 01:00 PM"], "%m/%d/%Y %I:%M %p"),
        (["1711706400"], "epoch"),
        (["1711706400000"], "epoch-ms"),
        (["45380.5"], "excel"),
        (["20240329"], "%Y%m%d"),
        ([], ""),
        (["somewhen"], ""),
    ],
)
def test_a_refusal_can_name_the_format(cells: list[str], likely: str) -> None:
    told = suggestion(pl.Series(cells, dtype=pl.String))
    assert (likely in told) if likely else (told == "")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("0123456789-:. TZ+é", max_size=25) | st.none(), max_size=12))
def test_any_texts_are_read_or_said_to_be_unread(cells: list[str | None]) -> None:
    written = read_times(pl.Series(cells, dtype=pl.String))
    assert written is not None
    for at, cell in enumerate(cells):
        empty = cell is None or not cell.strip()
        unread = written.unread is not None and written.unread[at]
        assert (written.local[at] is None) == (empty or unread)
    spans_of(written, clock_of("Europe/Berlin"))


@pytest.mark.parametrize("zone", ["+10:00", "-08:00", "Europe/Berlin"])
def test_a_midnight_in_utc_keeps_its_date_in_every_zone(zone: str) -> None:
    found = spans_of(read("2024-05-01T00:00:00Z", "2024-05-01T00:30:00Z"), clock_of(zone))
    assert found.midnight.to_list() == [True, False]
    assert found.local.cast(pl.Datetime("us"))[0] == dt.datetime(2024, 5, 1)
    assert found.first.to_list() == found.until.to_list()
