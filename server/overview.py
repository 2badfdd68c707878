"""How the coordinator stands, from its folder alone: for ``watch``, ``status`` and the monitor.

Nothing in it is a single site's number: a site's presence and version, sums and totals.
"""

import json
import time
from pathlib import Path
from typing import Any

from server.coordinator_folder import CoordinatorFolder
from server.register import Register, Submitted
from shared.audit import FILE_NAME as AUDIT_FILE
from shared.audit_summary import summarise
from shared.enrolment import roster_fingerprint
from shared.errors import AuditError
from shared.version import VERSION

LARGEST_RECORD = 1 << 20


def overview(folder: CoordinatorFolder, register: Register) -> dict[str, Any]:
    """Return sites and studies: who is there, how far, what each waits for."""
    now = time.time()
    return {
        "version": VERSION,
        "certificate_ends": folder.certificates.expires().isoformat(),
        "sites": [
            {
                "site": member.name,
                "revoked": member.revoked is not None,
                "version": member.version,
                "seen_s_ago": None if member.seen is None else round(now - member.seen, 1),
                "identity": member.identity.hex(),
            }
            for member in register.members()
        ],
        "studies": [_study_overview(folder, study) for study in register.studies()],
    }


def status(folder: CoordinatorFolder, register: Register) -> dict[str, Any]:
    """Return the overview with what the audit log says: what ``status --json`` prints."""
    return overview(folder, register) | {"audit": _audit(folder.path / AUDIT_FILE)}


def _audit(log: Path) -> dict[str, Any] | None:
    if not log.exists():
        return None
    try:
        told = summarise(log)
    except AuditError as error:
        return {"error": str(error)}
    return {
        "entries": told.entries,
        "head": told.head.hex(),
        "last_at": told.last_at,
        "counts": told.counts,
        "site_entries": told.peers,
        "divergences": told.divergences,
        "last_refusal": told.refused
        and {
            "at": told.refused[0],
            "peer": told.refused[1].peer,
            "asked": told.refused[1].asked,
            "sentence": told.refused[1].sentence,
        },
    }


def _study_overview(folder: CoordinatorFolder, study: Submitted) -> dict[str, Any]:
    return {
        "study": study.name,
        "digest": study.digest.hex(),
        "state": study.state.value,
        "wanted": study.wanted.value,
        "detail": study.detail,
        "roster": roster_fingerprint(study.roster),
        "last_round": last_record(folder.path / "studies" / study.digest.hex() / "rounds.jsonl"),
    }


def last_record(file: Path) -> dict[str, Any] | None:
    """Return the last whole record of a file of JSON lines, reading its end only."""
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - LARGEST_RECORD))
            lines = stream.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:  # torn by a crash
            continue
        return record if isinstance(record, dict) else None
    return None
