"""The records of a study's rounds as people read them: a JSON line each, in ``rounds.jsonl``.

The checkpoint holds them, too, and is written first: what a crash between both left out here is put
in when the study goes on.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.shared.enrolment.messages import MOST_VOIDS
from consilium.shared.files.atomic_file import write_atomically

LARGEST_RECORD = 1 << 20
RECORDS = "rounds.jsonl"
MOST_READ = 1000  # records, to find void rounds in


def rounds_file(folder: CoordinatorFolder, digest: bytes) -> Path:
    """Return the file with the records of a study's rounds, a JSON line for each."""
    return folder.path / "studies" / digest.hex() / RECORDS


def add_record(file: Path, record: Mapping[str, Any]) -> None:
    """Add a round's record to the file's end.

    Raises:
        OSError: the file cannot be written; half a line may stand at its end.
    """
    with file.open("a", encoding="utf-8") as stream:
        stream.write(_line(record))


def put_in_missing(file: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Put in the records of ``history`` that the file lacks, and take half a line out.

    A record that the file alone has stays: the checkpoint may come from an older backup.

    Raises:
        OSError: the file cannot be written; it is then as it was.
    """
    content = file.read_bytes() if file.exists() else b""
    records: list[Mapping[str, Any]] = [
        record for line in content.splitlines() if (record := _record(line)) is not None
    ]
    known = {record.get("round") for record in records}
    missing = [record for record in history if record["round"] not in known]
    if missing:
        records = sorted([*records, *missing], key=lambda record: record["round"])
    whole = "".join(map(_line, records)).encode()
    if missing or len(whole.splitlines()) != len(content.splitlines()):
        write_atomically(file, whole)


def last_record(file: Path) -> dict[str, Any] | None:
    """Return the last complete record of a file of JSON lines, reading only the file's end."""
    return next(iter(recent_records(file, 1)), None)


def recent_records(file: Path, count: int) -> list[dict[str, Any]]:
    """Return the last complete records of a file of JSON lines, latest first.

    Only the file's end is read (``LARGEST_RECORD`` bytes), so there may be fewer than ``count``.
    """
    found: list[dict[str, Any]] = []
    for line in reversed(_last_lines(file)):
        if (record := _record(line)) is None:
            continue
        found.append(record)
        if len(found) == count:
            break
    return found


def void_rounds(file: Path) -> tuple[int, ...]:
    """Return the numbers of the last rounds that gave nothing, rising; ``MOST_VOIDS`` at most."""
    records = recent_records(file, MOST_READ)
    found = {record["round"] for record in records if record.get("void") is not None}
    return tuple(sorted(found)[-MOST_VOIDS:])


def _line(record: Mapping[str, Any]) -> str:
    return f"{json.dumps(record)}\n"


def _record(line: bytes) -> dict[str, Any] | None:
    """Return a line's record; None for half a line: a crash cut it off, or reading began in it."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("round"), int) else None


def _last_lines(file: Path) -> list[bytes]:
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - LARGEST_RECORD))
            return stream.read().splitlines()
    except OSError:
        return []
