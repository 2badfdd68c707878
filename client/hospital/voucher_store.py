"""The vouchers in a hospital's folder: its own list, and lists that other hospitals gave it.

One file a hospital, named by it, each a signed list. A newer list of a hospital takes the place of
the older one; an older one is refused, so that nobody can bring back what a hospital has withdrawn.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from consilium.client.hospital.roster_trust import RosterTrust
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.fingerprint import to_hex
from consilium.shared.enrolment.vouchers import Vouchers
from consilium.shared.errors import (
    AuthenticationError,
    MessageError,
    PolicyError,
    SettingsError,
)
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE, PRIVATE_FOLDER

SUFFIX = ".vouchers"
Recorded = Callable[[], object]
"""Writes the audit entry of a change; called before the change is on disk."""


class VoucherStore:
    """A folder of signed lists; where there is no folder yet, nobody is vouched for.

    Args:
        folder: where they lie.
        site: this site's name.
        key: its identity, which signs its own list.
        succeeded: returns the fingerprints that took the place of others, by the new one.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        site: str,
        key: IdentityKey,
        succeeded: Callable[[], Mapping[bytes, bytes]] = dict,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.site, self.key = folder, site, key
        self._clock, self._succeeded = clock, succeeded
        self._known: dict[Path, tuple[tuple[int, int], Vouchers]] = {}

    def trust(self) -> RosterTrust:
        """Return what this hospital knows of others.

        Raises:
            SettingsError: a file is damaged, or not signed by the hospital that it names.
        """
        given = {file.name.removesuffix(SUFFIX): self._read(file) for file in self._files()}
        own = given.pop(self.site, None)
        return RosterTrust(
            site=self.site,
            own=own.fingerprints if own else {},
            given=given,
            succeeded=self._succeeded(),
        )

    def own_list(self) -> Vouchers | None:
        """Return this hospital's own list, to be given to others; None if it vouches for none yet.

        Raises:
            SettingsError: the file is damaged, or not signed by this site.
        """
        file = self._file(self.site)
        return self._read(file) if file.exists() else None

    def vouch(self, hospital: str, print_: bytes, *, recorded: Recorded) -> bool:
        """Pin another hospital's fingerprint (16 bytes); return False if it is pinned already.

        Raises:
            SettingsError: it is this site itself, or another fingerprint is pinned.
        """
        with self._changing() as fingerprints:
            known = fingerprints.get(hospital)
            if hospital == self.site:
                raise SettingsError(f"{hospital} is this site; vouch for other hospitals")
            if known == print_:
                return False
            if known is not None:
                raise SettingsError(
                    f"{hospital} is vouched for with another fingerprint, {to_hex(known)}; if its "
                    f"key has truly changed, run 'consilium-site vouch --withdraw {hospital}' first"
                )
            recorded()
            fingerprints[hospital] = print_
        return True

    def withdraw(self, hospital: str, *, recorded: Callable[[bytes], object]) -> None:
        """Vouch for a hospital no longer; ``recorded`` is called with its fingerprint.

        Raises:
            SettingsError: it was not vouched for.
        """
        with self._changing() as fingerprints:
            if hospital not in fingerprints:
                raise SettingsError(f"{hospital} is not vouched for by this site")
            recorded(fingerprints[hospital])
            del fingerprints[hospital]

    def take(self, content: bytes, *, recorded: Callable[[Vouchers], object]) -> Vouchers:
        """Store the list that another hospital gave us, in place of its older one.

        Raises:
            SettingsError: no list of vouchers, our own, or older than the one that is here.
            AuthenticationError: altered, or signed by another key than the one checked here.
            PolicyError: this hospital has not checked the hospital that signed it.
        """
        given = _parse(content, "the file")
        given.check()
        if given.site == self.site:
            raise SettingsError("these are this site's own vouchers; import those of others")
        with self._locked():
            self._check_signer(given)
            file = self._file(given.site)
            known = self._read(file) if file.exists() else None
            if known is None or known.to_bytes() != content:
                if known is not None and known.issued >= given.issued:
                    raise SettingsError(
                        f"these vouchers of {given.site} are older than those that are here, or of "
                        "the same moment and different; ask it for its latest"
                    )
                recorded(given)
                write_atomically(file, content, mode=PRIVATE_FILE)
        return given

    def _check_signer(self, given: Vouchers) -> None:
        checked = self.trust().own.get(given.site)
        if checked is None:
            raise PolicyError(
                f"{given.site} is not vouched for by this site, so its word does not count; check "
                f"its fingerprint by telephone and run 'consilium-site vouch {given.site} "
                "FINGERPRINT' first"
            )
        if checked != given.signer:
            raise AuthenticationError(
                f"these vouchers are signed by another key than the one this site checked for "
                f"{given.site}; telephone it before you believe them"
            )

    @contextmanager
    def _changing(self) -> Iterator[dict[str, bytes]]:
        """Yield the own list to be changed; sign and write it if it was."""
        with self._locked():
            before = self.own_list()
            fingerprints = dict(before.fingerprints) if before else {}
            yield fingerprints
            if fingerprints == (before.fingerprints if before else {}):
                return
            issued = max(int(self._clock()), before.issued + 1 if before else 0)
            signed = Vouchers.signed(self.site, self.key, fingerprints, issued=issued)
            write_atomically(self._file(self.site), signed.to_bytes(), mode=PRIVATE_FILE)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process change the lists meanwhile.

        Raises:
            SettingsError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            handle = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SettingsError(
                f"{self.folder}: cannot be written ({error.strerror}); run this under the account "
                "that owns the site's folder"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _read(self, file: Path) -> Vouchers:
        """Return a list, verified; a file that has not changed since is not read again."""
        found = file.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        known = self._known.get(file)
        if known is None or known[0] != stamp:
            known = self._known[file] = (stamp, self._verified(file))
        return known[1]

    def _verified(self, file: Path) -> Vouchers:
        site = file.name.removesuffix(SUFFIX)
        given = _parse(file.read_bytes(), str(file))
        try:
            given.check()
        except AuthenticationError as error:
            raise SettingsError(f"{file}: {error}") from None
        if given.site != site or (site == self.site and given.identity != self.key.public):
            raise SettingsError(
                f"{file}: holds the vouchers of another hospital or key than it is named after; "
                "remove it, and vouch or import again"
            )
        return given

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def _file(self, site: str) -> Path:
        return self.folder / f"{site}{SUFFIX}"


def _parse(content: bytes, what: str) -> Vouchers:
    try:
        return Vouchers.from_bytes(content)
    except MessageError as error:
        raise SettingsError(
            f"{what}: holds no vouchers ({error}); take what 'consilium-site vouch --export' wrote"
        ) from None
