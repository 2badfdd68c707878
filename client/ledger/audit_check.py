"""Checks the privacy ledger against the audit log: each release must be in both."""

from pathlib import Path

from consilium.client.ledger.store import Ledger
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import Released
from consilium.shared.audit.reading import read_lines
from consilium.shared.errors import AuditError


def disagreements(ledger: Ledger, log: Path) -> list[str]:
    """Return one sentence for each release that is in only one of the two.

    A release that is reserved but not confirmed may be missing in the log: after a crash between
    the two, its budget counts as spent though nothing left.

    Raises:
        AuditError: the log cannot be read.
        PrivacyError: the ledger cannot be read.
    """
    recorded: dict[tuple[bytes, int], int] = {}
    for line in read_lines(log):
        try:
            entry = AuditEntry.from_line(line)
        except AuditError:
            continue  # check_log reports it
        if isinstance(entry.event, Released) and entry.event.epsilon is not None:
            recorded[entry.event.study_hash, entry.event.round] = entry.number
    charged: dict[tuple[bytes, int], bool] = {}
    for noted in ledger.entries():
        release = noted.release
        place = (release.study_hash, release.round)
        charged[place] = charged.get(place, False) or noted.confirmed
    sentences = [
        f"the ledger has round {number} of run {study_hash.hex()[:16]} as released, and the audit "
        "log has no entry of it: the log is not the one of this ledger, or was cut"
        for (study_hash, number), confirmed in charged.items()
        if confirmed and (study_hash, number) not in recorded
    ]
    sentences += [
        f"entry {line} of the audit log records a release in round {number} of run "
        f"{study_hash.hex()[:16]} that the ledger was never charged for: the ledger is older than "
        "the log"
        for (study_hash, number), line in recorded.items()
        if (study_hash, number) not in charged
    ]
    return sentences
