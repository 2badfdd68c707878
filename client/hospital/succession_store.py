"""Hospitals that came back under a new key, each with the proof that this site has accepted.

A proof is signed by the former identity, the recovery code and the new identity, so a file put here
by anybody proves what it says or is refused; the vouchers given for the former key then hold for
the new one.
"""

from collections.abc import Iterator
from pathlib import Path

from consilium.shared.enrolment.fingerprint import fingerprint
from consilium.shared.enrolment.recovery import Succession
from consilium.shared.errors import ConsiliumError, SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE, PRIVATE_FOLDER

SUFFIX = ".succession"


class SuccessionStore:
    """A folder with one file for each succession, named by the former identity."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, succession: Succession) -> None:
        """Store a succession that was verified; it is on disk when this returns."""
        self._folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        file = self._folder / f"{succession.binding.identity.hex()}{SUFFIX}"
        write_atomically(file, succession.to_bytes(), mode=PRIVATE_FILE)

    def fingerprints(self) -> dict[bytes, bytes]:
        """Return the former fingerprint by the one that took its place.

        Raises:
            SettingsError: a file is damaged, or proves nothing.
        """
        return {
            fingerprint(one.site, one.identity): fingerprint(one.site, one.binding.identity)
            for one in self
        }

    def __iter__(self) -> Iterator[Succession]:
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                succession = Succession.from_bytes(file.read_bytes())
                succession.check()
            except (OSError, ConsiliumError) as error:
                raise SettingsError(
                    f"{file}: is no proof of a hospital's new key ({error}); restore a backup, or "
                    "remove the file"
                ) from error
            yield succession
