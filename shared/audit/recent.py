"""The latest entries of an audit log, for pages; nothing is verified here."""

from pathlib import Path

from consilium.shared.audit.entry import AuditEntry
from consilium.shared.errors import AuditError

READ_BYTES = 1 << 20


def recent_entries(log: Path, count: int) -> list[AuditEntry]:
    """Return the last entries of a log, latest first, as far as its last MiB holds them."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - READ_BYTES))
            lines = stream.read().splitlines()
    except OSError:
        return []
    found: list[AuditEntry] = []
    for line in reversed(lines):
        try:
            found.append(AuditEntry.from_line(line + b"\n"))
        except AuditError:
            continue
        if len(found) == count:
            break
    return found
