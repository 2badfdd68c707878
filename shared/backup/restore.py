"""Restore of a state folder from a backup, unless it would forget what was spent since.

An older ledger does not know what was spent after the backup, and an older journal does not know
which rounds were masked. So a restore must know how far the log had come; see :func:`restore` and
docs/decisions/061-restoring-must-not-forget.md.
"""

import hashlib
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from consilium.shared.audit.check import check_log
from consilium.shared.audit.events import Restored
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.log import AuditLog
from consilium.shared.backup.create import MANIFEST, BackupManifest, Kind, file_digest
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError, AuthenticationError, SettingsError
from consilium.shared.files.permissions import PRIVATE_FILE, PRIVATE_FOLDER

IDENTITY = "identity.pem"
LARGEST_MANIFEST = 16 << 20


def restore(
    archive: Path,
    folder: Path,
    *,
    kind: Kind,
    version: str,
    newest: Sequence[AuditHead],
    close: Callable[[Path], object] | None = None,
) -> BackupManifest:
    """Put a state folder back, if it cannot forget anything that happened since the backup.

    Guarantee: afterwards the folder is as it was when the backup was made, with one more entry in
    its log, and this log continues all of ``newest``, or ``close`` has closed it; or nothing was
    changed.

    Args:
        archive: the backup.
        folder: where to; it must not exist, or be empty.
        kind: what the caller expects.
        version: of this build.
        newest: the last heads of this log that others have recorded. For a site one is required:
            every masked update carries the head that records its release, so if nobody has seen a
            later head than the backup's, no release is forgotten.
        close: called with the folder before it is in its place, if it may forget what was spent:
            makes sure that it cannot be spent again. Then ``newest`` is not asked for.

    Raises:
        SettingsError: the folder is in use, or the archive is damaged or of another kind.
        AuditError: the log in the archive does not verify, or releases were made after it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(
            f"restore {folder}: is not empty; its state may be newer than the backup. Look at it "
            "with 'audit verify', and move it away if it is damaged"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".restore-") as staging:
        place = Path(staging) / "state"
        place.mkdir(mode=PRIVATE_FOLDER)
        manifest, digest = _extract(archive, place)
        if manifest.kind != kind:
            raise SettingsError(
                f"restore {archive}: holds a {manifest.kind}'s state, not a {kind}'s; use "
                f"'consilium-{manifest.kind} restore'"
            )
        key = IdentityKey.from_pem((place / IDENTITY).read_bytes())
        _check_databases(place, archive)
        if (place / AUDIT_FILE).exists():
            if close is None:
                _check_nothing_is_forgotten(manifest, key, newest)
            _check_log(place / AUDIT_FILE, manifest, key, [] if close is not None else newest)
            log = AuditLog(place / AUDIT_FILE, owner=manifest.owner, key=key, version=version)
            log.append(Restored(manifest_digest=digest, made_at=manifest.made_at))
        if close is not None:
            close(place)
        if folder.exists():
            folder.rmdir()
        place.replace(folder)
    return manifest


def _extract(archive: Path, place: Path) -> tuple[BackupManifest, bytes]:
    """Unpack an archive, checking every file; return its manifest and the manifest's digest."""
    try:
        with tarfile.open(archive, "r:") as tar:
            member = tar.getmember(MANIFEST)
            stream = tar.extractfile(member)
            if stream is None or member.size > LARGEST_MANIFEST:
                raise ValueError("its manifest is not a file")
            content = stream.read()
            manifest = BackupManifest.from_bytes(content)
            for member in tar:
                if member.name == MANIFEST:
                    continue
                _extract_file(tar, member, manifest, place)
        missing = [name for name in manifest.files if not (place / name).is_file()]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
    except OSError as error:
        raise SettingsError(
            f"backup {archive}: cannot be read ({error.strerror or error}); check the path"
        ) from error
    except (tarfile.TarError, ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"backup {archive}: is damaged, cut off, or not a backup ({error}); use another one"
        ) from error
    return manifest, hashlib.sha256(content).digest()


def _extract_file(
    tar: tarfile.TarFile, member: tarfile.TarInfo, manifest: BackupManifest, place: Path
) -> None:
    source = tar.extractfile(member) if member.isreg() else None
    if source is None or member.name not in manifest.files:
        raise ValueError(f"{member.name[:64]!r} is not in the manifest")
    target = place / member.name
    target.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    target.touch(mode=PRIVATE_FILE, exist_ok=False)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())
    if file_digest(target) != manifest.files[member.name]:
        raise ValueError(f"{member.name} does not have the digest of the manifest")


def _check_databases(place: Path, archive: Path) -> None:
    for path in place.rglob("*.sqlite"):
        try:
            with closing(sqlite3.connect(path)) as connection:
                verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.Error as error:
            verdict = str(error)
        if verdict != "ok":
            raise SettingsError(
                f"backup {archive}: {path.name} is damaged ({verdict}); use another one"
            )


def _check_nothing_is_forgotten(
    manifest: BackupManifest, key: IdentityKey, newest: Sequence[AuditHead]
) -> None:
    if not newest and manifest.kind == "site":
        raise AuditError(
            "restore: without the last audit head that others have seen of this site, nobody can "
            "tell what was spent after the backup; ask the operator for 'consilium-coordinator "
            f"audit head {manifest.owner}' and another hospital for 'consilium-site audit head "
            f"{manifest.owner}', and give them with --head"
        )
    for head in newest:
        try:
            head.verify(manifest.owner, key.public)
        except AuthenticationError as error:
            raise AuditError(
                f"restore: {error}; ask for the head of site {manifest.owner}, or use the backup "
                "of the site whose head this is"
            ) from error
        if head.number > manifest.entries:
            raise AuditError(
                f"restore: the backup of {manifest.made_at} ends at entry {manifest.entries} of "
                f"the audit log, and others have seen entry {head.number}; the ledger in it would "
                "forget budget that was spent since. Use a newer backup, or give --write-off: then "
                "this hospital's whole lifetime budget counts as spent and it enrols anew"
            )


def _check_log(
    log: Path, manifest: BackupManifest, key: IdentityKey, anchors: Sequence[AuditHead]
) -> None:
    report = check_log(log, trusted=key.public, owner=manifest.owner, anchors=anchors)
    if report.finding is not None:
        raise AuditError(
            f"restore: the audit log in the backup does not verify ({report.finding}); use "
            "another backup"
        )
