"""Reads FHIR resources: of a bulk export, one JSON object a line in memory, or of Bundles."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol, cast

from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.fhir.bundles import LARGEST_DOCUMENT, document, unbundled
from consilium.shared.errors import DataError

DOCUMENTS = (".json", ".json.gz")  # Bundles, mostly
ENDINGS = (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz", *DOCUMENTS)
TYPES = (
    "Patient", "Encounter", "Observation", "Condition",
    "MedicationAdministration", "MedicationRequest", "Medication",
)  # fmt: skip  # a file holds the first of these that its name contains
IDENTIFIER = re.compile(r"[A-Za-z0-9.-]{1,64}")  # FHIR R4, "Data Types", id
_HALVES = re.compile("[\ud800-\udfff]")
MOST_BAD = 10  # lines that cannot be read, beyond as many good ones, before a file is refused
LONGEST_LINE = 8 << 20  # bytes; longer than an Observation with a waveform as text


class Export(Protocol):
    """Resources that lie in no folder; its text names it in errors."""

    def resources(self, kind: str, tally: Tally) -> Iterator[tuple[dict[str, Any], Path]]:
        """Yield every resource of a type, and what to call its file."""

    def has(self, kind: str) -> bool:
        """Whether resources of a type were asked for."""


def resources(
    folder: Path | Export, kind: str, tally: Tally, *, required: bool = True
) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yield every resource of a type, and its file.

    The files with the type in their names are read (``Patient.000.ndjson``); if there are none,
    those with no type in their names.

    A line that is no JSON object is set aside and counted.

    Raises:
        DataError: a required file is missing, or a file cannot be read to its end.
    """
    if not isinstance(folder, Path):
        yield from folder.resources(kind, tally)
        return
    named, others = _files(folder, kind)
    files, found = named or others, False
    if not files and required:
        raise _absent(folder, kind, "")
    for path in files:
        try:
            compressed = path.suffix.lower() == ".gz"
            with cast(IO[bytes], gzip.open(path) if compressed else path.open("rb")) as f:
                for resource in objects(f, path, tally):
                    if resource.get("resourceType") == kind:
                        found = True
                        yield resource, path
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} cannot be read to its end; it is damaged or was cut short, export it again"
            ) from error
    if required and not named and not found:
        raise _absent(folder, kind, f", and none of its {len(others)} other files has one")


def objects(file: IO[bytes], path: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    """Yield the resources of an open file, those of its Bundles one by one.

    A line that is no JSON object is set aside and counted.

    Raises:
        DataError: most lines are no JSON objects, the last is cut off, or one is too long.
    """
    longest = LONGEST_LINE
    if path.name.lower().endswith(DOCUMENTS):
        whole = document(file, path)
        file.seek(0)
        if whole is not None:
            file, longest = io.BytesIO(whole), LARGEST_DOCUMENT
    for found in _lines(file, path, longest, tally):
        yield from unbundled(found, str(path))


def has_files(folder: Path | Export, kind: str) -> bool:
    """Whether an export has files that may hold resources of a type."""
    return any(_files(folder, kind)) if isinstance(folder, Path) else folder.has(kind)


def _files(folder: Path, kind: str) -> tuple[list[Path], list[Path]]:
    """Return the files with the type in their names, and those with no type that is read."""
    there = [path for path in sorted(folder.rglob("*")) if path.name.lower().endswith(ENDINGS)]
    held = {
        path: next((one for one in TYPES if one.lower() in path.name.lower()), None)
        for path in there
    }
    named = [path for path in there if held[path] == kind]
    return named, [path for path in there if held[path] is None]


def _absent(folder: Path, kind: str, more: str) -> DataError:
    return DataError(
        f"{folder} holds no {kind}.ndjson (or .ndjson.gz){more}; point [data] path at the folder "
        f"of a bulk export that includes {kind}"
    )


def _lines(file: IO[bytes], path: Path, longest: int, tally: Tally) -> Iterator[dict[str, Any]]:
    number, good, bad = 0, 0, 0
    while line := file.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise DataError(
                f"{path} line {number}: longer than {LONGEST_LINE} bytes; write one resource a line"
            )
        if line.isspace():
            continue
        found = json_object(line, "utf-8-sig" if number == 1 else "utf-8")
        if isinstance(found, str):
            bad += 1
            if bad > good + MOST_BAD or not line.endswith(b"\n"):  # of many, or the cut-off end
                raise DataError(f"{path} line {number}: {found}")
            tally.bad_line(str(path), number)
            continue
        good += 1
        yield found


def json_object(line: bytes, encoding: str = "utf-8") -> dict[str, Any] | str:
    """Return the JSON object of a line, or what is wrong with it."""
    try:
        found = _DECODER.decode(line.decode(encoding))
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    if found is None:
        return "is no JSON in UTF-8; it was damaged or cut short, export it again"
    return "is no JSON object; write one resource a line"


def _no_constant(_: str) -> None:
    """Refuse NaN and Infinity, which Python accepts though JSON does not have them.

    Raises:
        ValueError: always.
    """
    raise ValueError


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def at(node: Any, *path: str) -> Any:
    """Return what lies at a path of keys, None if the path ends early."""
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def text(node: Any, *path: str) -> str | None:
    """Return the text at a path; None if there is none, or if it is not valid Unicode."""
    found = at(node, *path)
    if not isinstance(found, str):
        return None
    return found if found.isascii() or not _HALVES.search(found) else None


def number(node: Any, *path: str) -> float | None:
    """Return the number at a path, None if there is none."""
    found = at(node, *path)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        return float(found)
    except OverflowError:
        return float("inf")


def codings(concept: Any) -> Iterator[tuple[str, str]]:
    """Yield system and code of a CodeableConcept's codings."""
    listed = at(concept, "coding")
    for coding in listed if isinstance(listed, list) else ():
        code = text(coding, "code")
        if code is not None:
            yield text(coding, "system") or "", code


def reference(resource: Any) -> str | None:
    """Return how others refer to a resource, such as ``Observation/17``; None if they cannot."""
    kind, own = text(resource, "resourceType"), text(resource, "id")
    if kind is None or own is None or not IDENTIFIER.fullmatch(own):
        return None
    return f"{kind}/{own}"


def identity(reference: Any) -> str | None:
    """Return the identifier in a reference such as ``Patient/17``, absolute or relative."""
    whole = text(reference, "reference")
    if whole is None:
        return None
    return whole.split("/_history/")[0].rpartition("/")[2].removeprefix("urn:uuid:")
