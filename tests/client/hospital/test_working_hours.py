"""Hours are the hospital's own: over midnight, by weekday, first moment in, last moment out."""

from datetime import datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.hospital.working_hours import DAYS, WorkingHours

MONDAY = datetime(2030, 1, 7)
TIMES = st.times().map(lambda moment: moment.replace(second=0, microsecond=0))


def hours(start: str, end: str, *days: str) -> WorkingHours:
    return WorkingHours(
        days=frozenset(days or DAYS), start=time.fromisoformat(start), end=time.fromisoformat(end)
    )


@pytest.mark.parametrize(
    ("span", "moment", "allowed"),
    [
        (hours("08:00", "17:00"), "2030-01-07T08:00", True),
        (hours("08:00", "17:00"), "2030-01-07T16:59:59", True),
        (hours("08:00", "17:00"), "2030-01-07T17:00", False),
        (hours("08:00", "17:00"), "2030-01-07T07:59:59", False),
        (hours("20:00", "06:00"), "2030-01-07T23:00", True),
        (hours("20:00", "06:00"), "2030-01-07T05:59", True),
        (hours("20:00", "06:00"), "2030-01-07T06:00", False),
        (hours("20:00", "06:00"), "2030-01-07T12:00", False),
        (hours("20:00", "06:00", "sun"), "2030-01-07T03:00", True),  # Sunday's night
        (hours("20:00", "06:00", "mon"), "2030-01-07T03:00", False),  # still Sunday's night
        (hours("20:00", "06:00", "mon"), "2030-01-08T03:00", True),
        (hours("08:00", "17:00", "sat", "sun"), "2030-01-07T12:00", False),
        (hours("00:00", "00:00", "mon"), "2030-01-07T13:00", True),
        (hours("00:00", "00:00", "mon"), "2030-01-08T00:00", False),
    ],
)
def test_a_moment_is_inside_or_outside(span, moment, allowed):
    assert span.allow(datetime.fromisoformat(moment)) is allowed


@given(TIMES, TIMES, st.sets(st.sampled_from(DAYS), min_size=1))
def test_each_span_lasts_from_start_to_end_on_its_days_and_no_longer(start, end, days):
    span = WorkingHours(days=frozenset(days), start=start, end=end)
    length = (datetime.combine(MONDAY, end) - datetime.combine(MONDAY, start)) % timedelta(days=1)
    length = length or timedelta(days=1)
    quarter = timedelta(minutes=15)
    inside = sum(span.allow(MONDAY + number * quarter) for number in range(7 * 96))
    assert abs(inside - len(days) * (length / quarter)) <= len(days)


def test_hours_say_themselves():
    assert str(hours("20:00", "06:00", "sun", "mon")) == "20:00 to 06:00 (mon, sun)"
