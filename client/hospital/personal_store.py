"""The part of a study's model that stays at the site: on disk, never in a message.

One file per run of sums, bound to the study's digest and that run, written atomically and readable
by the site's account only. Another roster makes another run of sums, with the same run identity: it
goes on from the file of the roster before. A site without a file (in its first round, or in a new
run) begins with what the coordinator sent.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE, PRIVATE_FOLDER
from consilium.shared.files.tensor_file import tensor_file

Array = NDArray[np.float64] | NDArray[np.float32]
Kept = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class HeldFile:
    """A run's file: SHA-256 of its content, and the round that wrote it."""

    digest: bytes
    round: int


class KeepsParts(Protocol):
    """Keeps a site's own part of a model from one round to the next."""

    def of_run(self, study_digest: bytes, study_hash: bytes, run_id: bytes) -> tuple[Kept, bytes]:
        """See :meth:`PersonalStore.of_run`."""

    def save(
        self, study_digest: bytes, study_hash: bytes, kept: Kept, *, round: int, run_id: bytes
    ) -> bytes:
        """See :meth:`PersonalStore.save`."""


class PersonalStore:
    """The files of one site.

    Args:
        folder: where they lie; created when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of_run(self, study_digest: bytes, study_hash: bytes, run_id: bytes) -> tuple[Kept, bytes]:
        """Return what a run begins its next round with, and SHA-256 of the run's own file.

        A run without a file begins with what the same run kept under another roster, and with
        nothing if there is no such file; the hash is empty then.

        Args:
            study_digest: the approved study's.
            study_hash: of the run of sums, which another roster changes.
            run_id: the run's identity, which no roster changes; empty if there is one roster.

        Raises:
            SettingsError: as :meth:`load`.
        """
        held = self.held(study_digest, study_hash)
        if held is not None:
            return self.load(study_digest, study_hash), held.digest
        return self.under_another_roster(study_digest, run_id) if run_id else {}, b""

    def load(self, study_digest: bytes, study_hash: bytes) -> Kept:
        """Return what is kept for a run, empty if nothing is.

        Raises:
            SettingsError: the file is damaged, or belongs to another study or run.
        """
        path = self._path(study_digest, study_hash)
        return _read(path, study_digest, study_hash) if path.exists() else {}

    def under_another_roster(self, study_digest: bytes, run_id: bytes) -> Kept:
        """Return what the same run last kept under another roster, empty if nothing is kept.

        Raises:
            SettingsError: a file of the study is damaged.
        """
        found: list[tuple[int, Path]] = []
        for path in self._files(study_digest):
            whose, _ = _open(path, tensors=False)
            if whose.get("run_id") == run_id.hex():
                found.append((_round(whose), path))
        return _read(max(found)[1], study_digest) if found else {}

    def latest(self, study_digest: bytes) -> Kept:
        """Return what the latest run of a study kept, empty if nothing is kept.

        Raises:
            SettingsError: as :meth:`load`.
        """
        found = self._files(study_digest)
        if not found:
            return {}
        return _read(max(found, key=lambda path: path.stat().st_mtime_ns), study_digest)

    def held(self, study_digest: bytes, study_hash: bytes) -> HeldFile | None:
        """Return which file is kept for a run, None if there is none.

        Raises:
            SettingsError: the file is damaged.
        """
        path = self._path(study_digest, study_hash)
        if not path.exists():
            return None
        whose, _ = _open(path, tensors=False)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        return HeldFile(digest=digest, round=_round(whose))

    def save(
        self,
        study_digest: bytes,
        study_hash: bytes,
        kept: Kept,
        *,
        round: int = 0,
        run_id: bytes = b"",
    ) -> bytes:
        """Replace what is kept for a run; return SHA-256 of the file, which names the round.

        ``run_id`` is the run's identity under all its rosters.

        Raises:
            SettingsError: it cannot be written; the old file stays as it was.
        """
        path = self._path(study_digest, study_hash)
        whose = {
            "study_digest": study_digest.hex(),
            "study_hash": study_hash.hex(),
            "round": str(round),
            "run_id": run_id.hex(),
        }
        digest = hashlib.sha256()

        def hashed(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
            for piece in pieces:
                digest.update(piece)
                yield piece

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(PRIVATE_FOLDER)
            write_atomically(path, hashed(tensor_file(kept, whose)), mode=PRIVATE_FILE)
        except OSError as error:
            raise SettingsError(
                f"this site's own part of the model cannot be written to {self._folder} "
                f"({error.strerror}); make room there, or make it writable for the site's account"
            ) from error
        return digest.digest()

    def remove(self, study_digest: bytes, study_hash: bytes) -> None:
        """Remove what is kept for a run, if anything is."""
        self._path(study_digest, study_hash).unlink(missing_ok=True)

    def _files(self, study_digest: bytes) -> list[Path]:
        return list(self._folder.glob(f"{study_digest.hex()}-*.safetensors"))

    def _path(self, study_digest: bytes, study_hash: bytes) -> Path:
        return self._folder / f"{study_digest.hex()}-{study_hash.hex()}.safetensors"


def _open(path: Path, *, tensors: bool) -> tuple[dict[str, str], Kept]:
    """Return a file's metadata, and its arrays if they are wanted."""
    try:
        with safe_open(path, framework="np") as opened:
            names = opened.keys() if tensors else ()
            return opened.metadata() or {}, {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise SettingsError(
            f"{path}: cannot be read as this site's own part of a model; restore it from a backup, "
            "or give it up with 'consilium-site recover --begin-own-parts-anew'"
        ) from error


def _round(whose: Mapping[str, str]) -> int:
    written = whose.get("round", "0")
    return int(written) if written.isdecimal() else 0


def _read(path: Path, study_digest: bytes, study_hash: bytes | None = None) -> Kept:
    whose, kept = _open(path, tensors=True)
    expected = {"study_digest": study_digest.hex()}
    if study_hash is not None:
        expected["study_hash"] = study_hash.hex()
    if any(whose.get(name) != value for name, value in expected.items()):
        raise SettingsError(
            f"{path}: holds this site's own part of another study or run than its name says; "
            "restore it from a backup, or give it up with 'consilium-site recover "
            "--begin-own-parts-anew'"
        )
    return kept
