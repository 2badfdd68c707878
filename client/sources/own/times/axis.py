"""One axis of time for all tables of a source: with zones, or without.

Without ``[data] time_zone``, times that state an offset and times that state none cannot be
brought together, and are refused. If all state one, days are those of the clock that wrote the
starts of stays; of several offsets, as of winter and summer, the smallest is taken, so that no day
ends too early.
"""

from typing import Literal, cast

import polars as pl

from consilium.client.sources.common.reasons import CLOCK_OF_STAYS, MIDNIGHTS
from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.times import spans
from consilium.client.sources.own.times.clock import Clock
from consilium.client.sources.own.times.midnights import stand_for_days
from consilium.client.sources.own.times.reading import Written
from consilium.client.sources.own.times.spans import US_PER_DAY, Precision
from consilium.shared.errors import DataError

NEVER_US = 29_348_006_400_000_000  # the year 2900: ends such as 9999-12-31 mean that there is none
MidnightSense = Literal["detect", "day", "instant"]  # of the settings


class Axis:
    """Decides, while a source's stays and events are read, whether their times have zones.

    Args:
        clock: the hospital's clock, as far as the settings state it.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._zoned: bool | None = None

    def check(self, written: Written, where: str) -> None:
        """Refuse times that have zones where earlier ones had none, or the other way round.

        Raises:
            DataError: they do not go together, and the hospital's zone is not stated.
        """
        with_zone, without = written.zones
        if self.clock.known or not with_zone + without:
            return
        if self._zoned is None and not (with_zone and without):
            self._zoned = bool(with_zone)
        if (with_zone and not self._zoned) or (without and self._zoned is not False):
            raise DataError(
                f"{where} and the start of stays do not both have a time zone ({with_zone} times "
                f'have one, {without} have none); state [data] time_zone = "Europe/Berlin" or '
                "the like in site.toml"
            )

    def unmatched(self, written: Written) -> pl.Series:
        """Return which instants do not go with those of earlier columns; see :meth:`check`."""
        none = pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(written.local))
        with_zone, without = written.zones
        if self.clock.known or not with_zone + without:
            return none
        if self._zoned is None:
            self._zoned = bool(with_zone)
        said = none if written.offset is None else written.offset.is_not_null()
        return written.instants & (~said if self._zoned else said)

    def stays_read(
        self,
        stays: pl.DataFrame,
        midnight: MidnightSense,
        tally: Tally,
        *,
        written: tuple[str, ...] = ("start", "end"),
    ) -> pl.DataFrame:
        """Take the midnights of stays for days, where they are; find the clock that wrote them.

        Args:
            stays: has ``start`` and ``end``, spans.
            midnight: what midnights stand for, as the hospital's settings say.
            tally: counts what was decided.
            written: which of the two are times that a clock showed; others were calculated, so that
                their midnights stand for nothing else.

        Returns:
            The stays.
        """
        if not self.clock.known and self._zoned:
            offsets = pl.concat(
                stays.select((spans.local(name) - spans.first(name)).alias("offset"))["offset"]
                for name in ("start", "end")
            ).drop_nulls()
            if len(offsets):
                self.clock = Clock(offset_us=int(cast(int, offsets.min())))
                tally.decide(CLOCK_OF_STAYS, offsets.n_unique())
        for name in written:
            stays = self._with_days(stays, name, midnight, tally)
        goes_on = (spans.local("end") >= NEVER_US).fill_null(value=False)
        return stays.with_columns(pl.when(~goes_on).then(pl.col("end")).alias("end"))

    def _with_days(
        self, stays: pl.DataFrame, name: str, midnight: MidnightSense, tally: Tally
    ) -> pl.DataFrame:
        """Take a column's midnights for days, if that is what they are."""
        exact = stays.filter(spans.precision(name) == Precision.INSTANT).select(
            spans.local(name).alias("local")
        )["local"]
        if midnight == "instant" or (midnight == "detect" and not stand_for_days(exact)):
            return stays
        clock = spans.local(name)
        at = (spans.precision(name) == Precision.INSTANT) & (clock % US_PER_DAY == 0)
        tally.decide(MIDNIGHTS, int(stays.select(at.fill_null(value=False).sum()).item()))
        next_day = self.clock.utc(stays.select(clock.alias("local"))["local"] + US_PER_DAY)
        begin = self.clock.utc(stays.select(clock.alias("local"))["local"])
        day = pl.struct(
            pl.lit(begin).alias("first"),
            pl.lit(next_day).alias("until"),
            clock.alias("local"),
            pl.lit(int(Precision.DAY), pl.Int8).alias("precision"),
        )
        return stays.with_columns(
            pl.when(at.fill_null(value=False)).then(day).otherwise(pl.col(name)).alias(name)
        )
