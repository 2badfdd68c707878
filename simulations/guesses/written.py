"""How a table is written, whatever its form: its first rows as a frame, encoding and separator."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from consilium.client.sources.own.tables import table_forms as forms
from consilium.shared.errors import DataError, SettingsError

ROWS = 200_000  # looked at; a guess needs no more, and a table may be large
ENDINGS = forms.ENDINGS
SEPARATORS = (",", ";", "\t", "|")
LOOKED_BYTES = 16 << 20  # of a CSV's text, to find its encoding
_LINES = 200  # of a CSV, to find its separator


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """The first rows of a table; those of a CSV are texts, and have a separator.

    ``file`` is the path to be named in settings, a folder for a table in many files; ``sheet`` is
    of a workbook with several, ``table`` of a database.
    """

    path: Path
    frame: pl.DataFrame
    separator: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    table: str | None = None


def written_at(path: Path, separator: str | None, rows: int | None) -> Iterator[Written]:
    """Yield the tables of a file, or of a folder that is one table; a workbook has a table a sheet.

    Raises:
        DataError: it cannot be read as a table.
        SettingsError: a CSV could be separated in two ways, or a form's library is missing.
    """
    try:
        if path.is_dir():
            yield _folder(path, separator, rows)
        elif path.name.lower().endswith(forms.XLSX_NAMES):
            yield from _workbook(path)
        else:
            yield _one(path, separator, rows)
    except forms.BROKEN as error:
        raise DataError(
            f"{path}: cannot be read as a table; write it again, or as UTF-8 CSV or Parquet"
        ) from error
    except (OSError, EOFError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read; check the file, or write it again") from error


def _one(path: Path, separator: str | None, rows: int | None) -> Written:
    if path.name.lower().endswith(forms.PARQUET_NAMES):
        return Written(path=path, frame=pl.read_parquet(path, n_rows=rows, hive_partitioning=False))
    if path.name.lower().endswith(forms.ARROW_NAMES):
        names = list(forms.arrow_schema(path))
        pieces, held = [], 0
        for piece in forms.arrow_frames(path, names, rows or ROWS):
            pieces.append(piece)
            if rows is not None and (held := held + len(piece)) >= rows:
                break
        frame = pl.concat(pieces) if pieces else pl.DataFrame(schema=forms.arrow_schema(path))
        return Written(path=path, frame=frame.head(rows) if rows else frame)
    return _csv(path, separator, rows)


def _csv(path: Path, separator: str | None, rows: int | None) -> Written:
    encoding = _encoding(path)
    with forms.opened_text(path, encoding or "utf-8") as file:
        first = file.read(LOOKED_BYTES).decode("utf-8-sig", errors="replace")
        lines = [line.rstrip("\r\n") for line in first.split("\n", _LINES + 1)[: _LINES + 1]]
        lines = lines if len(lines) <= _LINES else lines[:_LINES]
        if not lines[-1]:
            lines.pop()
        if len(lines) < 2:
            raise DataError(
                f"{path}: has {len(lines)} lines; a table has a header and rows below it"
            )
        chosen = separator or _separator(path, lines)
        names = next(csv.reader(lines, delimiter=chosen))
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise DataError(f"{path}: has more than one column {twice!r}; give each its own name")
        whole = path if encoding is None else io.BytesIO(first.encode() + _rest(file, path))
    frame = pl.read_csv(
        whole, separator=chosen, infer_schema=False, n_rows=rows, encoding="utf8",
        truncate_ragged_lines=True,
    )  # fmt: skip  # reads as one
    if len(names) == len(frame.columns):  # quotes in a name are undone
        at = [n for n, name in enumerate(names) if name.strip()]
        frame = frame.select(pl.nth(n).alias(names[n]) for n in at)
    return Written(path=path, frame=frame, separator=chosen, encoding=encoding)


def _rest(file: forms.Bytes, path: Path) -> bytes:
    content = bytearray()
    while piece := file.read(LOOKED_BYTES):
        content += piece
        if len(content) > forms.LARGEST_STREAM_BYTES:
            raise DataError(
                f"{path}: is larger than {forms.LARGEST_STREAM_BYTES} bytes and no UTF-8; write "
                "it as UTF-8 or Parquet"
            )
    return bytes(content)


def _encoding(path: Path) -> str | None:
    """Return a text's encoding, None for UTF-8.

    Raises:
        DataError: it is no text.
    """
    with forms.opened_text(path, "utf-8") as file:
        first = file.read(LOOKED_BYTES)
    if first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if b"\0" in first:
        raise DataError(f"{path}: is no text; write it as UTF-8 CSV or as Parquet")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(first)
    except UnicodeDecodeError:
        try:
            first.decode("cp1252")
        except UnicodeDecodeError:
            return "latin-1"
        return "cp1252"
    return None


def _separator(path: Path, lines: Sequence[str]) -> str:
    """Return the character that cuts every line into as many columns, more than one."""
    fitting = []
    for separator in SEPARATORS:
        rows = [
            row for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=separator) if row
        ]
        counts = {len(row) for row in (rows[:-1] if len(rows) > 2 else rows)}
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


def _workbook(path: Path) -> Iterator[Written]:
    names, frame = forms.xlsx_frame(path, None)
    import fastexcel  # installed, or the line above has refused

    sheets = list(fastexcel.read_excel(path).sheet_names)
    for number, sheet in enumerate(sheets):
        if number:
            names, frame = forms.xlsx_frame(path, sheet)
        if len(frame) or len(sheets) == 1:
            at = dict(zip(map(str, range(len(names))), names, strict=True))
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise DataError(
                    f"{path}: sheet {sheet!r} has more than one column {twice!r}; give each its "
                    "own name"
                )
            yield Written(path=path, frame=frame.rename(at), sheet=sheet if number else None)


def _folder(folder: Path, separator: str | None, rows: int | None) -> Written:
    """Return the table whose files lie in a folder, with the columns that their paths hold."""
    pieces, one, held = [], None, 0
    for found in forms.files_at(folder):
        one = _one(found.path, separator, rows)
        pieces.append(
            forms.with_hive(one.frame, found.hive, [*one.frame.columns, *(
                name for name in found.hive if name not in one.frame.columns)])
        )  # fmt: skip  # reads as one
        held += len(one.frame)
        if rows is not None and held >= rows:
            break
    assert one is not None  # noqa: S101 - files_at refuses a folder without files
    frame = pl.concat(pieces, how="diagonal_relaxed")
    return Written(
        path=folder, frame=frame, separator=one.separator, encoding=one.encoding, sheet=None
    )
