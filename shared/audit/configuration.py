"""Notes in the audit log, when a process starts, which settings and policy files have changed."""

import hashlib
from collections.abc import Collection
from pathlib import Path

from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import ConfigurationChanged
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import read_lines
from consilium.shared.errors import AuditError

NO_FILE = bytes(32)


def note_configuration(log: AuditLog, folder: Path, files: Collection[str]) -> tuple[str, ...]:
    """Record which of a folder's files differ from what the log last recorded; return their names.

    Raises:
        AuditError: the log cannot be read or written.
    """
    known = dict.fromkeys(files, NO_FILE)
    for line in read_lines(log.path):
        try:
            event = AuditEntry.from_line(line).event
        except AuditError:
            continue  # check_log names it
        if isinstance(event, ConfigurationChanged) and event.file in known:
            known[event.file] = event.after
    now = {name: _digest(folder / name) for name in known}
    changed = [
        ConfigurationChanged(file=name, before=known[name], after=now[name])
        for name in known
        if known[name] != now[name]
    ]
    if changed:
        log.append(*changed)
    return tuple(event.file for event in changed)


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return NO_FILE
