"""Reads files of tables in pieces: only the columns asked for, in bounded memory.

A damaged or malicious file is refused with one sentence: a line longer than a piece, too many
columns, quotes that never close, text in another encoding, a truncated file, a compressed file that
unpacks without end.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from consilium.client.sources.own.patients.translation import limits
from consilium.client.sources.own.settings.tables import FileSettings, HoursUnit
from consilium.client.sources.own.tables import table_forms as forms
from consilium.client.sources.own.tables.table_forms import BROKEN, Bytes, Found
from consilium.client.sources.own.times.reading import Written, joined, read_times, suggestion
from consilium.shared.errors import DataError

ROW = "\x00row"
PIECE_BYTES = 32 << 20
PIECE_ROWS = 250_000
MOST_COLUMNS = 10_000
LONGEST_HEADER = 1 << 20
_HOURS_AND_MINUTES = r"^\s*([0-9]+):([0-5][0-9])(?::([0-5][0-9]))?\s*$"
_HOURS = {"s": (1, 3600), "min": (1, 60), "h": (1, 1), "d": (24, 1)}


class Piece:
    """Some rows of a file: the columns asked for, and the rows' numbers in the file.

    ``bad_lines`` is how many rows among them were left out because they cannot be read.
    """

    def __init__(
        self, frame: pl.DataFrame, path: Path | str, first_row: int, bad_lines: int = 0
    ) -> None:
        self.frame, self.path, self.first_row = frame, path, first_row
        self.bad_lines = bad_lines

    def where(self, row: int) -> str:
        """Name a row in the file, for errors; the first row below the header is row 1."""
        return f"{self.path} row {self.first_row + int(self.frame[ROW][row])}"


def read_pieces(settings: FileSettings, columns: Sequence[str]) -> Iterator[Piece]:
    """Yield the rows of the files, only these columns, texts and numbers as written.

    Raises:
        DataError: a column is missing, or a file cannot be read to its end.
        SettingsError: a file's form needs a library that is missing.
    """
    wanted = list(dict.fromkeys(columns))
    for found in forms.files_at(settings.file):
        try:
            yield from _reader(found)(found, settings, wanted)
        except OSError as error:  # without a number it is the library's, of what it read
            problem = f"cannot be read: {error.strerror}" if error.errno else _fault(error)
            raise DataError(f"{found.path} {problem}") from error
        except BROKEN as error:
            raise DataError(f"{found.path} {_fault(error)}") from error


def _reader(found: Found) -> Callable[[Found, FileSettings, list[str]], Iterator[Piece]]:
    if found.ends(forms.PARQUET_NAMES):
        return _parquet
    if found.ends(forms.ARROW_NAMES):
        return _arrow
    return _xlsx if found.ends(forms.XLSX_NAMES) else _csv


def _fault(error: BaseException) -> str:
    """Return what is wrong with a file, without quoting its content."""
    text = str(error).lower()
    if "utf-8" in text or "utf8" in text:
        return (
            "is not UTF-8 text; save it as UTF-8, or state its encoding beside file in site.toml, "
            'such as encoding = "cp1252"'
        )
    if "more fields" in text:
        return "has a row with more fields than its first line; check the separator and the quotes"
    return "is damaged or cut short; write it again"


def _csv(found: Found, settings: FileSettings, wanted: list[str]) -> Iterator[Piece]:
    row, path = 1, found.path
    with forms.opened_text(path, settings.encoding) as file:
        names = _header(file, path, settings.separator)
        inside = _inside(names, found, wanted)
        at = [names.index(name) for name in inside]
        for content in _whole_lines(file, path, columns=len(names), separator=settings.separator):
            frame, bad = _parsed(content, settings.separator, sorted(at), len(names))
            frame = frame.select(
                pl.col(str(index)).alias(name) for index, name in zip(at, inside, strict=True)
            )
            yield _piece(frame, found, wanted, row, bad)
            row += len(frame) + bad
        if row == 1:
            empty = pl.DataFrame(schema=dict.fromkeys(inside, pl.String))
            yield _piece(empty, found, wanted, row)


def _parsed(
    content: bytes, separator: str, at: list[int], columns: int
) -> tuple[pl.DataFrame, int]:
    """Return some columns of the rows, and how many rows are left out for too many fields."""

    def parse(part: bytes) -> pl.DataFrame:
        return pl.read_csv(
            io.BytesIO(part),
            has_header=False,
            separator=separator,
            columns=at,
            infer_schema=False,
            schema=dict.fromkeys(map(str, range(columns)), pl.String),
            raise_if_empty=False,
        )

    try:
        return parse(content), 0
    except BROKEN as error:
        if "more fields" not in str(error).lower():
            raise
        rows = list(
            csv.reader(io.StringIO(content.decode("utf-8"), newline=""), delimiter=separator)
        )
        good = [row for row in rows if len(row) <= columns]
        if len(rows) - len(good) > len(good):
            raise
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(good)
    return parse(text.getvalue().encode()), len(rows) - len(good)


def _piece(
    frame: pl.DataFrame, found: Found, wanted: list[str], row: int, bad_lines: int = 0
) -> Piece:
    """Return a piece with the columns of the file and of its path."""
    whole = forms.with_hive(frame.with_row_index(ROW), found.hive, [ROW, *wanted])
    return Piece(whole, found.path, row, bad_lines)


def _inside(names: Sequence[str], found: Found, wanted: list[str]) -> list[str]:
    """Return the wanted columns that the file holds; the others are in its path."""
    inside = [name for name in wanted if name in names or name not in found.hive]
    check_columns(names, inside, str(found.path))
    return inside


def _header(file: Bytes, path: Path, separator: str) -> list[str]:
    """Read the names in the first line; the next read begins at the second."""
    line = file.readline(LONGEST_HEADER + 1)
    if len(line) > LONGEST_HEADER:
        raise DataError(
            f"{path}: its first line is longer than {LONGEST_HEADER} bytes; a table of at most "
            f"{MOST_COLUMNS} columns is expected, in long layout if there are more variables"
        )
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise forms.not_utf8(path, line) from error
    if "\0" in text:
        raise forms.not_utf8(path, line)
    if "\r" in text:
        raise DataError(
            f"{path}: its lines end with carriage returns alone; save it with ends of lines of "
            "Windows or Unix"
        )
    return next(csv.reader([text], delimiter=separator), [])


def check_columns(names: Sequence[str], wanted: Sequence[str], path: str) -> None:
    """Refuse a table without these columns, or with two of one name.

    Raises:
        DataError: a column is missing, twice there, or there are too many.
    """
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{path} has {len(names)} columns, more than {MOST_COLUMNS}; write fewer")
    for name in wanted:
        if names.count(name) != 1:
            problem = "has no column" if name not in names else "has more than one column"
            raise DataError(
                f"{path} {problem} {name!r}; its {len(names)} columns are named in its first line, "
                "correct the name in site.toml"
            )


def _whole_lines(file: Bytes, path: Path, *, columns: int, separator: str) -> Iterator[bytes]:
    """Yield pieces of about ``PIECE_BYTES`` that end with a row, not at a line end in quotes."""
    rest = b""
    while True:
        content = file.read(PIECE_BYTES)
        if not content:
            break
        content = rest + content
        end = content.rfind(b"\n") + 1
        while end and content.count(b'"', 0, end) % 2:  # inside quotes
            end = content.rfind(b"\n", 0, end - 1) + 1
        if not end and len(content) > 2 * PIECE_BYTES:
            raise DataError(
                f"{path} has a row longer than {2 * PIECE_BYTES} bytes, or quotes that do not "
                "close; write one row a line"
            )
        rest = content[end:]
        if end:
            yield content[:end]
    if rest:
        if rest.count(b'"') % 2:
            raise DataError(
                f"{path} ends inside quotes; it was cut short, or a cell has a quote that is not "
                "doubled: write it again"
            )
        text = rest.rpartition(b"\n")[2].decode(errors="replace")
        last = next(csv.reader([text], delimiter=separator), [])
        if len(last) < columns:
            raise DataError(
                f"{path} ends in a row of {len(last)} of its {columns} fields; it was cut short, "
                "write it again"
            )
        yield rest


def _parquet(found: Found, _: FileSettings, wanted: list[str]) -> Iterator[Piece]:
    inside = _readable(_parquet_schema(found.path), found, wanted)
    rows = pl.scan_parquet(found.path, hive_partitioning=False).select(inside)
    yield from _frames(rows.collect_batches(chunk_size=PIECE_ROWS), found, wanted)


def _arrow(found: Found, _: FileSettings, wanted: list[str]) -> Iterator[Piece]:
    inside = _readable(forms.arrow_schema(found.path), found, wanted)
    yield from _frames(forms.arrow_frames(found.path, inside, PIECE_ROWS), found, wanted)


def _xlsx(found: Found, settings: FileSettings, wanted: list[str]) -> Iterator[Piece]:
    names, frame = forms.xlsx_frame(found.path, settings.sheet)
    inside = _inside(names, found, wanted)
    frame = frame.select(pl.col(str(names.index(name))).alias(name) for name in inside)
    # Excel keeps rows that were emptied; the first row below the names is row 1.
    yield from _frames(iter([frame]), found, wanted)


def _readable(schema: dict[str, pl.DataType], found: Found, wanted: list[str]) -> list[str]:
    """Return the wanted columns of the file; refuse those that hold no texts, numbers or times."""
    inside = _inside(tuple(schema), found, wanted)
    for name in inside:
        if schema[name].is_nested() or schema[name] in (pl.Binary, pl.Object):
            raise DataError(
                f"{found.path}: column {name!r} holds {schema[name].base_type()}, and must hold "
                "texts, numbers or times; write it as such"
            )
    return inside


def _frames(frames: Iterator[pl.DataFrame], found: Found, wanted: list[str]) -> Iterator[Piece]:
    row = 1
    for frame in frames:
        plain = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
        yield _piece(plain, found, wanted, row)
        row += len(frame)


def _parquet_schema(path: Path) -> dict[str, pl.DataType]:
    try:
        return dict(pl.read_parquet_schema(path))
    except BROKEN as error:
        raise DataError(f"{path} is damaged, cut short or no Parquet; write it again") from error


@dataclass(frozen=True, eq=False)
class Cells:
    """A column's cells, told apart.

    Attributes:
        number: float64, null if empty or no number; a limit such as ``>300`` is 300.
        word: text that is no number, null for all other cells.
        at_limit: how many numbers are limits.
    """

    number: pl.Series
    word: pl.Series
    at_limit: int = 0


def cells(piece: Piece, column: str, *, decimal_comma: bool = False) -> Cells:
    """Return a column's numbers and words."""
    series = piece.frame[column]
    none = pl.Series([None], dtype=pl.String).new_from_index(0, len(series))
    if series.dtype == pl.Duration:
        return Cells(series.dt.total_microseconds() / 3_600_000_000, none)
    if series.dtype not in (pl.String, pl.Categorical):
        return Cells(series.cast(pl.Float64, strict=False), none)
    text = series.cast(pl.String)
    if decimal_comma:
        text = text.str.replace(",", ".", literal=True)
    number = text.str.strip_chars().cast(pl.Float64, strict=False)
    other = (number.is_null() & text.is_not_null()).arg_true()
    if not len(other):
        return Cells(number, none)
    limit = limits(text.gather(other))
    bare = series.cast(pl.String).gather(other).str.strip_chars()
    is_number = bare.str.strip_chars_start("<>= ").cast(pl.Float64, strict=False).is_not_null()
    word = bare.set(is_number | limit.is_not_null() | (bare.str.len_bytes() == 0), None)
    return Cells(
        number.scatter(other, limit), none.scatter(other, word), len(limit) - limit.null_count()
    )


def identifiers(piece: Piece, column: str) -> pl.Series:
    """Return a column of identifiers: texts, or whole numbers, even if written 17.0."""
    series = piece.frame[column]
    if series.dtype.is_float() and (series.is_null() | (series % 1 == 0)).all():
        return series.cast(pl.Int64)
    return series


def hours(piece: Piece, column: str, unit: HoursUnit, *, decimal_comma: bool = False) -> pl.Series:
    """Return a column of numbers since the start of a stay in hours (float64), null if empty.

    A text such as ``26:30`` is 26.5 hours in any unit.
    """
    series = cells(piece, column, decimal_comma=decimal_comma).number.fill_nan(None)
    text = piece.frame[column]
    if text.dtype == pl.String and series.null_count() > text.null_count():
        parts = [text.str.extract(_HOURS_AND_MINUTES, n).cast(pl.Float64) for n in (1, 2, 3)]
        clock = parts[0] + parts[1] / 60 + parts[2].fill_null(0.0) / 3600
        times_, over = _HOURS[unit]
        series = series.fill_null(clock * over / times_)
    if unit == "h" or piece.frame[column].dtype == pl.Duration:
        return series
    times_, over = _HOURS[unit]
    return series * times_ / over


def times(
    piece: Piece,
    column: str | tuple[str, str],
    time_format: str | tuple[str, ...] | None,
) -> Written:
    """Return a column's times as written; empty cells are null.

    Args:
        piece: some rows of the table.
        column: the column, or that of dates and that of times of day.
        time_format: the formats that the settings name; None stands for ISO 8601.

    Raises:
        DataError: a cell is not a date and time.
    """
    if isinstance(column, tuple):
        series = joined(piece.frame[column[0]], piece.frame[column[1]])
        told = f"columns {column[0]!r} and {column[1]!r}"
    else:
        series, told = piece.frame[column], f"column {column!r}"
    written = read_times(series, time_format)
    if written is None:
        raise DataError(
            f"{piece.path}: {told} holds {series.dtype}, not dates and times; name it as hours in "
            "site.toml if it counts hours, or state time_format = 'epoch', 'epoch-ms' or 'excel'"
        )
    if written.unread is not None and written.unread.any():
        fault = written.unread.arg_true()[0]
        likely = suggestion(series)
        raise DataError(
            f"{piece.where(fault)}: {told} is not a date and time like the others; mend the row, "
            "or state time_format in site.toml" + (f", such as {likely}" if likely else "")
        )
    if written.unclear:
        raise DataError(
            f"{piece.path}: {told} has {written.unclear} cells that fit several of the formats in "
            "time_format and mean different times by them; keep the format that the file has"
        )
    return written
