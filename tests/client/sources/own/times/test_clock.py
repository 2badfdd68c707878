"""The hospital's clock, against the standard library's zones."""

import datetime as dt
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consilium.client.sources.own.times.clock import clock_of, floor, following
from consilium.client.sources.own.times.spans import Precision
from consilium.shared.errors import SettingsError

EPOCH = dt.datetime(1970, 1, 1)
US = dt.timedelta(microseconds=1)
# An hour forward at two or three; half an hour; at midnight; none; a day with two midnights.
ZONES = (
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Tokyo",
    "America/Havana", "Pacific/Apia", "Asia/Kathmandu", "UTC",
)  # fmt: skip
WALL = st.builds(
    lambda day, quarter: dt.datetime(2005, 1, 1) + dt.timedelta(days=day, minutes=15 * quarter),
    st.integers(0, 20 * 365),
    st.integers(0, 95),
)


def us(wall: dt.datetime) -> int:
    return (wall - EPOCH) // US


def series(*walls: dt.datetime) -> pl.Series:
    return pl.Series([us(wall) for wall in walls], dtype=pl.Int64)


def instants(wall: dt.datetime, zone: ZoneInfo) -> list[int]:
    """Both instants at which a clock shows a time, by the standard library."""
    folds = [wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1)]
    return [us(one.astimezone(dt.UTC).replace(tzinfo=None)) for one in folds]


@settings(max_examples=100, deadline=None)
@given(WALL, st.sampled_from(ZONES))
@example(dt.datetime(2024, 3, 31, 2, 30), "Europe/Berlin")  # skipped
@example(dt.datetime(2024, 10, 27, 2, 30), "Europe/Berlin")  # shown twice
@example(dt.datetime(2018, 11, 4, 0, 15), "America/Sao_Paulo")  # a day without a midnight
@example(dt.datetime(2011, 12, 30, 12, 0), "Pacific/Apia")  # a day that was left out
@example(dt.datetime(2024, 11, 3, 0, 30), "America/Havana")  # midnight twice
def test_a_wall_clock_says_the_instants_that_the_standard_library_says(
    wall: dt.datetime, name: str
) -> None:
    clock, (before, after) = clock_of(name), instants(wall, ZoneInfo(name))
    earlier, later = clock.utc(series(wall))[0], clock.utc(series(wall), later=True)[0]
    # Of a skipped time the library's first reading is by the offset before, and so is ours.
    skipped = before > after
    assert (earlier, later) == ((before, before) if skipped else (before, after))
    assert clock.skips(series(wall)) == skipped
    if not skipped:
        assert clock.local(pl.Series([earlier, later], dtype=pl.Int64)).to_list() == [us(wall)] * 2


@settings(max_examples=15, deadline=None)
@given(WALL, st.sampled_from(ZONES))
def test_a_day_holds_all_instants_at_which_the_clock_shows_its_date_and_no_other(
    wall: dt.datetime, name: str
) -> None:
    clock, zone = clock_of(name), ZoneInfo(name)
    begin = floor(series(wall), Precision.DAY)
    first, until = clock.utc(begin)[0], clock.utc(following(begin, Precision.DAY))[0]
    middle = dt.datetime(wall.year, wall.month, wall.day, 12, tzinfo=zone).astimezone(dt.UTC)
    for quarter in range(-4 * 40, 4 * 40):
        instant = middle + dt.timedelta(minutes=15 * quarter)
        its_date = instant.astimezone(zone).date() == wall.date()
        assert (first <= us(instant.replace(tzinfo=None)) < until) == its_date


def test_a_fixed_offset_is_a_zone_and_an_unknown_name_is_refused() -> None:
    wall = dt.datetime(2024, 3, 31, 2, 30)
    assert clock_of("+05:30").utc(series(wall))[0] == us(wall - dt.timedelta(hours=5, minutes=30))
    assert clock_of("-0330").utc(series(wall))[0] == us(wall + dt.timedelta(hours=3, minutes=30))
    assert clock_of(None).utc(series(wall))[0] == us(wall)
    for name in ("Europe/Nowhere", "CET+1", "+25:00", "Berlin"):
        with pytest.raises(SettingsError, match=r"time_zone = .* is no time zone; write a name"):
            clock_of(name)
