"""The files and folders that settings name: whether each is there and can be read now."""

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from consilium.shared.errors import DataError

PATTERN = "*?["


def named_files(settings: BaseModel) -> Iterator[Path]:
    """Yield every path in the settings and in the tables within them, patterns among them."""
    for name in type(settings).model_fields:
        yield from _paths(getattr(settings, name))


def check_readable(path: Path) -> int:
    """Open what a path names, and the first entry if it is a folder; return how many files.

    Args:
        path: a file, a folder, or a pattern such as ``vitals/*.csv``.

    Raises:
        DataError: nothing is there, or this account may not read it.
    """
    try:
        wild = next((n for n, part in enumerate(path.parts) if set(PATTERN) & set(part)), None)
        if wild is not None:
            found = sorted(Path(*path.parts[:wild]).glob(str(Path(*path.parts[wild:]))))
            if not found:
                raise DataError(
                    f"no file fits {path}; correct the pattern in [data], or bring the files"
                )
            for one in found:
                _open(one)
            return len(found)
        _open(path)
    except FileNotFoundError:
        raise DataError(
            f"{path} is not there; correct the path in [data], or bring the records"
        ) from None
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read ({error.strerror}) by the account that runs "
            "this; let it read there, or correct the path in [data]"
        ) from error
    return 1


def _open(path: Path) -> None:
    if path.is_dir():
        with os.scandir(path) as entries:
            if next(entries, None) is None:
                raise DataError(f"{path} is an empty folder; bring the records, or correct [data]")
        return
    with path.open("rb") as file:
        file.read(1)


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        yield from named_files(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)
