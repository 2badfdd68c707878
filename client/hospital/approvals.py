"""The studies this hospital has approved, each with the roster that was pinned with it.

An approval is the coordinator's signed offer, kept exactly as a person approved it. Later offers
do not change it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from consilium.shared.crypto.keys import Roster
from consilium.shared.enrolment.messages import StudyOffer
from consilium.shared.errors import ConsiliumError, PolicyError, SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.study.definition import Study

SUFFIX = ".offer"


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A study and the identities of its sites, as approved here."""

    study: Study
    roster: Roster


class Approvals:
    """A folder of approvals, one file per study, named by the study's digest.

    Args:
        folder: where they lie.
        coordinator: the pinned coordinator's identity, which signed every offer.
        site: this site's name and identity; an offer whose roster does not list both is refused.
    """

    def __init__(self, folder: Path, coordinator: bytes, site: tuple[str, bytes]) -> None:
        self._folder, self._coordinator, self._site = folder, coordinator, site

    def check(self, offer: StudyOffer) -> Approval:
        """Validate an offer; return the approval that it would become.

        Raises:
            AuthenticationError: not signed by the pinned coordinator.
            StudyError: not a valid study.
            PolicyError: the roster does not list this site under its own identity.
        """
        study, roster = offer.check(self._coordinator)
        if self._site not in roster.members:
            raise PolicyError(
                f"study {study.name}: its roster does not list site {self._site[0]} with this "
                "site's identity; ask the coordinator to submit the study again"
            )
        return Approval(study=study, roster=roster)

    def approve(self, offer: StudyOffer) -> Approval:
        """Store an offer as approved; it is on disk when this returns."""
        approval = self.check(offer)
        write_atomically(self._file(approval.study.digest), offer.to_bytes(), mode=PRIVATE_FILE)
        return approval

    def withdraw(self, digest: bytes) -> None:
        """Take an approval back; the running site refuses the study from its next message on.

        Raises:
            SettingsError: the study was not approved.
        """
        try:
            self._file(digest).unlink()
        except FileNotFoundError:
            raise SettingsError(f"study {digest.hex()[:16]} was not approved here") from None

    def find(self, digest: bytes) -> Approval | None:
        """Return the approval of the study with this digest, or None.

        Raises:
            SettingsError: the file is damaged or from another coordinator.
        """
        file = self._file(digest)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            approval = self.check(StudyOffer.from_bytes(content))
        except ConsiliumError as error:
            raise SettingsError(
                f"{file}: is no approval of this site ({error}); approve the study again"
            ) from error
        return approval if approval.study.digest == digest else None

    def stamp(self, digest: bytes) -> tuple[int, int] | None:
        """Return a value that changes with each approval of the study; None if not approved."""
        try:
            found = self._file(digest).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino

    def __iter__(self) -> Iterator[Approval]:
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            found = self.find(bytes.fromhex(file.stem))
            if found is not None:
                yield found

    def _file(self, digest: bytes) -> Path:
        return self._folder / f"{digest.hex()}{SUFFIX}"
