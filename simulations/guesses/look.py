"""A look at one table: how it is written, and which columns hold numbers or times."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from consilium.simulations.guesses.databases import is_database, tables_of
from consilium.simulations.guesses.words import MISSING, suggests
from consilium.simulations.guesses.written import ROWS, Written, written_at

ISO = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|[+-]\d{2}:?\d{2}))?)?$"
_OFFSET = r":\d{2}(?:\.\d+)? ?([+-]\d{2}):?(\d{2})$"
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y")
_SHORT = ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y")
_SERIALS = (  # a way of counting, the numbers that it has from 1954 to 2090, microseconds of 1
    ("excel", 2e4, 7e4, 86_400e6, -25_569 * 86_400e6),
    ("epoch", 3e8, 3.8e9, 1e6, 0.0),
    ("epoch-ms", 3e11, 3.8e12, 1e3, 0.0),
)
_MOST = 0.98  # of the cells that hold something, for a column to count as numbers or times


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """A table, as far as it was looked at.

    Attributes:
        path: the file.
        frame: its first rows; texts are texts, "" and words such as NA are null.
        numbers: the columns of numbers, as such.
        times: the columns of dates and times, as such.
        formats: for a column of times that is not in ISO form, its format; several if it fits them.
        separator: of a CSV; None for other forms.
        encoding: of a CSV, None for UTF-8.
        sheet: of a workbook, None for its first.
        table: of a database.
        decimal_comma: whether numbers have one.
        complete: whether all rows were looked at.
    """

    path: Path
    frame: pl.DataFrame
    numbers: dict[str, pl.Series]
    times: dict[str, pl.Series]
    formats: dict[str, tuple[str, ...]] = field(default_factory=dict)
    separator: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    table: str | None = None
    decimal_comma: bool = False
    complete: bool = True

    @property
    def name(self) -> str:
        """The file's name, with its sheet, or the table's."""
        if self.table is not None:
            return self.table
        return self.path.name if self.sheet is None else f"{self.path.name}, sheet {self.sheet!r}"

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return self.frame.columns

    def texts(self, column: str) -> pl.Series:
        """Return a column as texts, null where nothing is known."""
        series = self.frame[column]
        if series.dtype.is_float() and (series.is_null() | (series % 1 == 0)).all():
            series = series.cast(pl.Int64)
        return series.cast(pl.String)

    def distinct(self, column: str) -> list[str]:
        """Return the different values of a column as texts, sorted."""
        return sorted(self.texts(column).drop_nulls().unique().to_list())


def look_at(path: Path, separator: str | None = None, *, whole: bool = False) -> list[Look]:
    """Look at a file of tables, or at a folder that is one table.

    Args:
        path: the file or folder; a workbook has a table a sheet, a database has its own.
        separator: of the columns of a CSV, if the user says so.
        whole: look at all of its rows.

    Raises:
        DataError: it cannot be read as a table.
        SettingsError: it could be separated in two ways.
    """
    if path.is_file() and is_database(path):
        return [_look(one, whole=whole) for one in tables_of(path, whole=whole)]
    return [_look(one, whole=whole) for one in written_at(path, separator, None if whole else ROWS)]


def _look(written: Written, *, whole: bool) -> Look:
    frame = written.frame
    kinds = [name for name, kind in frame.schema.items() if kind in (pl.Categorical, pl.Enum)]
    frame = frame.with_columns(pl.col(kinds).cast(pl.String))
    frame = frame.with_columns(_known(pl.col(name)) for name in _texts(frame))
    texts = _texts(frame)
    comma = written.separator != "," and _has_decimal_comma(frame.select(texts))
    numbers: dict[str, pl.Series] = {}
    times: dict[str, pl.Series] = {}
    formats: dict[str, tuple[str, ...]] = {}
    for name, kind in frame.schema.items():
        series = frame[name]
        if kind == pl.String:
            if (parsed := _numbers(series, decimal_comma=comma)) is not None:
                numbers[name] = parsed
            elif (found := _times(series)) is not None:
                times[name], formats[name] = found
        elif kind.is_numeric() or kind in (pl.Boolean, pl.Duration):
            hours = series.dt.total_microseconds() / 3.6e9 if kind == pl.Duration else series
            numbers[name] = hours.cast(pl.Float64)
        elif kind.is_temporal():
            times[name] = series.cast(pl.Datetime("us"), strict=False)
    for name in list(numbers):
        if (counted := _serials(name, numbers[name])) is not None:
            times[name], formats[name] = counted
            del numbers[name]
    return Look(
        path=written.path,
        frame=frame,
        numbers=numbers,
        times=times,
        formats={name: found for name, found in formats.items() if found},
        separator=written.separator,
        encoding=written.encoding,
        sheet=written.sheet,
        table=written.table,
        decimal_comma=comma,
        complete=whole or len(frame) < ROWS,
    )


def _texts(frame: pl.DataFrame) -> list[str]:
    return [name for name, kind in frame.schema.items() if kind == pl.String]


def _serials(name: str, numbers: pl.Series) -> tuple[pl.Series, tuple[str, ...]] | None:
    """Return the times that a column counts as Excel or Unix does, if its name is one of times."""
    if not any(suggests(name, role) for role in ("time", "start", "end", "birth")):
        return None
    known = numbers.drop_nulls()
    for written, low, high, us, since in _SERIALS:
        if len(known) and bool(known.is_between(low, high).all()):
            return (numbers * us + since).cast(pl.Int64).cast(pl.Datetime("us")), (written,)
    return None


def _known(column: pl.Expr) -> pl.Expr:
    """Return a column's texts, null for an empty cell and for words such as NA; Na is sodium."""
    text = column.str.strip_chars()
    known = ~text.str.to_lowercase().is_in(list(MISSING)) | (text == "Na")
    return pl.when(known).then(text)


def _has_decimal_comma(frame: pl.DataFrame) -> bool:
    """Return whether some column has numbers with a comma, and none with a point."""
    comma = point = 0
    for name in frame.columns:
        texts = frame[name].drop_nulls().head(2000)
        comma += int(texts.str.contains(r"^[<>]?-?\d+,\d+$").sum())
        point += int(texts.str.contains(r"^[<>]?-?\d+\.\d+$").sum())
    return comma > 0 and point == 0


def _numbers(texts: pl.Series, *, decimal_comma: bool) -> pl.Series | None:
    known = len(texts) - texts.null_count()
    plain = texts.str.replace(",", ".", literal=True) if decimal_comma else texts
    parsed = plain.str.strip_chars_start("<> =").cast(pl.Float64, strict=False)
    found = len(parsed) - parsed.null_count()
    return parsed if known and found >= _MOST * known else None


def _times(texts: pl.Series) -> tuple[pl.Series, tuple[str, ...]] | None:
    """Return a column's times and the formats that fit it; none if it is in ISO form."""
    texts = texts.str.replace(r"([ T])24:00", "${1}00:00")  # the end of a day, as it is read
    known = texts.drop_nulls()
    if not len(known):
        return None
    if known.str.contains(ISO).all():
        local = texts.str.replace("T", " ", literal=True).str.slice(0, 19)
        parsed = [local.str.to_datetime(one, time_unit="us", strict=False)
                  for one in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")]  # fmt: skip
        minutes = [texts.str.extract(_OFFSET, n).str.to_integer(strict=False) for n in (1, 2)]
        sign = texts.str.contains(r":\d{2}(\.\d+)? ?-\d{2}:?\d{2}$").fill_null(value=False)
        ahead = (60 * minutes[0].abs() + minutes[1]).fill_null(0)
        ahead = pl.select(pl.when(sign).then(-ahead).otherwise(ahead)).to_series()
        return pl.select(pl.coalesce(*parsed) - pl.duration(minutes=pl.lit(ahead))).to_series(), ()
    if not known.head(1).str.contains(r"\d[./-]\d")[0]:
        return None
    fitting = {}
    dates = _DATES if re.search(r"\d{4}", known[0]) else _SHORT
    for one in (date + clock for date in dates for clock in _CLOCKS):
        if re.search(r"[ T]\d", known[0]) is None and "%H" in one:
            continue
        parsed_one = texts.str.to_datetime(one, time_unit="us", strict=False, exact=True)
        if parsed_one.null_count() == texts.null_count():
            fitting[one] = parsed_one
    if not fitting:
        return None
    return next(iter(fitting.values())), tuple(fitting)
