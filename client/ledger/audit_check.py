"""Checks the privacy ledger against the audit log: each release must be in both."""

from pathlib import Path

from consilium.client.ledger.releases import Release, releases_charged
from consilium.client.ledger.store import Ledger
from consilium.shared.audit.site_record import SiteRecord, read_site_record

Place = tuple[bytes, int]


def disagreements(ledger: Ledger, log: Path) -> list[str]:
    """Return one sentence for each release that is in only one of the two.

    A release that is reserved but not confirmed may be missing in the log: after a crash between
    the two, its budget counts as spent though nothing left.

    Raises:
        AuditError: the log cannot be read.
        PrivacyError: the ledger cannot be read.
    """
    return disagreements_with(ledger, read_site_record(log))


def disagreements_with(ledger: Ledger, record: SiteRecord) -> list[str]:
    """As :func:`disagreements`, for a log that was read before."""
    recorded = {
        (release.released.study_hash, release.released.round): release
        for release in record.releases
        if release.released.epsilon is not None
    }
    carried = {(event.study_hash, event.round): event for event in record.carried}
    written_off = ledger.written_off()
    charged: dict[Place, list[Release]] = {}
    left: dict[Place, None] = {}
    for noted in ledger.entries():
        place = (noted.release.study_hash, noted.release.round)
        charged.setdefault(place, []).append(noted.release)
        if noted.confirmed and noted.number > written_off.upto:
            left[place] = None
    sentences = [
        f"the ledger has round {number} of run {study_hash.hex()[:16]} as released, and the audit "
        "log has no entry of it: the log is not the one of this ledger, or was cut"
        for study_hash, number in left
        if (study_hash, number) not in recorded and (study_hash, number) not in carried
    ]
    sentences += [
        f"the audit log has the budget that study {event.study} had spent under this hospital's "
        "former identity, and the ledger was never charged for it: the ledger is older than the log"
        for place, event in carried.items()
        if place not in charged
    ]
    for (study_hash, number), release in recorded.items():
        known = charged.get((study_hash, number), [])
        expected = releases_charged(release.charged) if release.charged is not None else known[:1]
        if not known or any(one not in known for one in expected):
            sentences.append(
                f"entry {release.number} of the audit log records a release in round {number} of "
                f"run {study_hash.hex()[:16]} that the ledger was never charged for: the ledger is "
                "older than the log"
            )
    return sentences
