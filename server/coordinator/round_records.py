"""The records of a study's rounds as people read them: a JSON line each, in ``rounds.jsonl``."""

import json
from pathlib import Path
from typing import Any

from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.shared.enrolment.messages import MOST_VOIDS

LARGEST_RECORD = 1 << 20
RECORDS = "rounds.jsonl"
MOST_READ = 1000  # records, to find void rounds in


def rounds_file(folder: CoordinatorFolder, digest: bytes) -> Path:
    """Return the file with the records of a study's rounds, a JSON line for each."""
    return folder.path / "studies" / digest.hex() / RECORDS


def last_record(file: Path) -> dict[str, Any] | None:
    """Return the last complete record of a file of JSON lines, reading only the file's end."""
    return next(iter(recent_records(file, 1)), None)


def recent_records(file: Path, count: int) -> list[dict[str, Any]]:
    """Return the last complete records of a file of JSON lines, latest first.

    Only the file's end is read (``LARGEST_RECORD`` bytes), so there may be fewer than ``count``.
    """
    found: list[dict[str, Any]] = []
    for line in reversed(_last_lines(file)):
        try:
            record = json.loads(line)
        except ValueError:  # half a line: a crash cut it off, or reading began inside it
            continue
        if not isinstance(record, dict):
            break
        found.append(record)
        if len(found) == count:
            break
    return found


def void_rounds(file: Path) -> tuple[int, ...]:
    """Return the numbers of the last rounds that gave nothing, rising; ``MOST_VOIDS`` at most."""
    records = recent_records(file, MOST_READ)
    found = {record["round"] for record in records if record.get("void") is not None}
    return tuple(sorted(found)[-MOST_VOIDS:])


def _last_lines(file: Path) -> list[bytes]:
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - LARGEST_RECORD))
            return stream.read().splitlines()
    except OSError:
        return []
