"""Reads CSV and Parquet files in pieces: only the columns asked for, in bounded memory.

A damaged or malicious file is refused with one sentence: a line longer than a piece, too many
columns, quotes that never close, text in another encoding, a truncated file, a compressed file that
unpacks without end.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import polars as pl

from consilium.client.sources.own.settings import FileSettings
from consilium.client.sources.own.translation import limits
from consilium.shared.errors import DataError

BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
ROW = "\x00row"
PIECE_BYTES = 32 << 20
PIECE_ROWS = 250_000
MOST_COLUMNS = 10_000
LONGEST_HEADER = 1 << 20
_CSV_NAMES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
)
_ZONED_FORMATS = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z")
_OFFSET_ENDING = r"(Z|[+-][0-9]{2}:?[0-9]{2})$"


class Piece:
    """Some rows of a file: the columns asked for, and the rows' numbers in the file.

    ``bad_lines`` is how many rows among them were left out because they cannot be read.
    """

    def __init__(self, frame: pl.DataFrame, path: Path, first_row: int, bad_lines: int = 0) -> None:
        self.frame, self.path, self.first_row = frame, path, first_row
        self.bad_lines = bad_lines

    def where(self, row: int) -> str:
        """Name a row in the file, for errors; the first row below the header is row 1."""
        return f"{self.path} row {self.first_row + int(self.frame[ROW][row])}"


def files_of(settings: FileSettings) -> list[Path]:
    """Return the files that the settings name, in order.

    Raises:
        DataError: there are none.
    """
    path = settings.file
    if any(letter in path.name for letter in "*?["):
        found = sorted(path.parent.glob(path.name))
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise DataError(f"{path} does not exist or is no file; check [data] file in site.toml")
    for one in found:
        if not one.name.endswith((*_CSV_NAMES, ".parquet")):
            raise DataError(
                f"{one} is neither CSV ({', '.join(_CSV_NAMES)}) nor .parquet; convert it"
            )
    return found


def read_pieces(settings: FileSettings, columns: Sequence[str]) -> Iterator[Piece]:
    """Yield the rows of the files, only these columns, texts and numbers as written.

    Raises:
        DataError: a column is missing, or a file cannot be read to its end.
    """
    wanted = list(dict.fromkeys(columns))
    for path in files_of(settings):
        read = _parquet if path.suffix == ".parquet" else _csv
        try:
            yield from read(path, settings, wanted)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except BROKEN as error:
            raise DataError(f"{path} {_fault(error)}") from error


def _fault(error: BaseException) -> str:
    """Return what is wrong with a file, without quoting its content."""
    text = str(error).lower()
    if "utf-8" in text or "utf8" in text:
        return "is not UTF-8 text; save it as UTF-8"
    if "more fields" in text:
        return "has a row with more fields than its first line; check the separator and the quotes"
    return "is damaged or cut short; write it again"


def _csv(path: Path, settings: FileSettings, wanted: list[str]) -> Iterator[Piece]:
    row = 1
    with _open(path) as file:
        names = _header(file, path, settings.separator)
        _check_columns(names, wanted, path)
        at = [names.index(name) for name in wanted]
        for content in _whole_lines(file, path, columns=len(names), separator=settings.separator):
            frame, bad = _parsed(content, settings.separator, sorted(at), len(names))
            frame = frame.select(
                pl.col(str(index)).alias(name) for index, name in zip(at, wanted, strict=True)
            )
            yield Piece(frame.with_row_index(ROW), path, row, bad)
            row += len(frame) + bad
        if row == 1:
            empty = pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
            yield Piece(empty.with_row_index(ROW), path, row)


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
            csv.reader(content.decode("utf-8").splitlines(keepends=True), delimiter=separator)
        )
        good = [row for row in rows if len(row) <= columns]
        if len(rows) - len(good) > len(good):
            raise
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(good)
    return parse(text.getvalue().encode()), len(rows) - len(good)


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _header(file: IO[bytes], path: Path, separator: str) -> list[str]:
    """Read the names in the first line; the next read begins at the second."""
    try:
        line = file.readline(LONGEST_HEADER + 1)
        if len(line) > LONGEST_HEADER:
            raise DataError(
                f"{path}: its first line is longer than {LONGEST_HEADER} bytes; a table of at most "
                f"{MOST_COLUMNS} columns is expected, in long layout if there are more variables"
            )
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut short; write it again") from error
    if "\r" in text:
        raise DataError(
            f"{path}: its lines end with carriage returns alone; save it with ends of lines of "
            "Windows or Unix"
        )
    return next(csv.reader([text], delimiter=separator), [])


def _check_columns(names: Sequence[str], wanted: list[str], path: Path) -> None:
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{path} has {len(names)} columns, more than {MOST_COLUMNS}; write fewer")
    for name in wanted:
        if names.count(name) != 1:
            problem = "has no column" if name not in names else "has more than one column"
            raise DataError(
                f"{path} {problem} {name!r}; its {len(names)} columns are named in its first line, "
                "correct the name in site.toml"
            )


def _whole_lines(file: IO[bytes], path: Path, *, columns: int, separator: str) -> Iterator[bytes]:
    """Yield pieces of about ``PIECE_BYTES`` that end with a row, not at a line end in quotes."""
    rest = b""
    while True:
        try:
            content = file.read(PIECE_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} is damaged or cut short; write it again") from error
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


def _parquet(path: Path, _: FileSettings, wanted: list[str]) -> Iterator[Piece]:
    schema = _parquet_schema(path)
    _check_columns(tuple(schema), wanted, path)
    for name in wanted:
        if schema[name].is_nested() or schema[name] in (pl.Binary, pl.Object):
            raise DataError(
                f"{path}: column {name!r} holds {schema[name].base_type()}, and must hold texts, "
                "numbers or times; write it as such"
            )
    texts = pl.col(wanted).exclude(
        [n for n in wanted if schema[n] not in (pl.Categorical, pl.Enum)]
    )
    rows = pl.scan_parquet(path).select(wanted).with_columns(texts.cast(pl.String))
    row = 1
    for frame in rows.collect_batches(chunk_size=PIECE_ROWS):
        yield Piece(frame.with_row_index(ROW), path, row)
        row += len(frame)


def _parquet_schema(path: Path) -> dict[str, pl.DataType]:
    try:
        return dict(pl.read_parquet_schema(path))
    except BROKEN as error:
        raise DataError(f"{path} is damaged, cut short or no Parquet; write it again") from error


def numbers(piece: Piece, column: str, *, decimal_comma: bool = False) -> tuple[pl.Series, int]:
    """Return a column's numbers (null if empty or no number), and how many are limits.

    Limits such as ``>300`` and ``<0.01`` count as 300 and 0.01.
    """
    series = piece.frame[column]
    if series.dtype == pl.Duration:
        return series.dt.total_microseconds() / 3_600_000_000, 0
    if series.dtype not in (pl.String, pl.Categorical):
        return series.cast(pl.Float64, strict=False), 0
    text = series.cast(pl.String)
    if decimal_comma:
        text = text.str.replace(",", ".", literal=True)
    parsed = text.str.strip_chars().cast(pl.Float64, strict=False)
    if parsed.null_count() == text.null_count():
        return parsed, 0
    at_limit = pl.select(pl.when(parsed.is_null()).then(limits(text))).to_series()
    return parsed.fill_null(at_limit), len(at_limit) - at_limit.null_count()


def identifiers(piece: Piece, column: str) -> pl.Series:
    """Return a column of identifiers: texts, or whole numbers, even if written 17.0."""
    series = piece.frame[column]
    if series.dtype.is_float() and (series.is_null() | (series % 1 == 0)).all():
        return series.cast(pl.Int64)
    return series


def words(piece: Piece, column: str) -> pl.Series:
    """Return a column's cells that are text and not a number, null for all others."""
    series = piece.frame[column]
    if series.dtype not in (pl.String, pl.Categorical):
        return pl.Series([None], dtype=pl.String).new_from_index(0, len(series))
    text = series.cast(pl.String).str.strip_chars()
    number = text.str.strip_chars_start("<>= ").cast(pl.Float64, strict=False)
    plain = number.is_null() & (text.str.len_bytes() > 0)
    return text.set(~plain.fill_null(value=False), None)


def times(piece: Piece, column: str, time_format: str | None) -> tuple[pl.Series, bool]:
    """Return a column's times in microseconds since 1970 (int64), and whether they had a zone.

    Times with a zone are converted to UTC. Empty cells are null.

    Raises:
        DataError: a cell is not a date and time.
    """
    series = piece.frame[column]
    if isinstance(series.dtype, pl.Datetime | pl.Date):
        zoned = isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is not None
        return series.cast(pl.Datetime("us")).cast(pl.Int64), zoned
    if series.dtype == pl.Null:
        return series.cast(pl.Int64), False
    if series.dtype != pl.String:
        raise DataError(
            f"{piece.path}: column {column!r} holds {series.dtype}, not dates and times; name it "
            "as hours in site.toml if it counts hours"
        )
    text = pl.select(pl.when(series.str.len_bytes() > 0).then(series)).to_series()
    known = text.drop_nulls()
    zoned = bool(len(known)) and bool(known.head(1).str.contains(_OFFSET_ENDING)[0])
    formats = (time_format,) if time_format else (_ZONED_FORMATS if zoned else TIME_FORMATS)
    best: pl.Series | None = None
    for one in formats:
        parsed = text.str.to_datetime(one, time_unit="us", strict=False)
        if parsed.null_count() == text.null_count():
            return parsed.cast(pl.Int64), zoned
        if best is None or parsed.null_count() < best.null_count():
            best = parsed
    if best is None:
        raise DataError(f"{piece.path}: column {column!r} has no dates and times")
    fault = (best.is_null() & text.is_not_null()).arg_true()[0]
    raise DataError(
        f"{piece.where(fault)}: column {column!r} is not a date and time like the others; mend the "
        "row, or state time_format in site.toml"
    )
