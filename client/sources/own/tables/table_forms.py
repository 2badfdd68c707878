"""The forms of a table's file: where its bytes or frames come from, whatever packed or wrote it.

A name's ending says the form, in capitals or not: CSV, packed or not and in any encoding; Parquet;
Arrow and Feather; XLSX. A folder stands for the files in it; ``year=2024/`` in a path is a column
as Hive names it. Every library's failure ends in a ``DataError``, and what unpacks is bounded.
"""

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self, cast
from urllib.parse import unquote

import polars as pl

from consilium.client.sources.common.needs import needs
from consilium.shared.errors import DataError

BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
PACKED = (".gz", ".zst")
CSV_NAMES = tuple(text + packed for text in (".csv", ".tsv", ".txt") for packed in ("", *PACKED))
PARQUET_NAMES = (".parquet", ".pq")
ARROW_NAMES = (".arrow", ".feather", ".ipc")
XLSX_NAMES = (".xlsx", ".xlsm")
ENDINGS = (*CSV_NAMES, *PARQUET_NAMES, *ARROW_NAMES, *XLSX_NAMES)
LARGEST_XLSX_BYTES = 256 << 20  # unpacked: a full sheet of a million rows and six columns
LARGEST_STREAM_BYTES = 1 << 30
_WILD = frozenset("*?[")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_UNPACKING = (EOFError, zlib.error, gzip.BadGzipFile)


class Bytes(Protocol):
    """What CSV is read from: an open file, or one that is decoded on the way."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, none at the end."""

    def readline(self, size: int, /) -> bytes:
        """Return the next line, or its first bytes."""

    def __enter__(self) -> Self:
        """Begin to read."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
        /,
    ) -> None:
        """Close it."""


@dataclass(frozen=True)
class Found:
    """A file of a table, and the columns that its path holds."""

    path: Path
    hive: dict[str, str | None]

    def ends(self, names: tuple[str, ...]) -> bool:
        """Return whether the name has one of these endings, in capitals or not."""
        return self.path.name.lower().endswith(names)


def files_at(place: Path) -> list[Found]:
    """Return the files that a path, a pattern or a folder names, in order.

    Raises:
        DataError: there are none, or one is of no known form.
    """
    wild = next((n for n, part in enumerate(place.parts) if _WILD & set(part)), None)
    base = place if wild is None else Path(*place.parts[:wild])
    if wild is not None:
        paths = sorted(base.glob(str(Path(*place.parts[wild:]))))
    elif place.is_dir():
        paths = sorted(path for path in place.rglob("*") if not _hidden(path, place))
    else:
        paths = [place]
    found = [Found(path, _hive(path, base)) for path in paths if path.is_file()]
    if not found:
        raise DataError(
            f"{place} does not exist or is no file; check [data] file in site.toml"
            if wild is not None or not place.is_dir()
            else f"{place} holds no file; check [data] file in site.toml"
        )
    for one in found:
        if not one.ends(ENDINGS):
            raise DataError(
                f"{one.path} is neither CSV ({', '.join(CSV_NAMES)}) nor {', '.join(PARQUET_NAMES)}"
                f", {', '.join(ARROW_NAMES)} or {', '.join(XLSX_NAMES)}; convert it"
            )
    return found


def _hidden(path: Path, base: Path) -> bool:
    """Return whether writers of data lakes keep their own notes there (``_SUCCESS``)."""
    return any(part.startswith(("_", ".")) for part in path.relative_to(base).parts)


def _hive(path: Path, base: Path) -> dict[str, str | None]:
    """Return the columns that folders such as ``year=2024`` stand for."""
    pairs = (part.partition("=") for part in path.relative_to(base).parts[:-1] if "=" in part)
    return {unquote(n): None if v == _HIVE_NULL else unquote(v) for n, _, v in pairs}


def with_hive(frame: pl.DataFrame, hive: dict[str, str | None], wanted: list[str]) -> pl.DataFrame:
    """Return the frame's wanted columns and those that its file's path holds."""
    added = [pl.lit(v, pl.String).alias(n) for n, v in hive.items() if n not in frame.columns]
    return frame.with_columns(added).select(wanted)


def opened_text(path: Path, encoding: str) -> Bytes:
    """Open a text, unpacked and in UTF-8.

    Raises:
        SettingsError: it is packed by Zstandard and the library is missing.
    """
    ending = path.suffix.lower()
    if ending == ".zst":
        needs("backports.zstd", extra="zst", what=path.name)
        from backports import zstd  # the standard library's, before Python 3.14

        unpacked: Any = zstd.open(path, "rb")
    else:
        unpacked = gzip.open(path) if ending == ".gz" else path.open("rb")  # noqa: SIM115  # the caller closes it
    plain = _Unpacked(unpacked, path)
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
        return plain
    return _Recoded(plain, path, encoding)


class _Unpacked(io.RawIOBase):
    """An open file whose damage is told in one sentence."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = io.BufferedReader(cast(Any, file)), path

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def read(self, size: int = -1, /) -> bytes:
        return self._told(lambda: self._file.read(size))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._told(lambda: self._file.readline(size or -1))

    def readinto(self, buffer: Any, /) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _told(self, work: Any) -> bytes:
        try:
            return cast(bytes, work())
        except _UNPACKING as error:
            raise DataError(f"{self._path} is damaged or cut short; write it again") from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise DataError(f"{self._path} is damaged or cut short; write it again") from error


class _Recoded:
    """A text in another encoding, read as UTF-8."""

    def __init__(self, file: _Unpacked, path: Path, encoding: str) -> None:
        self._text = io.TextIOWrapper(
            cast(Any, io.BufferedReader(file)), encoding=encoding, newline="\n"
        )
        self._path, self._encoding = path, encoding

    def read(self, size: int, /) -> bytes:
        return self._told(lambda: self._text.read(size))

    def readline(self, size: int, /) -> bytes:
        return self._told(lambda: self._text.readline(size))

    def _told(self, work: Any) -> bytes:
        try:
            return cast(str, work()).encode()
        except UnicodeError as error:
            raise DataError(
                f"{self._path} is not text in {self._encoding}; correct [data] encoding in "
                "site.toml"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._text.close()


def not_utf8(path: Path, first: bytes) -> DataError:
    """Return what to tell of a file that is no UTF-8; its first bytes may say what it is."""
    likely = "utf-16" if first[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in first else "cp1252"
    return DataError(
        f"{path} is not UTF-8 text; save it as UTF-8, or state its encoding beside file in "
        f'site.toml, such as encoding = "{likely}"'
    )


def arrow_frames(path: Path, wanted: list[str], rows: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of an Arrow or Feather file; see :func:`arrow_schema` for what is refused."""
    if _is_arrow_file(path):
        yield from pl.scan_ipc(path).select(wanted).collect_batches(chunk_size=rows)
    else:
        yield from pl.read_ipc_stream(path, columns=wanted).iter_slices(rows)


def arrow_schema(path: Path) -> dict[str, pl.DataType]:
    """Return the columns of an Arrow or Feather file.

    Raises:
        DataError: it is damaged, of Feather's first version, or a stream too large for memory.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"FEA1":
        raise DataError(f"{path} is Feather version 1; write it as version 2, or as Parquet")
    if _is_arrow_file(path):
        return dict(pl.read_ipc_schema(path))
    if path.stat().st_size > LARGEST_STREAM_BYTES:
        raise DataError(
            f"{path} is an Arrow stream of more than {LARGEST_STREAM_BYTES} bytes; write it as an "
            "Arrow file, or as Parquet"
        )
    return dict(pl.read_ipc_stream(path, n_rows=0).schema)


def _is_arrow_file(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"ARROW1"


def xlsx_frame(path: Path, sheet: str | None) -> tuple[tuple[str, ...], pl.DataFrame]:
    """Return a sheet's names of columns as written, and its rows.

    Raises:
        DataError: it is damaged, too large, or has no such sheet.
        SettingsError: the library is missing.
    """
    needs("fastexcel", extra="xlsx", what=path.name)
    _check_unpacked(path)
    import fastexcel

    try:
        book = fastexcel.read_excel(path)
        if sheet is not None and sheet not in book.sheet_names:
            raise DataError(
                f"{path} has no sheet {sheet!r}, and {len(book.sheet_names)} others; correct "
                "[data] sheet in site.toml"
            )
        chosen = sheet if sheet is not None else 0
        # The library gives a second column of one name another; as written, it can be refused.
        first = book.load_sheet(chosen, header_row=None, n_rows=1, dtypes="string").to_polars()
        names = tuple("" if name is None else name for name in next(first.iter_rows(), ()))
        frame = book.load_sheet(chosen, schema_sample_rows=None).to_polars()
    except DataError:
        raise
    except BaseException as error:
        known = isinstance(error, (fastexcel.FastExcelError, *BROKEN))
        if known or type(error).__name__ == "PanicException":
            raise DataError(f"{path} is damaged, empty or no XLSX; write it again") from error
        raise
    if len(names) != len(frame.columns):
        raise DataError(
            f"{path}: its first row does not name each of its {len(frame.columns)} columns; write "
            "one table a sheet, the names in its first row"
        )
    return names, frame.rename(dict(zip(frame.columns, map(str, range(len(names))), strict=True)))


def _check_unpacked(path: Path) -> None:
    """Refuse an archive that unpacks without end; the sizes in its directory may be lies."""
    try:
        with zipfile.ZipFile(path) as archive:
            left = LARGEST_XLSX_BYTES
            for member in archive.infolist():
                with archive.open(member) as file:
                    while content := file.read(1 << 20):
                        left -= len(content)
                        if left < 0:
                            raise DataError(
                                f"{path} unpacks to more than {LARGEST_XLSX_BYTES} bytes; write "
                                "it as CSV or Parquet"
                            )
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        ValueError,
        *_UNPACKING,
    ) as error:
        raise DataError(f"{path} is damaged, protected or no XLSX; write it again") from error
