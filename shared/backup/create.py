"""Backup of a state folder: databases, keys, approvals and the audit log in one file.

A backup is a tar file, mode 0600, whose last member is a manifest of all others' digests. It holds
the folder's secret keys: keep it as you keep them.

Order matters while the processes run: the audit log is copied first and the databases after it, so
that the copied ledger and journal know of every release in the copied log. A site's log is held
meanwhile: nothing is released that the copies could know of and the copied log could not.
"""

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from consilium.shared.audit.entry import AuditEntry, line_digest
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.reading import held_still, read_lines
from consilium.shared.audit.segments import is_same
from consilium.shared.errors import AuditError, SettingsError
from consilium.shared.files.permissions import PRIVATE_FILE

FORMAT = 1
MANIFEST = "manifest.json"
LEFT_OUT = ("lock", "metrics.prom")  # made anew by the processes
LEFT_OUT_ENDINGS = ("-wal", "-shm", "-journal")  # SQLite's own, whose content the copies hold
LEFT_OUT_FOLDERS = ("logs", "flower-run")

Kind = Literal["site", "coordinator"]


@dataclass(frozen=True, kw_only=True)
class BackupManifest:
    """What a backup holds.

    Attributes:
        kind: of the folder.
        owner: whose it is; a site's name, or ``coordinator``.
        version: of the build that made the backup.
        made_at: when, ISO 8601.
        entries: lines of the audit log; ``head`` is the digest of the last, hexadecimal.
        files: SHA-256 by path within the folder, hexadecimal.
    """

    kind: Kind
    owner: str
    version: str
    made_at: str
    entries: int
    head: str
    files: dict[str, str]

    def to_bytes(self) -> bytes:
        """The manifest as it stands in the archive."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "BackupManifest":
        """Read a manifest.

        Raises:
            ValueError, TypeError, KeyError: it is not one of this version.
        """
        plain: dict[str, Any] = json.loads(content)
        if plain.pop("format") != FORMAT:
            raise ValueError("of another format")
        found = cls(**plain)
        for path, digest in found.files.items():
            parts = PurePosixPath(path).parts
            if not parts or path.startswith("/") or ".." in parts or len(digest) != 64:
                raise ValueError("a path leads out of the folder")
        return found


def back_up(
    folder: Path,
    archive: Path,
    *,
    kind: Kind,
    owner: str,
    version: str,
    now: datetime | None = None,
) -> BackupManifest:
    """Write a consistent copy of a state folder, also while its processes run.

    Raises:
        SettingsError: the archive exists, or one of the two places cannot be used.
    """
    if archive.exists():
        raise SettingsError(
            f"backup {archive}: exists; choose another name, nothing is overwritten"
        )
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".backup-") as staging:
            partial = Path(staging) / "archive.tar"
            partial.touch(mode=PRIVATE_FILE)
            manifest = _write(folder, partial, Path(staging), kind, owner, version, now)
            partial.replace(archive)
    except (OSError, sqlite3.Error) as error:
        raise SettingsError(
            f"backup {archive}: could not be made ({error}); check the space there and that "
            f"{folder} can be read"
        ) from error
    return manifest


def _write(
    folder: Path,
    partial: Path,
    staging: Path,
    kind: Kind,
    owner: str,
    version: str,
    now: datetime | None,
) -> BackupManifest:
    files: dict[str, str] = {}
    entries, head = 0, bytes(32)
    log = folder / AUDIT_FILE
    double = {path.name for path in folder.glob("*.jsonl") if path != log and is_same(path, log)}
    held = held_still(log) if log.exists() else nullcontext()
    with tarfile.open(partial, "w") as tar, held:
        for path in _files(folder):
            if path.parent == folder and path.name in double:
                continue  # left by a crash amidst sealing
            name = path.relative_to(folder).as_posix()
            copy = staging / "copy"
            if path.suffix == ".sqlite":
                _copy_database(path, copy)
            elif path.name == AUDIT_FILE:
                entries, head = _copy_log(path, copy)
            else:
                try:
                    shutil.copyfile(path, copy)
                except FileNotFoundError:
                    continue  # a temporary file that was renamed since
            files[name] = file_digest(copy)
            info = tar.gettarinfo(copy, arcname=name)
            info.mode, info.uid, info.gid, info.uname, info.gname = PRIVATE_FILE, 0, 0, "", ""
            with copy.open("rb") as content:
                tar.addfile(info, content)
            copy.unlink()
        manifest = BackupManifest(
            kind=kind,
            owner=owner,
            version=version,
            made_at=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
            entries=entries,
            head=head.hex(),
            files=files,
        )
        text = manifest.to_bytes()
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(text), PRIVATE_FILE
        tar.addfile(info, io.BytesIO(text))
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    return manifest


def _files(folder: Path) -> Iterator[Path]:
    """Yield what belongs to the state: the audit log first, databases last."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and path.name not in LEFT_OUT
        and not path.name.startswith(".")
        and not path.name.endswith(LEFT_OUT_ENDINGS)
        and not set(path.relative_to(folder).parts[:-1]) & set(LEFT_OUT_FOLDERS)
    ]
    yield from sorted(found, key=lambda path: (path.name != AUDIT_FILE, path.suffix == ".sqlite"))


def _copy_database(path: Path, copy: Path) -> None:
    """Copy through SQLite, so that a transaction in progress is in it whole or not at all."""
    copy.touch(mode=PRIVATE_FILE)
    with (
        closing(sqlite3.connect(path, timeout=60.0)) as source,
        closing(sqlite3.connect(copy)) as to,
    ):
        source.backup(to)


def _copy_log(path: Path, copy: Path) -> tuple[int, bytes]:
    """Copy the lines that are complete now; return the last one's number and its digest.

    Sealed segments are files of their own and are copied as such.
    """
    last = b""
    with copy.open("wb") as to:
        for line in read_lines(path, sealed=False):
            if line.endswith(b"\n"):
                to.write(line)
                last = line
    try:
        return (AuditEntry.from_line(last).number if last else 0), line_digest(last)
    except AuditError as error:
        raise SettingsError(f"{path}: {error}; run 'audit verify'") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
