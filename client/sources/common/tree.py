"""The files below a folder, and a zip unpacked into one for as long as it is read."""

import os
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from consilium.client.sources.common.archives import BROKEN_ZIP
from consilium.shared.errors import DataError

MOST_FILES = 10_000_000
OF_THE_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "__macosx", "autorun.inf"})


def files_below(folder: Path) -> list[Path]:
    """Return every file below a folder, in the order of paths; links are followed, each once.

    Left out is what systems put there themselves: names that begin with a dot, ``Thumbs.db`` and
    their kind.

    Raises:
        DataError: there are more than MOST_FILES.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if _is_data(name))
        found += [Path(root) / name for name in names if _is_data(name)]
        if len(found) > MOST_FILES:
            raise DataError(f"data {folder}: holds more than {MOST_FILES} files; divide it")
    return sorted(path for path in found if path.is_file())


def name_below(path: Path, folder: Path) -> str:
    """Return a file's path below the folder, without suffixes, parts joined by ``/``."""
    relative = path.relative_to(folder)
    return (
        (relative.parent / relative.name.split(".")[0]).as_posix()
        if relative.suffix
        else (relative.as_posix())
    )


@contextmanager
def unpacked(
    path: Path, *, suffixes: Collection[str], largest_bytes: int, most_bytes: int
) -> Iterator[Path]:
    """Yield the folder of the records: the path, or a temporary one with a zip's files.

    Args:
        path: the folder or zip.
        suffixes: endings, in lower case, of the files to unpack.
        largest_bytes: bound on one file, checked before anything is unpacked.
        most_bytes: bound on all of them together.

    Raises:
        DataError: the path does not exist, or is no readable zip, or one that is too large.
    """
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise DataError(f"data {path} does not exist; check the path")
    with tempfile.TemporaryDirectory(prefix="consilium-") as made:
        folder = Path(made)
        try:
            with zipfile.ZipFile(path) as archive:
                members = [
                    member
                    for member in archive.infolist()
                    if member.filename.lower().endswith(tuple(suffixes)) and _is_safe(member)
                ]
                largest = max((member.file_size for member in members), default=0)
                total = sum(member.file_size for member in members)
                if largest > largest_bytes or total > most_bytes:
                    raise DataError(
                        f"data {path}: unpacks to {total} bytes, the largest file to {largest}, "
                        f"above {most_bytes} or {largest_bytes}; unpack it into a folder yourself"
                    )
                for member in members:
                    target = folder / member.filename
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(member))
        except (*BROKEN_ZIP, ValueError) as error:
            raise DataError(f"data {path} is not a readable zip; download it again") from error
        yield folder


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in OF_THE_SYSTEM


def _is_safe(member: zipfile.ZipInfo) -> bool:
    """Return whether a member is a file of the records that stays inside the folder."""
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    return (
        not member.is_dir()
        and ".." not in parts
        and "/" not in parts
        and all(_is_data(part) for part in parts)
    )
