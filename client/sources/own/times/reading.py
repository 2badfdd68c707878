"""Reads columns of times: texts, dates, numbers, and dates beside times of day.

A cell says how exactly it is known: a date without a time of day is a day, ``2024-03`` a month. A
text may end in an offset (``+02:00``, ``Z``). Several formats may occur in one column; a cell that
fits two of them with different times is refused, since nobody can say which is meant.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import polars as pl

from consilium.client.sources.own.times.clock import Clock, floor, following
from consilium.client.sources.own.times.spans import (
    SPAN,
    US_PER_DAY,
    US_PER_HOUR,
    US_PER_SECOND,
    Precision,
)

NUMBERS = {"epoch": US_PER_SECOND, "epoch-ms": 1000, "excel": US_PER_DAY}  # unit in microseconds
EXCEL_ZERO = -25_569 * US_PER_DAY  # 1899-12-30, of which Excel's first of March 1900 is day 61
FIRST_US = -30_610_224_000_000_000  # the year 1000; an earlier one has two digits, read as four
_OFFSET = r"[0-9]:[0-9]{2}(?:[0-9:.]*)\s?(Z|z|[+-][0-9]{2}(?::?[0-9]{2})?)$"
_CLOCK = re.compile(r"[\s,T]*%-?[HIklMSTRXrcpPsf]")
_MIDNIGHT_ENDING = r"[ T]00:00(:00(\.0+)?)?$"
_COMMON = (
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%y %H:%M", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p",
    "%d-%m-%Y %H:%M", "%d-%b-%Y %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y%m%d%H%M%S",
    "%Y%m%d %H:%M", "%Y%m%d",
)  # fmt: skip  # to suggest one


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way in which a text states a time.

    Attributes:
        written: as for strptime, with ``%#z`` for an offset.
        precision: of a time so written.
        ending: added to text and format, where polars wants more than is written.
    """

    written: str
    precision: Precision = Precision.INSTANT
    ending: tuple[str, str] = ("", "")


def _iso() -> Iterator[Format]:
    for between in (" ", "T"):
        yield Format(written=f"%Y-%m-%d{between}%H:%M:%S%.f")
        yield Format(written=f"%Y-%m-%d{between}%H:%M")
    yield Format(written="%Y-%m-%d", precision=Precision.DAY)
    for between in (" ", "T"):
        hour, ending = f"%Y-%m-%d{between}%H", (":00", ":%M")
        yield Format(written=hour, precision=Precision.HOUR, ending=ending)
    yield Format(written="%Y-%m", precision=Precision.MONTH)
    yield Format(written="%Y", precision=Precision.YEAR, ending=("-01", "-%m"))


ISO = tuple(_iso())


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A column of times as written.

    Attributes:
        local: what the clock showed, microseconds since 1970, null where nothing could be read.
        offset: microseconds that this clock shows beyond UTC, null where the cell does not say;
            None if no cell says it.
        precision: of each cell; None if all are instants.
        unread: cells with a text that is no time.
        unclear: cells that fit several formats with different times.
        short_years: whether years have two digits.
    """

    local: pl.Series
    offset: pl.Series | None = None
    precision: pl.Series | None = None
    unread: pl.Series | None = None
    unclear: int = 0
    short_years: bool = False

    @property
    def instants(self) -> pl.Series:
        """Which cells are instants."""
        if self.precision is None:
            return self.local.is_not_null()
        return (self.precision == Precision.INSTANT) & self.local.is_not_null()

    @property
    def zones(self) -> tuple[int, int]:
        """How many instants say their offset, and how many do not."""
        which = self.instants if self.precision is not None else None
        cells = len(self.local) - self.local.null_count() if which is None else int(which.sum())
        if self.offset is None:
            return 0, cells
        said = self.offset.is_not_null() if which is None else which & self.offset.is_not_null()
        return int(said.sum()), cells - int(said.sum())

    def without(self, which: pl.Series) -> "Written":
        """Return the column with these cells empty."""
        return replace(self, local=self.local.set(which, None))


@dataclass(frozen=True, kw_only=True, eq=False)
class Spans:
    """A column of spans, as :mod:`consilium.client.sources.own.times.spans` has them.

    ``precision`` is None if all are instants; ``skipped`` counts times that no clock showed.
    """

    first: pl.Series
    until: pl.Series
    local: pl.Series
    precision: pl.Series | None = None
    skipped: int = 0

    @property
    def midnight(self) -> pl.Series:
        """Which cells are instants at exactly midnight, as placeholders are."""
        found = (self.local % US_PER_DAY == 0).fill_null(value=False)
        if self.precision is not None and found.any():
            found &= self.precision == Precision.INSTANT
        return found

    def struct(self) -> pl.Series:
        """Return the column of structs."""
        level = self.precision
        if level is None:
            level = pl.Series([0], dtype=pl.Int8).new_from_index(0, len(self.local))
        fields = {"first": self.first, "until": self.until, "local": self.local, "precision": level}
        known = pl.col("local").is_not_null()
        return pl.DataFrame(fields).select(
            pl.when(known).then(pl.struct(pl.all())).cast(SPAN).alias("span")
        )["span"]


def spans_of(written: Written, clock: Clock) -> Spans:
    """Return times as spans, by the hospital's clock.

    A written offset says the instant; the hospital's clock then says hour and day, or, if it is not
    known, the clock that wrote the offset. Without an offset the hospital's clock says both.
    """
    local, offset = written.local, written.offset
    first, until, skipped = local, local, 0
    if clock.zone is not None or clock.offset_us:
        first, until = clock.utc(local), clock.utc(local, later=True)
        skipped = clock.skips(local)
    if offset is not None:
        exact = local - offset
        said = exact.is_not_null()
        first, until = exact.fill_null(first), exact.fill_null(until)
        if clock.known:
            # A midnight in UTC is a date that some program gave a time of day: it keeps its date.
            dates = (offset == 0) & (local % US_PER_DAY == 0)
            shown = said & ~dates.fill_null(value=False)
            local = clock.local(exact).zip_with(shown, local)
    if written.precision is not None:
        for unit in (Precision.HOUR, Precision.DAY, Precision.MONTH, Precision.YEAR):
            at = (written.precision == unit).fill_null(value=False)
            if at.any():
                begin = floor(local.filter(at), unit)
                end = following(begin, unit)
                rows = at.arg_true()
                local = local.clone().scatter(rows, begin)
                first = first.clone().scatter(rows, clock.utc(begin))
                until = until.clone().scatter(rows, clock.utc(end))
    return Spans(
        first=first, until=until, local=local, precision=written.precision, skipped=skipped
    )  # fmt: skip  # one field after the other


def formats_of(given: str | Sequence[str] | None) -> tuple[Format, ...]:
    """Return the formats that the settings name, by default those of ISO 8601.

    A format with a date before a time of day also fits cells that have the date alone: a day.
    """
    if not given:
        return ISO
    found = [_format(one) for one in ((given,) if isinstance(given, str) else given)]
    dates = []
    for one in found:
        clock = _CLOCK.search(one.written)
        if clock and one.precision <= Precision.HOUR and "%" in one.written[: clock.start()]:
            date = _format(one.written[: clock.start()])
            dates += [date] if date.precision is Precision.DAY else []
    return tuple(dict.fromkeys([*found, *dates]))


def _format(written: str) -> Format:
    written = written.replace("%z", "%#z").replace("%:z", "%#z")
    if re.search(r"%-?[HIklTRXrcs]", written):
        if re.search(r"%-?[MTRXrcs]", written):
            return Format(written=written)
        return Format(written=written, precision=Precision.HOUR, ending=(" :00", " :%M"))
    if re.search(r"%-?[djeDFx]", written):
        return Format(written=written, precision=Precision.DAY)
    if re.search(r"%-?[mbBh]", written):
        return Format(written=written, precision=Precision.MONTH)
    return Format(written=written, precision=Precision.YEAR, ending=(" 01", " %m"))


def read_times(series: pl.Series, given: str | Sequence[str] | None = None) -> Written | None:
    """Read a column of texts, dates or numbers.

    Args:
        series: the column.
        given: the formats that the settings name: as for strptime, or ``epoch`` (seconds since
            1970), ``epoch-ms``, ``excel`` (days since 1899-12-30); None stands for ISO 8601.

    Returns:
        The times, or None if a column of this type holds no times.
    """
    kind = series.dtype
    if isinstance(kind, pl.Datetime):
        shown = series.dt.replace_time_zone(None).cast(pl.Datetime("us")).cast(pl.Int64)
        if kind.time_zone is None:
            return Written(local=shown)
        utc = series.dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC")).cast(pl.Int64)
        return Written(local=shown, offset=shown - utc)
    if kind == pl.Date:
        local = series.cast(pl.Datetime("us")).cast(pl.Int64)
        return Written(local=local, precision=_all(Precision.DAY, local))
    if kind == pl.Null:
        return Written(local=series.cast(pl.Int64))
    if given is not None and not isinstance(given, str) and len(given) == 1:
        given = given[0]
    if isinstance(given, str) and given in NUMBERS:
        return _numbers(series, given)
    if kind != pl.String:
        return None
    return _texts(series, formats_of(given), several=not isinstance(given, str) and bool(given))


def joined(date: pl.Series, clock: pl.Series) -> pl.Series:
    """Join a column of dates and one of times of day; without a time of day a day remains."""
    if date.dtype in (pl.Date, pl.Datetime):
        date = date.dt.strftime("%Y-%m-%d")
    if clock.dtype == pl.Time:
        clock = clock.dt.strftime("%H:%M:%S%.f")
    day = date.cast(pl.String).str.strip_chars().str.replace(_MIDNIGHT_ENDING, "")
    hour = clock.cast(pl.String).str.strip_chars()
    hour = pl.select(pl.when(hour.str.len_bytes() > 0).then(hour)).to_series()
    both = pl.concat_str(pl.lit(day), pl.lit(" "), pl.lit(hour))
    return pl.select(pl.coalesce(both, pl.lit(day))).to_series()


def days_for_missing(written: Written, dates: Written) -> Written:
    """Fill times that are missing with the days of another column."""
    lacking = written.local.is_null() & dates.local.is_not_null()
    if not lacking.any():
        return written
    none = _all(Precision.INSTANT, written.local)
    coarse = none if dates.precision is None else dates.precision
    level = (none if written.precision is None else written.precision).zip_with(
        ~lacking, coarse.clip(int(Precision.DAY), None)
    )
    return replace(written, local=written.local.fill_null(dates.local), precision=level)


def births(written: Written) -> Written:
    """Return births as the dates that are written; of years with two digits none is yet to come."""
    written = replace(written, offset=None)
    if not written.short_years:
        return written
    now = time.time_ns() // 1000
    earlier = written.local.cast(pl.Datetime("us")).dt.offset_by("-100y").cast(pl.Int64)
    future = (written.local > now).fill_null(value=False)
    return replace(written, local=earlier.zip_with(future, written.local))


def suggestion(series: pl.Series) -> str:
    """Return a format that fits most of a column's texts, for the sentence that refuses them."""
    if series.dtype.is_numeric() or series.dtype != pl.String:
        return "'epoch', 'epoch-ms' or 'excel'"
    text = series.drop_nulls().head(1000).str.strip_chars()
    if len(text) and text.str.contains(r"^[0-9]{5}(\.[0-9]+)?$").all():
        return "'excel'"
    if len(text) and text.str.contains(r"^-?[0-9]{9,13}$").all():
        return "'epoch-ms'" if text.str.len_bytes().max() == len("1700000000000") else "'epoch'"
    fits = [
        repr(one)
        for one in _COMMON
        if (found := _texts(text, (_format(one),), several=False)).unread is None
        or found.unread.sum() < 0.1 * len(text)
    ]
    return " or ".join(fits[:2]) if len(text) else ""


def _all(unit: Precision, like: pl.Series) -> pl.Series:
    return pl.Series([int(unit)], dtype=pl.Int8).new_from_index(0, len(like))


def _numbers(series: pl.Series, unit: str) -> Written:
    """Read numbers; Excel's fractions are rounded to the millisecond that they mean."""
    number = series.cast(pl.Float64, strict=False)
    number = number.set(~number.is_between(-1e14, 1e14).fill_null(value=False), None)
    unread = number.is_null() & series.is_not_null()
    if series.dtype == pl.String:
        unread &= series.str.strip_chars().str.len_bytes() > 0
    if unit != "excel":
        local = (number * NUMBERS[unit]).round().cast(pl.Int64, strict=False)
        return Written(local=local, offset=local * 0, unread=unread if unread.any() else None)
    number = number.set(number > 1e6, None)
    local = (number * (US_PER_DAY // 1000)).round().cast(pl.Int64, strict=False) * 1000 + EXCEL_ZERO
    whole = (number % 1 == 0).fill_null(value=False)
    level = whole.cast(pl.Int8) * int(Precision.DAY)
    return Written(local=local, precision=level, unread=unread if unread.any() else None)


def _texts(text: pl.Series, formats: tuple[Format, ...], *, several: bool) -> Written:
    """Read texts by the first format that fits each of them; empty ones are null."""
    forms = _likely_first(text, [*formats, *_with_offsets(formats)])
    found = _Found(text)
    found.read(forms)
    late = None
    if (rest := found.unread).any():  # blanks, 24:00, and what is no time
        cleaned, late = _with_24_hours(text.filter(rest).str.strip_chars())
        text = text.scatter(rest.arg_true(), cleaned.set(cleaned.str.len_bytes() == 0, None))
        late = rest.clone().scatter(rest.arg_true(), late)
        found.again(text, forms)
    local, offset = found.local, None
    if found.zoned is not None:
        offset = _offsets(text, found.zoned)
        local = (local + offset).fill_null(local)  # polars gives UTC where an offset is written
    unclear = _unclear(text, local, formats) if several else 0
    if late is not None and late.any():
        # The end of a day belongs to it, and is no midnight that stands for the next.
        local = (local + US_PER_DAY - 1).zip_with(late & local.is_not_null(), local)
    unread = found.unread
    return Written(
        local=local, offset=offset, precision=found.level, unread=unread if unread.any() else None,
        unclear=unclear, short_years=found.short_years,
    )  # fmt: skip  # one field after the other


def _likely_first(text: pl.Series, formats: list[Format]) -> list[Format]:
    """Return the formats, first those that fit the first texts."""
    some = text.drop_nulls().head(5).str.strip_chars()
    return sorted(formats, key=lambda form: _by(some, form).null_count())


class _Found:
    """What has been read of a column of texts so far.

    Attributes:
        local: the times read.
        level: the precision of each; None if all are instants.
        zoned: which of them have an offset; None if none has.
        short_years: whether years had two digits.
    """

    def __init__(self, text: pl.Series) -> None:
        self._text = text
        self.local = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(text))
        self.level: pl.Series | None = None
        self.zoned: pl.Series | None = None
        self.short_years = False

    @property
    def unread(self) -> pl.Series:
        """Which texts are not read yet."""
        return self.local.is_null() & self._text.is_not_null()

    def again(self, text: pl.Series, formats: Sequence[Format]) -> None:
        """Read on, now that texts which are not read yet were changed."""
        self._text = text
        self.read(formats)

    def read(self, formats: Sequence[Format]) -> None:
        """Read texts by the first format that fits each, in the order of the formats."""
        for form in formats:
            open_ = self.unread
            if not open_.any():
                return
            every = bool(open_.all())
            found = _by(self._text if every else self._text.filter(open_), form)
            if found.null_count() == len(found):
                continue
            self.local = found if every else self.local.clone().scatter(open_.arg_true(), found)
            self.short_years |= "%y" in form.written or "%D" in form.written
            if form.precision is not Precision.INSTANT:
                if self.level is None:
                    self.level = _all(Precision.INSTANT, self.local)
                self.level = self.level.set(open_ & self.local.is_not_null(), int(form.precision))
            if "%#z" in form.written:
                took = open_ & self.local.is_not_null()
                self.zoned = took if self.zoned is None else self.zoned | took


def _with_offsets(formats: tuple[Format, ...]) -> list[Format]:
    """Return the formats of a time of day followed by an offset."""
    return [
        replace(form, written=form.written + "%#z")
        for form in formats
        if form.precision <= Precision.HOUR and "%#z" not in form.written
    ]


def _with_24_hours(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Write 24:00 as 00:00; also return which texts had it, and mean the end of the day."""
    late = text.str.contains(r"[ T]24:00(:00(\.0+)?)?(Z|z|[+-][0-9:]+)?$").fill_null(value=False)
    changed = text.str.replace(r"([ T])24:00", "${1}00:00")
    return changed.zip_with(late, text), late


def _by(text: pl.Series, form: Format) -> pl.Series:
    """Parse texts by one format, null where it does not fit; UTC where it has an offset."""
    added, written = form.ending
    wanted = form.written
    if added:
        zone = "%#z" if wanted.endswith("%#z") else ""
        wanted = wanted.removesuffix(zone) + written + zone
        text = (
            text.str.replace(r"(\s?(?:Z|z|[+-][0-9]{2}(?::?[0-9]{2})?))$", f"{added}${{1}}")
            if zone
            else text + added
        )
    try:
        found = text.str.to_datetime(wanted, time_unit="us", strict=False)
    except pl.exceptions.PolarsError:
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, len(text))
    local = found.cast(pl.Int64)
    if (earliest := local.min()) is None or cast(int, earliest) >= FIRST_US:
        return local
    return local.set((local < FIRST_US).fill_null(value=False), None)


def _unclear(text: pl.Series, local: pl.Series, formats: tuple[Format, ...]) -> int:
    """Count texts that fit several formats and mean different times by them."""
    wrong = pl.Series([False]).new_from_index(0, len(text))
    for form in formats:
        found = _by(text, form)
        wrong |= (found != local).fill_null(value=False)
    return int(wrong.sum())


def _offsets(text: pl.Series, said: pl.Series) -> pl.Series:
    """Return the offsets at the ends of texts in microseconds, null where there is none."""
    ending = text.str.extract(_OFFSET, 1)
    table = {
        one: 0 if one in "Zz" else _offset(one) for one in ending.drop_nulls().unique().to_list()
    }
    offset = ending.replace_strict(table, default=None, return_dtype=pl.Int64)
    return offset.set(~said, None)


def _offset(ending: str) -> int:
    digits = ending[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:] or 0)
    return (-minutes if ending[0] == "-" else minutes) * (US_PER_HOUR // 60)
