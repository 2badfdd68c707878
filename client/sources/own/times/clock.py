"""The hospital's clock: from what its wall clock shows to instants, and back.

Where clocks are put forward, some times are never shown; a record that has one was written by a
clock that was not put forward, and is read so. Where clocks are put back, an hour is shown twice;
such a time is a span of two instants, the earlier and the later. Rules of zones come with polars,
so they do not depend on the machine.
"""

import re
from dataclasses import dataclass

import polars as pl

from consilium.client.sources.own.times.spans import US_PER_HOUR, Precision
from consilium.shared.errors import SettingsError

_FIXED = re.compile(r"([+-])([01][0-9]):?([0-5][0-9])")
_GAPS_H = (3, 27)  # longer than any time that a clock skipped: an hour, and a whole day of Samoa


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A clock in one zone.

    Attributes:
        zone: a name of the IANA database, or None for a fixed offset.
        offset_us: without a zone, what the clock shows beyond UTC; 0 if nothing is known of it.
        known: whether the hospital stated it; if not, times with and without a zone do not mix.
    """

    zone: str | None = None
    offset_us: int = 0
    known: bool = False

    def local(self, utc: pl.Series) -> pl.Series:
        """Return what the clock shows at instants; both in microseconds since 1970."""
        if self.zone is None:
            return utc + self.offset_us if self.offset_us else utc
        shown = utc.cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(self.zone)
        return shown.dt.replace_time_zone(None).cast(pl.Int64)

    def utc(self, local: pl.Series, *, later: bool = False) -> pl.Series:
        """Return the instants at which the clock shows these times.

        Args:
            local: microseconds since 1970 by the clock.
            later: of two instants at which the clock shows a time, take the later.
        """
        if self.zone is None:
            return local - self.offset_us if self.offset_us else local
        found = self._shown(local, later=later)
        for hours in _GAPS_H:
            if found.null_count() == local.null_count():
                break
            earlier = local - hours * US_PER_HOUR  # by the offset before the clock was put forward
            found = found.fill_null(self._shown(earlier, later=True) + hours * US_PER_HOUR)
        return found

    def skips(self, local: pl.Series) -> int:
        """Return how many times the clock never showed."""
        if self.zone is None:
            return 0
        return self._shown(local, later=False).null_count() - local.null_count()

    def _shown(self, local: pl.Series, *, later: bool) -> pl.Series:
        there = local.cast(pl.Datetime("us")).dt.replace_time_zone(
            self.zone, ambiguous="latest" if later else "earliest", non_existent="null"
        )
        return there.cast(pl.Int64)


def clock_of(time_zone: str | None) -> Clock:
    """Return the clock that ``[data] time_zone`` names, such as ``Europe/Berlin`` or ``+10:00``.

    Raises:
        SettingsError: there is no such zone.
    """
    if time_zone is None:
        return Clock()
    if fixed := _FIXED.fullmatch(time_zone):
        sign, hours, minutes = fixed.groups()
        offset = (int(hours) * 60 + int(minutes)) * US_PER_HOUR // 60
        return Clock(offset_us=-offset if sign == "-" else offset, known=True)
    clock = Clock(zone=time_zone, known=True)
    try:
        clock.local(pl.Series([0], dtype=pl.Int64))
    except pl.exceptions.PolarsError as error:
        raise SettingsError(
            f"[data] time_zone = {time_zone!r} is no time zone; write a name such as "
            "'Europe/Berlin', or an offset such as '+10:00'"
        ) from error
    return clock


def floor(local: pl.Series, unit: Precision) -> pl.Series:
    """Return the begin of the hour, day, month or year of each local time."""
    every = {Precision.HOUR: "1h", Precision.DAY: "1d", Precision.MONTH: "1mo"}.get(unit, "1y")
    return local.cast(pl.Datetime("us")).dt.truncate(every).cast(pl.Int64)


def following(local: pl.Series, unit: Precision) -> pl.Series:
    """Return the begin of the hour, day, month or year after the one that begins there."""
    step = {Precision.HOUR: "1h", Precision.DAY: "1d", Precision.MONTH: "1mo"}.get(unit, "1y")
    return local.cast(pl.Datetime("us")).dt.offset_by(step).cast(pl.Int64)
