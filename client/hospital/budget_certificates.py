"""Makes a budget certificate after each release and puts it where a lost machine is not.

One copy goes to the hospital's own second place, if ``site.toml`` names one, and one to the
coordinator. Both are sealed for the recovery code. A release leaves only after its certificate is
there, so the newest certificate knows of every release that anybody received.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path

from consilium.client.ledger.certificate import spent_budget, to_bytes
from consilium.client.ledger.store import Ledger
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.recovery import BudgetCertificate
from consilium.shared.errors import AuthenticationError, MessageError, ProtocolError, SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE

SUFFIX = ".certificate"

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class BudgetCertificates:
    """A site's certificates as they are made.

    Attributes:
        site: its name.
        identity: its key, which signs.
        seal: the recovery code's public key for which they are sealed (32 bytes).
        ledger: whose entries they hold.
        split_key: assigns patients to shards.
        second_place: the hospital's own folder for them, on another machine; None if it has none.
        send: hands one to the coordinator.
    """

    site: str
    identity: IdentityKey
    seal: bytes
    ledger: Ledger
    split_key: bytes
    second_place: Path | None
    send: Callable[[bytes], object]
    _left: BudgetCertificate | None = None
    _warned: str = ""

    def settle(self) -> None:
        """Put the last certificate where it could not be put before; called before a new charge.

        So an outage of the second place costs the budget of one round, not of each.

        Raises:
            SettingsError: the second place still cannot be written.
            UnreachableError: the coordinator cannot be reached.
        """
        if self._left is not None:
            self._put(self._left)

    def issue(self, head: bytes) -> None:
        """Certify what the ledger counts as spent, at this head of the audit log, encoded.

        Raises:
            SettingsError: the second place cannot be written, so the release must not leave.
            UnreachableError: the coordinator cannot be reached.
        """
        spent = spent_budget(
            self.ledger.entries(),
            self.ledger.written_off(),
            identity=self.identity.public,
            split_key=self.split_key,
        )
        self._left = BudgetCertificate.make(
            self.site, self.identity, head, to_bytes(spent), seal=self.seal, entropy=os.urandom
        )
        self._put(self._left)

    def _put(self, made: BudgetCertificate) -> None:
        content = made.to_bytes()
        if self.second_place is not None:
            file = second_copy(self.second_place, self.site, self.identity.public)
            try:
                if not self.second_place.is_dir():  # never made here: a mount may be missing
                    raise FileNotFoundError(ENOENT, "there is no such folder")
                write_atomically(file, content, mode=PRIVATE_FILE)
            except OSError as error:
                raise SettingsError(
                    f"{file}: cannot be written ({error.strerror}), and nothing is released "
                    "without a copy there; mend the second place, or change [recovery] "
                    "second_place in site.toml"
                ) from error
        try:
            self.send(content)
        except (ProtocolError, AuthenticationError) as error:  # it may refuse whatever is done
            if str(error) != self._warned:
                log.warning("the coordinator keeps no budget certificate of this site: %s", error)
                self._warned = str(error)
        self._left = None


def second_copy(folder: Path, site: str, identity: bytes) -> Path:
    """Return the file of this site's certificates in its second place."""
    return folder / f"{site}-{identity.hex()[:16]}{SUFFIX}"


def read_certificates(place: Path) -> list[BudgetCertificate]:
    """Return the certificates in a second place: a folder, or one file.

    Raises:
        SettingsError: it cannot be read, holds none, or one is damaged.
    """
    files = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else [place]
    try:
        found = [BudgetCertificate.from_bytes(file.read_bytes()) for file in files]
    except (OSError, MessageError) as error:
        raise SettingsError(
            f"{place}: holds no readable budget certificate ({error}); name the folder or file of "
            "the hospital's second place"
        ) from error
    if not found:
        raise SettingsError(f"{place}: holds no budget certificate; name the second place")
    return found
