"""Reads FHIR resources: of a bulk export, one JSON object a line in memory, or of Bundles."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol, cast

from consilium.client.sources.own.bundles import LARGEST_DOCUMENT, document, unbundled
from consilium.shared.errors import DataError

DOCUMENTS = (".json", ".json.gz")  # Bundles, mostly
ENDINGS = (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz", *DOCUMENTS)
TYPES = (
    "Patient", "Encounter", "Observation", "Condition",
    "MedicationAdministration", "MedicationRequest", "Medication",
)  # fmt: skip  # a file holds the first of these that its name contains
_HALVES = re.compile("[\ud800-\udfff]")
LONGEST_LINE = 8 << 20  # bytes; longer than an Observation with a waveform as text


class Export(Protocol):
    """Resources that lie in no folder; its text names it in errors."""

    def resources(self, kind: str) -> Iterator[tuple[dict[str, Any], Path]]:
        """Yield every resource of a type, and what to call its file."""


def resources(
    folder: Path | Export, kind: str, *, required: bool = True
) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yield every resource of a type, and its file.

    The files with the type in their names are read (``Patient.000.ndjson``); if there are none,
    those with no type in their names.

    Raises:
        DataError: a required file is missing, or a line is no JSON object.
    """
    if not isinstance(folder, Path):
        yield from folder.resources(kind)
        return
    there = [path for path in sorted(folder.rglob("*")) if path.name.lower().endswith(ENDINGS)]
    held = {
        path: next((one for one in TYPES if one.lower() in path.name.lower()), None)
        for path in there
    }
    files = [path for path in there if held[path] == kind]
    files = files or [path for path in there if held[path] is None]
    if not files and required:
        raise DataError(
            f"{folder} holds no {kind}.ndjson (or .ndjson.gz); point [data] path at the folder of "
            f"a bulk export that includes {kind}"
        )
    for path in files:
        try:
            compressed = path.suffix.lower() == ".gz"
            with cast(IO[bytes], gzip.open(path) if compressed else path.open("rb")) as f:
                for resource in objects(f, path):
                    if resource.get("resourceType") == kind:
                        yield resource, path
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} cannot be read to its end; it is damaged or was cut short, export it again"
            ) from error


def objects(file: IO[bytes], path: Path) -> Iterator[dict[str, Any]]:
    """Yield the resources of an open file, those of its Bundles one by one.

    Raises:
        DataError: a line is no JSON object, or too long.
    """
    longest = LONGEST_LINE
    if path.name.lower().endswith(DOCUMENTS):
        whole = document(file, path)
        file.seek(0)
        if whole is not None:
            file, longest = io.BytesIO(whole), LARGEST_DOCUMENT
    for found in _lines(file, path, longest):
        yield from unbundled(found, str(path))


def _lines(file: IO[bytes], path: Path, longest: int) -> Iterator[dict[str, Any]]:
    number = 0
    while line := file.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise DataError(
                f"{path} line {number}: longer than {LONGEST_LINE} bytes; write one resource a line"
            )
        if line.isspace():
            continue
        try:
            found = _DECODER.decode(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path} line {number}: is no JSON in UTF-8; it was damaged or cut short, export "
                "it again"
            ) from error
        if not isinstance(found, dict):
            raise DataError(f"{path} line {number}: is no JSON object; write one resource a line")
        yield found


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


def identity(reference: Any) -> str | None:
    """Return the identifier in a reference such as ``Patient/17``, absolute or relative."""
    whole = text(reference, "reference")
    if whole is None:
        return None
    return whole.split("/_history/")[0].rpartition("/")[2].removeprefix("urn:uuid:")
