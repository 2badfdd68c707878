"""Code that people of this machine installed as a package, found by its entry points.

No code travels. Looking for a name, and the digest of a package, read files and run nothing;
:func:`load` runs the package's code, so whoever calls it has asked before whether that is allowed.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from consilium.shared.errors import ConsiliumError

_MARK = "__consilium_digest__"  # on a module of a package: the digest under which it was loaded


def is_installed(group: str, name: str) -> bool:
    """Return whether a package adds this name to the group; nothing of it is loaded."""
    return bool(entry_points(group=group, name=name))


def owners_of(group: str, name: str) -> list[str]:
    """Return the packages that add this name, with their versions; loads nothing."""
    return sorted({_owner(one) for one in entry_points(group=group, name=name)})


def only_entry(group: str, name: str, *, what: str, raises: type[ConsiliumError]) -> EntryPoint:
    """Return the entry point of the one package that adds this name; loads nothing.

    Args:
        group: of entry points.
        name: in the group.
        what: what it is called in the sentence.
        raises: kind of error.

    Raises:
        ConsiliumError: no package adds it, or several do.
    """
    owners = owners_of(group, name)
    if not owners:
        raise raises(
            f"{what} {name!r} is added by no package that is installed here; install the one that "
            "adds it"
        )
    if len(owners) > 1:
        raise raises(
            f"{what} {name!r} is added by {len(owners)} installed packages "
            f"({'; '.join(owners)}); install exactly one of them"
        )
    entry, *_ = entry_points(group=group, name=name)
    return entry


def load(
    entry: EntryPoint,
    *,
    what: str,
    raises: type[ConsiliumError],
    take: Callable[[Any], Any] = lambda registered: registered,
) -> Any:
    """Run the package's code and return what it registered, or what ``take`` takes of it.

    Other arguments as of :func:`only_entry`.

    Raises:
        ConsiliumError: its code failed; the sentence has the error's kind, never its text.
    """
    try:
        return take(entry.load())
    except Exception as error:  # whatever another's code raises is told in one sentence
        raise raises(
            f"{what} {entry.name!r} of {_owner(entry)} cannot be loaded "
            f"({type(error).__name__}); ask who wrote it"
        ) from error


def package_of(entry: EntryPoint) -> tuple[str, str]:
    """Return the name and the version of the package that an entry point is of."""
    return ("unknown", "0") if entry.dist is None else (entry.dist.name, entry.dist.version)


def package_digest(entry: EntryPoint, *, what: str, raises: type[ConsiliumError]) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of the package's code as it lies on this disk.

    Over what it adds to the group, and the names and contents of all its files and of those beside
    them, compiled Python and what an installer adds left out; so it is the same wherever the same
    package is installed. Other packages, of which it makes use, are not part of it. Arguments as of
    :func:`only_entry`.

    Raises:
        ConsiliumError: Python would load the code from elsewhere, as with an editable install.
    """
    files: dict[str, Path] = {}
    adds: list[str] = []
    if entry.dist is not None:
        files = dict(_files(entry.dist))
        adds = sorted(
            f"{one.name}={one.value}" for one in entry.dist.entry_points if one.group == entry.group
        )
    top = entry.module.partition(".")[0]
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = None
    origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    if origin not in files.values():
        raise raises(
            f"{what} {entry.name!r} of {_owner(entry)}: Python would load {top!r} from elsewhere "
            "than where the package was installed, so its digest would say nothing; install its "
            "wheel, not editable, and no other module of that name"
        )
    digest = hashlib.sha256()
    named = (part for name in sorted(files) for part in (name.encode(), files[name].read_bytes()))
    for part in ("\n".join(adds).encode(), *named):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def require_loaded_as(
    entry: EntryPoint, digest: str, *, what: str, raises: type[ConsiliumError]
) -> None:
    """Refuse code that this process loaded before under another digest; call after :func:`load`.

    Raises:
        ConsiliumError: the package was changed since; the process must begin anew.
    """
    whole = sys.modules[entry.module.partition(".")[0]]
    if whole.__dict__.setdefault(_MARK, digest) != digest:
        raise raises(
            f"{what} {entry.name!r} of {_owner(entry)} was changed after this process had loaded "
            "it; start the process again"
        )


def _owner(entry: EntryPoint) -> str:
    return " ".join(package_of(entry))


def _files(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    """Yield names, as of the place where packages lie, and paths of a package's code and data."""
    places: set[PurePosixPath] = set()
    for file in distribution.files or ():
        if _is_code(file):
            path = Path(str(distribution.locate_file(file))).resolve()
            if path.is_file():
                yield file.as_posix(), path
            if len(file.parts) > 1:
                places.add(file.parent)
    for place in places:
        folder = Path(str(distribution.locate_file(place)))
        for path in folder.iterdir() if folder.is_dir() else ():
            beside = PurePosixPath(place) / path.name
            if path.is_file() and _is_code(beside):
                yield beside.as_posix(), path.resolve()


def _is_code(file: PurePosixPath) -> bool:
    """Return whether a file is the package's own; an installer adds scripts and notes."""
    added = file.parts[0] in ("..", "bin") or file.parts[0].endswith(".dist-info")
    return not added and "__pycache__" not in file.parts and file.suffix not in (".pyc", ".pyo")
