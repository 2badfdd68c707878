"""Placeholders: midnights that only say that the hour is not known.

Databases that want a time of day get 00:00 where only the day is known. The rule: among the times
of one variable in one column (and among those of the whole column), those at exactly 00:00:00 stand
for their days if

- at least ``FEWEST`` of them do,
- they are at least ``LEAST_SHARE`` of the times: a clock with minutes gives 1 in 1440, and
- they are more than ``BEYOND`` times as many as those at any other full hour, so that rounds made
  every few hours, the one at midnight included, stay what they are.
"""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from consilium.client.sources.own.times.spans import US_PER_DAY, US_PER_HOUR

FEWEST = 5
LEAST_SHARE = 0.02
BEYOND = 2
_OTHER = 24  # the place of the number of all times, after those of the full hours


class Midnights:
    """Counts the full hours of columns of times while they are read, and then judges them."""

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = {}

    def see(
        self,
        column: str,
        kind_E: NDArray[Any],
        full_E: NDArray[Any],
        full_kind_E: NDArray[Any],
        kinds: int,
    ) -> None:
        """Count some instants of a column.

        Args:
            column: names the column.
            kind_E: the variable of each, from 0.
            full_E: int64, those at a full hour, microseconds since 1970 by the hospital's clock.
            full_kind_E: the variable of each of these.
            kinds: the number of variables.
        """
        found = np.zeros((kinds, _OTHER + 1), dtype=np.int64)
        found[:, _OTHER] = np.bincount(kind_E, minlength=kinds)
        key_E = full_kind_E.astype(np.int64) * _OTHER + full_E % US_PER_DAY // US_PER_HOUR
        hours = np.bincount(key_E, minlength=kinds * _OTHER)
        found[:, :_OTHER] = hours.reshape(kinds, _OTHER)
        self._counts[column] = self._counts.get(column, 0) + found

    def are_days(self, column: str) -> NDArray[np.bool_]:
        """Return for each variable whether its midnights in the column stand for days."""
        counts = self._counts[column]
        verdict: NDArray[np.bool_] = _judge(counts) | _judge(counts.sum(axis=0, keepdims=True))
        return verdict

    def number(self, column: str, are_days: NDArray[np.bool_]) -> int:
        """Return how many midnights of a column are those of the given variables."""
        return int(self._counts[column][are_days, 0].sum())


def stand_for_days(local: pl.Series) -> bool:
    """Return whether the midnights of one small column, such as the starts of stays, are days."""
    counts = Midnights()
    times = local.drop_nulls().to_numpy()
    full_E = times[at_multiples(times, US_PER_HOUR)]
    counts.see("", np.zeros(len(times), dtype=np.int64), full_E, np.zeros_like(full_E), 1)
    return bool(counts.are_days("")[0])


def at_multiples(number_E: NDArray[np.int64], of: int) -> NDArray[np.int64]:
    """Return the indices of the numbers that are multiples of one."""
    multiple = pl.Series(number_E) % of == 0  # polars divides by a constant faster than numpy
    return multiple.arg_true().to_numpy().astype(np.int64)


def _judge(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    midnight, other, all_ = counts[:, 0], counts[:, 1:_OTHER].max(axis=1), counts[:, _OTHER]
    found: NDArray[np.bool_] = (
        (midnight >= FEWEST) & (midnight >= LEAST_SHARE * all_) & (midnight > BEYOND * other)
    )
    return found
