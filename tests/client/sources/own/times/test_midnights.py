"""When midnights stand for their days."""

import numpy as np
import polars as pl
import pytest

from consilium.client.sources.own.times.midnights import Midnights, stand_for_days

HOUR = 3_600_000_000
MINUTES = np.random.default_rng(2).integers(0, 24 * 60, 1000) * (HOUR // 60)


def clocks(*times: tuple[float, int]) -> pl.Series:
    """So many times at each hour of a day."""
    cells = [int(hour * HOUR) + day * 24 * HOUR for hour, many in times for day in range(many)]
    return pl.Series(cells, dtype=pl.Int64)


@pytest.mark.parametrize(
    ("local", "days"),
    [
        (clocks((0, 40)), True),
        (clocks((0, 4)), False),  # too few to say
        (clocks((0, 300), (8.25, 700)), True),
        (clocks((0, 10), (8.25, 990)), False),  # a hundredth
        (clocks(*((hour, 50) for hour in range(24))), False),  # charted by the hour
        (clocks(*((hour, 50) for hour in (0, 6, 12, 18))), False),  # rounds
        (clocks((0, 200), *((hour, 50) for hour in range(1, 24))), True),
        (pl.Series(MINUTES), False),
        (pl.Series([], dtype=pl.Int64), False),
    ],
)
def test_a_column_is_judged_by_the_share_of_its_midnights(local: pl.Series, days: bool) -> None:
    assert stand_for_days(local) is days


def test_a_variable_is_judged_by_itself_and_the_column_as_a_whole() -> None:
    counts = Midnights()
    few, many = clocks((0, 30)).to_numpy(), clocks((8.25, 5000)).to_numpy()
    kinds = np.zeros(30, dtype=np.int16)
    counts.see("a", kinds, few, kinds, 2)
    counts.see("a", np.ones(5000, dtype=np.int16), many[:0], kinds[:0], 2)
    assert counts.are_days("a").tolist() == [True, False]
    assert counts.number("a", counts.are_days("a")) == 30
    kinds = np.arange(30, dtype=np.int16) % 10
    counts.see("b", kinds, few, kinds, 10)  # three of each
    assert counts.are_days("b").all()
