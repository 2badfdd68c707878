"""A study that has ended, put into one file, so that its folder need not be kept."""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from consilium.server.coordinator.folder import CoordinatorFolder, hold_lock
from consilium.server.coordinator.register import Submitted
from consilium.server.coordinator.round_records import RECORDS
from consilium.server.service.overview import roster_facts
from consilium.server.study.checkpoints import FILE_NAME as CHECKPOINT
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.reading import read_lines
from consilium.shared.enrolment.messages import roster_fingerprint
from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE

MARKER = "archived.json"
_REMOVED = (CHECKPOINT, "flower-run")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """What was written: SHA-256 of the file (hexadecimal), and the bytes freed in the folder."""

    digest: str
    freed: int


def archive_study(folder: CoordinatorFolder, study: Submitted, file: Path) -> Archive:
    """Write all of an ended study into a new tar file (mode 0600), then remove its bulk.

    The file holds the study, its roster, the rounds' records, the checkpoint with the model, and
    the audit log's lines that name the study. The rounds' records stay in the folder, too.

    Raises:
        SettingsError: the study has not ended, was archived before, or the file exists or cannot be
            written; nothing is removed then.
    """
    if study.open:
        raise SettingsError(f"study {study.name} is {study.state}; archive it once it has ended")
    if file.exists():
        raise SettingsError(f"{file}: exists; choose another name, nothing is overwritten")
    place = folder.study(study.digest)
    if (place / MARKER).exists():
        raise SettingsError(f"study {study.name}: was archived before; see {place / MARKER}")
    lock = hold_lock(place / "lock", refused=f"study {study.name} is being run")
    content = _packed(folder, study, place)
    digest = hashlib.sha256(content).hexdigest()
    try:
        write_atomically(file, content, mode=PRIVATE_FILE)
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise OSError(0, "it does not read back as it was written")
        marker = json.dumps({"file": str(file), "sha256": digest}).encode()
        write_atomically(place / MARKER, marker, mode=PRIVATE_FILE)
    except OSError as error:
        raise SettingsError(f"{file}: cannot be written ({error.strerror}); free space") from error
    freed = 0
    for name in _REMOVED:
        path = place / name
        if path.exists():
            freed += path.stat().st_size
            path.unlink()
    del lock  # held to the end
    return Archive(digest=digest, freed=freed)


def _packed(folder: CoordinatorFolder, study: Submitted, place: Path) -> bytes:
    """Return the archive."""
    roster = {
        "digest": study.digest.hex(),
        "roster": roster_fingerprint(study.roster),
        "sites": {site: identity.hex() for site, identity in study.roster.members},
        "declared": {site: one.patients for site, one in sorted(study.declared.items())},
        "state": study.state.value,
        **roster_facts(folder.register(), study),
    }
    named = study.digest.hex().encode()
    parts = {
        "study.toml": study.text,
        "roster.json": json.dumps(roster, indent=1).encode(),
        "audit.jsonl": b"".join(
            line for line in read_lines(folder.path / AUDIT_FILE) if named in line
        ),
    }
    for name in (RECORDS, CHECKPOINT):
        if (place / name).exists():
            parts[name] = (place / name).read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), PRIVATE_FILE
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()
