"""A look at one table: how it is written, and which columns hold numbers or times."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from consilium.client.sources.own.tables.table_forms import BROKEN
from consilium.shared.errors import DataError, SettingsError
from consilium.simulations.guesses.words import MISSING

ROWS = 200_000  # looked at; a guess needs no more, and a table may be large
SEPARATORS = (",", ";", "\t", "|")
ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")
ISO = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|[+-]\d{2}:?\d{2}))?)?$"
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y")
FORMATS = tuple(date + clock for date in _DATES for clock in _CLOCKS)
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
        separator: of a CSV; None for Parquet.
        decimal_comma: whether numbers have one.
        complete: whether all rows were looked at.
    """

    path: Path
    frame: pl.DataFrame
    numbers: dict[str, pl.Series]
    times: dict[str, pl.Series]
    formats: dict[str, tuple[str, ...]] = field(default_factory=dict)
    separator: str | None = None
    decimal_comma: bool = False
    complete: bool = True

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


def look_at(path: Path, separator: str | None = None, *, whole: bool = False) -> Look:
    """Look at a CSV or Parquet file.

    Args:
        path: the file.
        separator: of its columns, if the user says so.
        whole: look at all of its rows.

    Raises:
        DataError: it cannot be read as a table.
        SettingsError: it could be separated in two ways.
    """
    try:
        if path.suffix == ".parquet":
            return _parquet(path, None if whole else ROWS)
        head = _head(path)
        chosen = separator or _separator(path, head)
        frame = pl.read_csv(
            path,
            separator=chosen,
            infer_schema=False,
            n_rows=None if whole else ROWS,
            encoding="utf8",
        )
    except BROKEN as error:
        raise DataError(
            f"{path}: cannot be read as a table in UTF-8 text; save it as UTF-8 CSV or as Parquet"
        ) from error
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(
            f"{path}: cannot be read as UTF-8 text; check the file, or save it as UTF-8"
        ) from error
    frame = frame.select(_known(pl.col(name)) for name in frame.columns)
    comma = chosen != "," and _has_decimal_comma(frame)
    numbers = {
        name: parsed
        for name in frame.columns
        if (parsed := _numbers(frame[name], decimal_comma=comma)) is not None
    }
    times: dict[str, pl.Series] = {}
    formats: dict[str, tuple[str, ...]] = {}
    for name in frame.columns:
        if name not in numbers and (found := _times(frame[name])) is not None:
            times[name], formats[name] = found
    return Look(
        path=path,
        frame=frame,
        numbers=numbers,
        times=times,
        formats={name: found for name, found in formats.items() if found},
        separator=chosen,
        decimal_comma=comma,
        complete=whole or len(frame) < ROWS,
    )


def _parquet(path: Path, rows: int | None) -> Look:
    frame = pl.read_parquet(path, n_rows=rows)
    texts = [name for name, kind in frame.schema.items() if kind in (pl.Categorical, pl.Enum)]
    frame = frame.with_columns(pl.col(texts).cast(pl.String))
    numbers, times, formats = {}, {}, {}
    for name, kind in frame.schema.items():
        if kind.is_numeric() or kind in (pl.Boolean, pl.Duration):
            series = frame[name]
            hours = series.dt.total_microseconds() / 3.6e9 if kind == pl.Duration else series
            numbers[name] = hours.cast(pl.Float64)
        elif kind.is_temporal():
            times[name] = frame[name].cast(pl.Datetime("us"), strict=False)
        elif kind == pl.String and (found := _times(frame[name])) is not None:
            times[name], one = found
            formats.update({name: one} if one else {})
    return Look(path=path, frame=frame, numbers=numbers, times=times, formats=formats,
                complete=rows is None or len(frame) < rows)  # fmt: skip  # reads as one


def _head(path: Path) -> list[str]:
    """Return the first lines of a text file."""
    import gzip

    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = [line.rstrip("\r\n") for line, _ in zip(file, range(200), strict=False)]
    if len(lines) < 2:
        raise DataError(f"{path}: has {len(lines)} lines; a table has a header and rows below it")
    return lines


def _separator(path: Path, lines: Sequence[str]) -> str:
    """Return the character that cuts every line into as many columns, more than one."""
    fitting = []
    for separator in SEPARATORS:
        counts = {len(row) for row in csv.reader(lines, delimiter=separator)}
        if len(counts) == 1 and counts != {1}:
            fitting.append(separator)
    in_header = [one for one in fitting if one in lines[0]]
    fitting = in_header if len(in_header) == 1 else fitting
    if not fitting:
        raise DataError(
            f"{path}: its first lines are not cut into as many columns by any of comma, semicolon, "
            "tab or bar; it is no table, or name --separator"
        )
    if len(fitting) > 1:
        raise SettingsError(
            f"{path}: its columns could be separated by {' or '.join(map(repr, fitting))}; say "
            f"which, such as --separator '{fitting[0]}'"
        )
    return fitting[0]


def _known(column: pl.Expr) -> pl.Expr:
    """Return a column's texts, null for an empty cell and for words such as NA."""
    text = column.str.strip_chars()
    return pl.when(~text.str.to_lowercase().is_in(list(MISSING))).then(text)


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
    known = texts.drop_nulls()
    if not len(known):
        return None
    if known.str.contains(ISO).all():
        local = texts.str.replace("T", " ", literal=True).str.slice(0, 19)
        parsed = [local.str.to_datetime(one, time_unit="us", strict=False)
                  for one in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")]  # fmt: skip
        return pl.select(pl.coalesce(*parsed)).to_series(), ()
    if not known.head(1).str.contains(r"\d[./-]\d")[0]:
        return None
    fitting = {}
    for one in FORMATS:
        if re.search(r"[ T]\d", known[0]) is None and "%H" in one:
            continue
        parsed_one = texts.str.to_datetime(one, time_unit="us", strict=False, exact=True)
        if parsed_one.null_count() == texts.null_count():
            fitting[one] = parsed_one
    if not fitting:
        return None
    return next(iter(fitting.values())), tuple(fitting)
