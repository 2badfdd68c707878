"""What a hospital does about a lost or older store: write it anew from the log, or write it off."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from consilium.client.hospital.folder import (
    JOURNAL_FILE,
    LEDGER_FILE,
    RECOVERY_FILE,
    SiteFolder,
)
from consilium.client.hospital.peer_heads import FILE_NAME as HEADS_FILE
from consilium.client.hospital.stores import check_log_is_there, older_own_parts, older_stores
from consilium.client.ledger.certificate import SpentBudget, carried_release
from consilium.client.ledger.releases import WriteOff, releases_charged
from consilium.client.ledger.store import Ledger
from consilium.client.secure_sum.journal import RoundJournal
from consilium.shared.audit.check import check_log
from consilium.shared.audit.events import AuditEvent, Mended, OwnPartGivenUp
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.segments import segments
from consilium.shared.audit.site_record import SiteRecord, read_site_record
from consilium.shared.errors import AuditError, SettingsError
from consilium.shared.files.permissions import PRIVATE_FOLDER

_OF_THE_OLD_SITE = (
    "coordinator.msgpack",
    "approvals",
    JOURNAL_FILE,
    HEADS_FILE,
    AUDIT_FILE,
)
_KEYS = ("identity.pem", "node.pem", RECOVERY_FILE)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What was made good from the log: releases charged, runs claimed, own parts given up."""

    releases: int
    runs: int
    own_parts: int


def recover(
    folder: SiteFolder, approved: frozenset[bytes], *, begin_own_parts_anew: bool
) -> Recovered:
    """Bring ledger and journal up to what the audit log records; both can only grow by it.

    Guarantee: afterwards every release in the log is charged and its round claimed, and the stores
    agree, or this raises.

    Args:
        folder: the site's; the caller holds it.
        approved: digests of the studies approved here.
        begin_own_parts_anew: give up own parts of models that are lost or older than the log says.

    Raises:
        AuditError: the log is missing, does not verify, or is itself older than another store; or a
            release in it was recorded by a version that did not record what it cost.
    """
    check_log_is_there(folder)
    audit = open_audit(folder)
    own = folder.heads().newest(folder.identity().public)
    report = check_log(
        audit.path,
        trusted=folder.identity().public,
        owner=audit.owner,
        anchors=[own] if own is not None else [],
    )
    if report.finding is not None:
        raise AuditError(
            f"audit log {audit.path}: {report.finding}; nothing can be written anew from it: "
            "restore a newer backup, or run 'consilium-site write-off'"
        )
    record = read_site_record(audit.path)
    releases, runs = _charge_again(folder, record), _claim_again(folder, record)
    given_up: list[AuditEvent] = []
    if begin_own_parts_anew:
        given_up = _lost_own_parts(folder, record, approved)
    events = [*given_up, *([Mended(releases=releases, runs=runs)] if releases or runs else [])]
    if events:
        audit.append(*events)
    for sentence in older_stores(folder, approved):
        raise AuditError(f"{folder.path}: {sentence}")
    return Recovered(releases=releases, runs=runs, own_parts=len(given_up))


def write_off(folder: SiteFolder) -> tuple[WriteOff, Path]:
    """Close a state that may not know everything that was spent, and begin as a new site.

    The ledger counts the whole lifetime budget as spent and closes every study in it. Keys,
    enrolment, approvals, journal and log of the old site are put aside or destroyed, so that it can
    take part in none of its runs again; the hospital enrols anew.

    Args:
        folder: the site's; the caller holds it.

    Returns:
        The write-off, and the folder that holds what was put aside.

    Raises:
        SettingsError: the folder cannot be written.
    """
    written_off = folder.ledger(folder.policy()).write_off()
    RoundJournal(folder.path / JOURNAL_FILE).close()  # which brings its write-ahead log into it
    number = 1
    while (aside := folder.path / f"written-off-{number}").exists():
        number += 1
    try:
        aside.mkdir(mode=PRIVATE_FOLDER)
        sealed = [segment.name for segment in segments(folder.path / AUDIT_FILE)]
        for name in (*sealed, *_OF_THE_OLD_SITE):
            if (folder.path / name).exists():
                shutil.move(folder.path / name, aside / f"old-{name}")
        for name in _KEYS:
            (folder.path / name).unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{folder.path}: cannot be written ({error.strerror}); make room there, and run "
            "'consilium-site write-off' again"
        ) from error
    SiteFolder.make(folder.path)
    return written_off, aside


def _charge_again(folder: SiteFolder, record: SiteRecord) -> int:
    """Charge the ledger for every release of the log that it lacks; return how many it lacked."""
    private = [entry for entry in record.releases if entry.released.epsilon is not None]
    spent = private or record.carried or record.written_off
    if not spent and not (folder.path / LEDGER_FILE).exists():
        return 0
    ledger = folder.ledger(folder.policy())
    known = {(entry.release.study_hash, entry.release.round) for entry in ledger.entries()}
    missing = _carry_again(ledger, record)
    for entry in private:
        charged = entry.charged
        if charged is None or charged.study_epsilon is None or charged.study_delta is None:
            if (entry.released.study_hash, entry.released.round) in known:
                continue
            raise AuditError(
                f"entry {entry.number} of the audit log does not say what its release cost, so the "
                "ledger cannot be charged for it; restore a newer backup, or run 'consilium-site "
                "write-off'"
            )
        for release in releases_charged(charged):
            missing += ledger.charge_again(
                release, study_epsilon=charged.study_epsilon, study_delta=charged.study_delta
            )
    return missing


def _carry_again(ledger: Ledger, record: SiteRecord) -> int:
    """Enter what was spent under a former identity, if none of it is there yet."""
    noted = {(entry.release.study_hash, entry.release.round) for entry in ledger.entries()}
    if noted or not (record.carried or record.written_off):
        return 0
    releases = tuple(map(carried_release, record.carried))
    spent = SpentBudget(releases=releases, written_off=record.written_off, split_key=b"")
    return ledger.carry(spent)


def _claim_again(folder: SiteFolder, record: SiteRecord) -> int:
    if not record.rounds:
        return 0
    journal = RoundJournal(folder.path / JOURNAL_FILE)
    claimed = sum(journal.raise_to(run, number) for run, number in record.rounds.items())
    journal.close()
    return claimed


def _lost_own_parts(
    folder: SiteFolder, record: SiteRecord, approved: frozenset[bytes]
) -> list[AuditEvent]:
    """Remove what is not as the log says; return the entries that say so."""
    given_up: list[AuditEvent] = []
    for last, _ in older_own_parts(folder, record, approved):
        folder.personal().remove(last.study_digest, last.study_hash)
        given_up.append(
            OwnPartGivenUp(
                study_digest=last.study_digest,
                study_hash=last.study_hash,
                own_part=last.own_part,
            )
        )
    return given_up
