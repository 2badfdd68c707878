"""Compares a site's four stores when it starts: ledger, journal, own parts of models, audit log.

They are four files, not one transaction. In a round a site writes, each step on disk before the
next:

1. ledger: the releases are reserved (reserved counts as spent);
2. journal: the round is claimed, with the entry at which the log then ended;
3. own part: saved, naming its round;
4. audit log: ``charged`` and ``released``, in one write; only then may anything leave;
5. ledger: the releases are confirmed.

So after a crash ledger, journal and own part may know of a round that the log does not know; what
was computed for it never left. A log that knows of a release the others lack, or a confirmed
release that the log lacks, is never the work of a crash: a file was lost or put back to an older
state. A state folder that was put back as a whole agrees with itself; the heads that others keep
tell it apart (:mod:`consilium.client.hospital.round_audit`).
"""

from collections.abc import Iterator

from consilium.client.hospital.budget_certificates import (
    BudgetCertificates,
    read_certificates,
    second_copy,
)
from consilium.client.hospital.folder import JOURNAL_FILE, LEDGER_FILE, SiteFolder
from consilium.client.hospital.peer_heads import FILE_NAME as HEADS_FILE
from consilium.client.hospital.round_audit import check_not_older
from consilium.client.ledger.audit_check import disagreements_with
from consilium.client.secure_sum.journal import LogEnd, RoundJournal
from consilium.shared.audit.events import Charged
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.reading import held_still
from consilium.shared.audit.site_record import SiteRecord, read_site_record
from consilium.shared.errors import AuditError, SettingsError

RECOVER = "run 'consilium-site recover', which writes it anew from the audit log"
RESTORE = "restore a newer backup, or run 'consilium-site write-off'"


def open_compared(folder: SiteFolder, approved: frozenset[bytes]) -> AuditLog:
    """Open the audit log of an enrolled site, if no store of the folder is older or missing.

    Nothing is made that is not there.

    Args:
        folder: the site's; the caller holds it.
        approved: digests of the studies approved here, whose own parts must be whole.

    Raises:
        AuditError: a store is missing, or older than another one; the sentence names it and what
            to do.
        PrivacyError, SettingsError: a store cannot be read.
    """
    check_log_is_there(folder)
    audit = open_audit(folder)
    for sentence in older_stores(folder, approved):
        raise AuditError(f"{folder.path}: {sentence}")
    if (folder.path / HEADS_FILE).exists():
        check_not_older(audit, folder.heads().newest(folder.identity().public))
    return audit


def check_log_is_there(folder: SiteFolder) -> None:
    """Refuse an enrolled site's folder that has no audit log and yet was used.

    A site that was killed while it enrolled has none, and nothing else.

    Raises:
        AuditError: the log is missing.
    """
    log = folder.path / AUDIT_FILE
    stores = (LEDGER_FILE, JOURNAL_FILE, HEADS_FILE)
    used = [folder.path / name for name in stores] + [*(folder.path / "approvals").glob("*")]
    if not log.exists() and any(path.exists() for path in used):
        raise AuditError(
            f"{log}: is missing, and this site was used, so there was one; nobody can tell what "
            f"was released since; {RESTORE}"
        )


def check_second_place(audit: AuditLog, certificates: BudgetCertificates | None) -> None:
    """Refuse a log that does not continue the newest certificate in the hospital's second place.

    So a folder that was put back as a whole is known for one before anybody is asked.

    Raises:
        OldStateError: the log is older, or another one.
        SettingsError: the certificate cannot be read.
        AuthenticationError: this site did not sign it.
    """
    if certificates is None or certificates.second_place is None:
        return
    site, identity = certificates.site, certificates.identity.public
    file = second_copy(certificates.second_place, site, identity)
    if file.exists():
        (kept,) = read_certificates(file)
        kept.check(site, identity)
        check_not_older(audit, AuditHead.from_bytes(kept.head))


def older_stores(folder: SiteFolder, approved: frozenset[bytes]) -> list[str]:
    """Return a sentence for whatever of the folder is older than another part of it, or missing.

    A site that answers meanwhile waits before it next records anything.

    Raises:
        AuditError: the log cannot be read; PrivacyError, SettingsError: another store.
    """
    try:
        with held_still(folder.path / AUDIT_FILE):
            return _older_than_each_other(folder, approved)
    except OSError as error:
        raise AuditError(
            f"{folder.path}: cannot be read ({error.strerror}); check who may"
        ) from error


def _older_than_each_other(folder: SiteFolder, approved: frozenset[bytes]) -> list[str]:
    journal = None
    if (folder.path / JOURNAL_FILE).exists():
        journal = RoundJournal(folder.path / JOURNAL_FILE)
    try:
        end = None if journal is None else journal.log_end()
        record = read_site_record(folder.path / AUDIT_FILE, [end.entry] if end is not None else [])
        return [
            *_older_log(end, record),
            *_older_ledger(folder, record),
            *_older_journal(journal, record),
            *_older_own_parts(folder, record, approved),
        ]
    finally:
        if journal is not None:
            journal.close()


def _older_log(end: LogEnd | None, record: SiteRecord) -> Iterator[str]:
    if end is not None and record.digests.get(end.entry) != end.digest:
        yield (
            f"{AUDIT_FILE} is older than {JOURNAL_FILE}, or another log: it has {record.entries} "
            f"entries, and the last round was claimed when it had come to entry {end.entry}; "
            f"{RESTORE}"
        )


def _older_ledger(folder: SiteFolder, record: SiteRecord) -> Iterator[str]:
    if (folder.path / LEDGER_FILE).exists():
        for sentence in disagreements_with(folder.ledger(folder.policy()), record):
            remedy = RECOVER if sentence.endswith("older than the log") else RESTORE
            yield f"{sentence}; {remedy}"
    elif record.carried or any(release.released.epsilon is not None for release in record.releases):
        yield f"{LEDGER_FILE} is missing, and the audit log records private releases; {RECOVER}"


def _older_journal(journal: RoundJournal | None, record: SiteRecord) -> Iterator[str]:
    if journal is None:
        if record.rounds:
            yield f"{JOURNAL_FILE} is missing, and the audit log records releases; {RECOVER}"
        return
    for run, number in record.rounds.items():
        if (known := journal.highest(run)) < number:
            yield (
                f"{JOURNAL_FILE} is older than the audit log: it knows of rounds up to {known} of "
                f"run {run.hex()[:16]}, and round {number} was released; {RECOVER}"
            )


def _older_own_parts(
    folder: SiteFolder, record: SiteRecord, approved: frozenset[bytes]
) -> Iterator[str]:
    for last, found in older_own_parts(folder, record, approved):
        yield (
            f"this site's own part of study {last.study} (folder 'personal') is {found}, and the "
            f"audit log records that of round {last.round}; restore the folder 'personal' from a "
            "backup, withdraw the study, or give that part up with 'consilium-site recover "
            "--begin-own-parts-anew'"
        )


def older_own_parts(
    folder: SiteFolder, record: SiteRecord, approved: frozenset[bytes]
) -> Iterator[tuple[Charged, str]]:
    """Yield what the log says of each own part that is not as it says, and what is found instead.

    The file may be of a later round than the log's last: after a crash between the two. Studies
    that are not approved any longer can do nothing with theirs and are passed over.
    """
    for run, last in record.own_parts.items():
        if last.study_digest not in approved:
            continue
        try:
            held = folder.personal().held(last.study_digest, run)
        except SettingsError:
            yield last, "damaged"
            continue
        if held is None:
            yield last, "missing"
        elif held.digest != last.own_part and held.round <= last.round:
            yield last, f"one of round {held.round} or another run"
