"""Many small files in a folder or a zip, read one at a time and bounded in size."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from shared.errors import DataError

BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError)


class BadFileError(Exception):
    """Why one file cannot be used; told as part of a DataError, or counted."""


def contents(
    path: Path, *, suffix: str, largest_bytes: int
) -> Iterator[tuple[str, bytes | BadFileError]]:
    """Yield name and bytes of every file of that suffix, in the order of names.

    Args:
        path: a folder (looked through to any depth), or a zip.
        suffix: of the files' names, such as ".psv".
        largest_bytes: bound on one file's size, before anything is unpacked: a zip bomb is a
            ``BadFileError`` in its place.

    Raises:
        DataError: the path does not exist, is no zip, or holds no such file.
    """
    too_large = BadFileError(f"is larger than {largest_bytes} bytes")
    found = False
    if path.is_dir():
        for file in sorted(path.rglob(f"*{suffix}")):
            found = True
            large = file.stat().st_size > largest_bytes
            yield str(file.relative_to(path)), too_large if large else file.read_bytes()
    elif path.exists():
        for name, content in _members(path, suffix, largest_bytes, too_large):
            found = True
            yield name, content
    else:
        raise DataError(f"data {path} does not exist; check the path")
    if not found:
        raise DataError(f"data {path} holds no {suffix} files; point at the records' folder or zip")


def _members(
    path: Path, suffix: str, largest_bytes: int, too_large: BadFileError
) -> Iterator[tuple[str, bytes | BadFileError]]:
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN_ZIP as error:
        raise DataError(f"data {path} is not a readable zip; download it again") from error
    with archive:
        members = [member for member in archive.infolist() if member.filename.endswith(suffix)]
        for member in sorted(members, key=lambda m: m.filename):
            if member.file_size > largest_bytes:
                yield member.filename, too_large
                continue
            try:
                yield member.filename, archive.read(member)
            except BROKEN_ZIP:
                yield member.filename, BadFileError("is damaged or encrypted inside the zip")
