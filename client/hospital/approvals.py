"""The studies this hospital has approved, each with the roster that was pinned with it.

An approval is the coordinator's signed offer, kept exactly as a person approved it, with this
site's declared size. Later offers do not change it. Beside it lie the declared sizes with which the
study's first run opened.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from consilium.client.hospital.known_sizes import KnownSizes
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import Roster
from consilium.shared.enrolment.messages import DIGEST_BYTES, StudyOffer
from consilium.shared.enrolment.roster_version import RosterVersion
from consilium.shared.errors import ConsiliumError, PolicyError, SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.rounds.contents import check_size
from consilium.shared.secure_sum.messages import Declarations, declared_sizes
from consilium.shared.study.definition import Study, parse_study
from consilium.shared.wire.encoding import Message, Octets

SUFFIX = ".offer"
SIZES_SUFFIX = ".sizes"


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A study and its sites, as approved here.

    Attributes:
        study: the study.
        roster: the sites' identities, and their declared sizes if all were declared by then.
        sizes: the declared sizes known by now, in patients; in an approval this site's own is.
    """

    study: Study
    roster: Roster
    sizes: dict[str, int]


@dataclass(frozen=True, kw_only=True, repr=False)
class SizesOfRun(Message):
    """The declared sizes with which a study's first run opened."""

    kind: ClassVar[str] = "sizes-of-run"
    digest: Annotated[bytes, Octets(DIGEST_BYTES, DIGEST_BYTES)]
    declared: Declarations


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
            AuthenticationError: not signed by the pinned coordinator, or a size not by its site.
            StudyError: not a valid study, or a declared size that it does not allow.
            PolicyError: the roster does not list this site under its own identity.
        """
        study, roster = offer.check(self._coordinator)
        if self._site not in roster.members:
            raise PolicyError(
                f"study {study.name}: its roster does not list site {self._site[0]} with this "
                "site's identity; ask the coordinator to submit the study again"
            )
        sizes = offer.sizes
        for site, patients in sizes.items():
            check_size(study, site, patients)
        return Approval(study=study, roster=roster, sizes=sizes)

    def approve(self, offer: StudyOffer, declared: Declaration) -> Approval:
        """Store an offer as approved, with this site's size; it is on disk when this returns.

        Raises:
            ConsiliumError: as :meth:`check`.
        """
        mine = {self._site[0]: declared.to_bytes()}
        offer = replace(offer, declared={**offer.declared, **mine})
        approval = self.check(offer)
        write_atomically(self._file(approval.study.digest), offer.to_bytes(), mode=PRIVATE_FILE)
        return approval

    def replace_roster(self, offer: StudyOffer) -> Approval:
        """Put another roster in the place of the one approved; this site's size stays.

        Whether the hospital allows it has been checked; it is on disk when this returns.

        Raises:
            ConsiliumError: as :meth:`check`; or the study is not approved here.
        """
        digest = parse_study(offer.text.decode("utf-8", "replace"), where="offered").digest
        try:
            approved = StudyOffer.from_bytes(self._file(digest).read_bytes())
        except FileNotFoundError:
            raise _not_approved(digest) from None
        own = Declaration.from_bytes(approved.declared[self._site[0]])
        return self.approve(offer, own)

    def take_version(self, version: RosterVersion) -> Approval:
        """Put a version's sites in the place of those approved, with their sizes.

        That all have agreed to it has been checked; it is on disk when this returns.

        Raises:
            ConsiliumError: as :meth:`check`; or the study is not approved here.
        """
        try:
            approved = StudyOffer.from_bytes(self._file(version.study).read_bytes())
        except FileNotFoundError:
            raise _not_approved(version.study) from None
        offer = replace(
            approved, roster=version.members, declared=version.declared, signature=version.offer
        )
        approval = self.check(offer)
        write_atomically(self._file(version.study), offer.to_bytes(), mode=PRIVATE_FILE)
        return approval

    def known_sizes(self, approval: Approval) -> KnownSizes:
        """Return the memory of the approved study's declared sizes."""
        digest = approval.study.digest

        def write(roster: Roster) -> None:
            known = SizesOfRun(digest=digest, declared=declared_sizes(roster))
            write_atomically(self._file(digest, SIZES_SUFFIX), known.to_bytes(), mode=PRIVATE_FILE)

        return KnownSizes(approval.sizes, write)

    def withdraw(self, digest: bytes) -> None:
        """Take an approval back; the running site refuses the study from its next message on.

        Raises:
            SettingsError: the study was not approved.
        """
        try:
            self._file(digest).unlink()
        except FileNotFoundError:
            raise _not_approved(digest) from None

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
        if approval.study.digest != digest:
            return None
        return replace(approval, sizes={**self._sizes_of_run(digest), **approval.sizes})

    def digests(self) -> list[bytes]:
        """Return the digests of the studies approved here; no file is opened."""
        return sorted(bytes.fromhex(file.stem) for file in self._folder.glob(f"*{SUFFIX}"))

    def stamp(self, digest: bytes) -> tuple[int, int] | None:
        """Return a value that changes with each approval of the study; None if not approved."""
        try:
            found = self._file(digest).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino

    def __iter__(self) -> Iterator[Approval]:
        for digest in self.digests():
            found = self.find(digest)
            if found is not None:
                yield found

    def _sizes_of_run(self, digest: bytes) -> dict[str, int]:
        file = self._file(digest, SIZES_SUFFIX)
        try:
            known = SizesOfRun.from_bytes(file.read_bytes())
        except FileNotFoundError:
            return {}
        except ConsiliumError as error:
            raise SettingsError(f"{file}: is damaged ({error}); restore a backup") from error
        return {s: Declaration.from_bytes(data).patients for s, data in known.declared.items()}

    def _file(self, digest: bytes, suffix: str = SUFFIX) -> Path:
        return self._folder / f"{digest.hex()}{suffix}"


def _not_approved(digest: bytes) -> SettingsError:
    return SettingsError(f"study {digest.hex()[:16]} was not approved here")
