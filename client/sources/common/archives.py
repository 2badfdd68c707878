"""Reads many small files of a folder or zip, one at a time, with a bound on their size."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from consilium.client.sources.common.source import Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError)


class BadFileError(Exception):
    """Why one file cannot be used; reported within a DataError, or counted."""


def contents(
    path: Path, *, suffix: str, largest_bytes: int
) -> Iterator[tuple[str, bytes | BadFileError]]:
    """Yield name and bytes of every file with that suffix, in the order of names.

    Args:
        path: a folder (searched to any depth), or a zip.
        suffix: ending of the files' names, such as ".psv".
        largest_bytes: bound on one file's size, checked before unpacking; in place of a larger
            file, such as a zip bomb, a ``BadFileError`` is yielded.

    Raises:
        DataError: the path does not exist, is no zip, or has no such file.
    """
    too_large = _too_large(largest_bytes)
    found = False
    if path.is_dir():
        for file in sorted(path.rglob(f"*{suffix}")):
            found = True
            large = file.stat().st_size > largest_bytes
            yield str(file.relative_to(path)), too_large if large else file.read_bytes()
    elif path.exists():
        for name, content in members(path, suffix=suffix, largest_bytes=largest_bytes):
            found = True
            yield name, content
    else:
        raise DataError(f"data {path} does not exist; check the path")
    if not found:
        raise DataError(f"data {path} holds no {suffix} files; point at the records' folder or zip")


def members(
    path: Path, *, suffix: str, largest_bytes: int
) -> Iterator[tuple[str, bytes | BadFileError]]:
    """Yield name and bytes of every file in a zip, as :func:`contents` does.

    Raises:
        DataError: the path is no readable zip.
    """
    too_large = _too_large(largest_bytes)
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN_ZIP as error:
        raise DataError(f"data {path} is not a readable zip; download it again") from error
    with archive:
        found = [member for member in archive.infolist() if member.filename.endswith(suffix)]
        for member in sorted(found, key=lambda m: m.filename):
            if member.file_size > largest_bytes:
                yield member.filename, too_large
                continue
            try:
                yield member.filename, archive.read(member)
            except BROKEN_ZIP:
                yield member.filename, BadFileError("is damaged or encrypted inside the zip")


def leave_out(file: str, error: Exception, study: Study, tally: Tally) -> None:
    """Count an unusable record as left out, if the study allows that.

    Raises:
        DataError: the study says ``on_bad_file = "refuse"``.
    """
    if study.data.on_bad_file == "refuse":
        raise DataError(
            f'record {file}: {error}; mend or remove the file, or set [data] on_bad_file = "skip"'
        ) from error
    tally.skipped.append((file, str(error)))


def _too_large(largest_bytes: int) -> BadFileError:
    return BadFileError(f"is larger than {largest_bytes} bytes")
