"""A hospital's folder: keys that never leave it, approvals, ledger, journal and audit log.

::

    site.toml            the site's name, coordinator and records; the hospital edits it
    policy.toml          what this hospital allows; the hospital edits it
    identity.pem         Ed25519 identity, mode 0600
    node.pem             key for Flower's node authentication, mode 0600
    recovery.keys        public keys of the recovery code, which is on paper
    split.key            assigns patients to shards for good, mode 0600
    coordinator.msgpack  the coordinator as pinned at enrolment
    approvals/           approved studies, each with its roster and what its cohort was like; what
                         persons last decided
    web-users.json       who may sign in on the page, mode 0600
    models/              exported models that the page shows; people put them there
    successions/         hospitals that came back under a new key, with the proof
    vouchers/            who vouches for which hospital: this one, and others that it knows
    ledger.sqlite        the privacy budget
    journal.sqlite       rounds for which an update was masked
    heads.sqlite         how far the other sites' audit logs are known to have come
    personal/            the parts of studies' models that stay here, mode 0600
    audit.jsonl          the audit log; audit-0001.jsonl and on are its sealed segments
    notices.sqlite       notices to people, and what became of them
    last-refusal.json    why a message was refused last, in full; never sent
    logs/                of the running site, rotated
    decisions/           who was scored when at the bedside, if policy.toml has [decisions]
    cds-hooks.token      what an EHR shows to be answered, mode 0600
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from consilium.client.hospital.peer_heads import FILE_NAME as HEADS_FILE
from consilium.client.hospital.peer_heads import PeerHeads
from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.policy_file import FILE_NAME as POLICY_FILE
from consilium.client.hospital.policy_file import TEMPLATE as POLICY_TEMPLATE
from consilium.client.hospital.policy_file import read_policy
from consilium.client.hospital.round_audit import RoundAudit
from consilium.client.hospital.settings import FILE_NAME, TEMPLATE, SiteSettings
from consilium.client.hospital.state import SiteState
from consilium.client.hospital.succession_store import SuccessionStore
from consilium.client.hospital.voucher_store import VoucherStore
from consilium.client.ledger.store import Ledger
from consilium.client.secure_sum.journal import LogEnd, RoundJournal
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.keys import KEY_BYTES, IdentityKey
from consilium.shared.enrolment.messages import NODE_ID_BYTES
from consilium.shared.enrolment.recovery import RecoveryCode, RecoveryKeys
from consilium.shared.enrolment.site_names import require_site_name
from consilium.shared.errors import MessageError, SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE, PRIVATE_FOLDER
from consilium.shared.wire.encoding import SITE, Message, Octets, Text, Whole

LEDGER_FILE, JOURNAL_FILE = "ledger.sqlite", "journal.sqlite"
LOG_NAME = "site"  # of the running site's log, in logs/
RECOVERY_FILE, NEXT_NODE_KEY = "recovery.keys", "next-node.pem"
SECRET_FILES = ("identity.pem", "node.pem", "split.key")


@dataclass(frozen=True, kw_only=True, repr=False)
class Enrolment(Message):
    """What enrolment pinned: this site's name and node, and the inviting coordinator."""

    kind: ClassVar[str] = "enrolment"
    max_bytes: ClassVar[int] = 8192
    site: Annotated[str, SITE]
    node_id: Annotated[bytes, Octets(NODE_ID_BYTES, NODE_ID_BYTES)]
    host: Annotated[str, Text(253)]
    port: Annotated[int, Whole(1, 65535)]
    coordinator: Annotated[bytes, Octets(KEY_BYTES, KEY_BYTES)]
    authority: Annotated[bytes, Octets(1, 4096)]


@dataclass(frozen=True, kw_only=True)
class SiteFolder:
    """A folder that ``init`` has made."""

    path: Path

    @classmethod
    def make(cls, path: Path, *, site: str | None = None) -> "SiteFolder":
        """Make the folder and its keys; existing files are kept.

        Raises:
            SettingsError: it cannot be written, or a site cannot have this name.
        """
        if site is not None:
            require_site_name(site)
        folder = cls(path=path)
        try:
            for made in (path, path / "approvals"):
                made.mkdir(parents=True, exist_ok=True)
                made.chmod(PRIVATE_FOLDER)
            folder._keep("identity.pem", lambda: IdentityKey.generate().to_pem())
            folder._keep("node.pem", _new_node_key)
            folder._keep("split.key", lambda: secrets.token_bytes(32))
            named = f'site = "{site}"\n' if site else ""
            folder._keep(FILE_NAME, lambda: TEMPLATE.format(site=named).encode())
            folder._keep(POLICY_FILE, POLICY_TEMPLATE.encode)
        except OSError as error:
            raise SettingsError(
                f"{path}: cannot be written ({error.strerror}); choose another --folder"
            ) from error
        return folder

    @classmethod
    def open(cls, path: Path) -> "SiteFolder":
        """Open a folder that ``init`` made.

        Raises:
            SettingsError: a key is missing, or readable by others than its owner.
        """
        folder = cls(path=path)
        for name in SECRET_FILES:
            file = path / name
            try:
                mode = file.stat().st_mode
            except OSError:
                raise SettingsError(
                    f"{file}: is missing; run 'consilium-site init', or name the folder with "
                    "--folder"
                ) from None
            if mode & 0o077:
                raise SettingsError(
                    f"{file}: may be read by other accounts (mode {mode & 0o777:o}); "
                    f"run 'chmod 600 {file}' and consider the key known"
                )
        return folder

    @property
    def is_enrolled(self) -> bool:
        """Whether this site has enrolled; it may have been revoked since."""
        return (self.path / "coordinator.msgpack").exists()

    def settings(self) -> SiteSettings:
        """Return this site's settings, from ``site.toml``."""
        return SiteSettings.read(self.path)

    def policy(self) -> Policy:
        """Return what this hospital allows, from ``policy.toml``."""
        return read_policy(self.path)

    def owner(self) -> str:
        """Return this site's name, as enrolled.

        Raises:
            SettingsError: it is not enrolled.
        """
        return self.enrolment().site

    def identity(self) -> IdentityKey:
        """Return this site's identity."""
        return IdentityKey.from_pem((self.path / "identity.pem").read_bytes())

    def split_key(self) -> bytes:
        """Return the key that assigns this site's patients to shards."""
        return (self.path / "split.key").read_bytes()

    def node_key(self) -> ec.EllipticCurvePrivateKey:
        """Return this site's key for node authentication.

        Raises:
            SettingsError: the file is malformed.
        """
        return _read_node_key(self.path / "node.pem")

    def enrolling_node_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the node key to enrol with: the next one, if there is one.

        Raises:
            SettingsError: the file is malformed.
        """
        following = self.path / NEXT_NODE_KEY
        return _read_node_key(following) if following.exists() else self.node_key()

    def make_recovery_code(self, show: Callable[[RecoveryCode], None]) -> bool:
        """Make and show this site's recovery code and keep its public keys, if it has none yet.

        The code itself is kept nowhere. It is shown first: one that nobody saw would be no use, and
        while its keys were kept there could be no other.

        Args:
            show: shows the code to a person; if it raises, the site has no code.

        Returns:
            Whether a code was made.
        """
        if self.recovery_keys() is not None:
            return False
        code = RecoveryCode.generate(secrets.token_bytes)
        show(code)
        keys = code.endorse(self.identity().public)
        write_atomically(self.path / RECOVERY_FILE, keys.to_bytes(), mode=PRIVATE_FILE)
        return True

    def recovery_keys(self) -> RecoveryKeys | None:
        """Return the public keys of this site's recovery code; None if it has none.

        Raises:
            SettingsError: the file is damaged.
        """
        file = self.path / RECOVERY_FILE
        try:
            return RecoveryKeys.from_bytes(file.read_bytes())
        except FileNotFoundError:
            return None
        except MessageError as error:
            raise SettingsError(
                f"{file}: is damaged ({error}); remove it, and make a new code with "
                "'consilium-site recovery-code'"
            ) from error

    def take_split_key(self, key: bytes) -> None:
        """Assign patients to shards by this key (32 bytes), that of the lost machine."""
        write_atomically(self.path / "split.key", key, mode=PRIVATE_FILE)

    def renew_node_key(self) -> None:
        """Make the next node key, if there is none; the site uses it when it enrols again.

        A key that was shut out stays so for good, whoever holds it.
        """
        self._keep(NEXT_NODE_KEY, _new_node_key)

    def take_next_node_key(self) -> None:
        """Use the next node key from now on, if there is one."""
        if (self.path / NEXT_NODE_KEY).exists():
            (self.path / NEXT_NODE_KEY).replace(self.path / "node.pem")

    def enrolment(self) -> Enrolment:
        """Return what enrolment pinned.

        Raises:
            SettingsError: the site is not enrolled.
        """
        file = self.path / "coordinator.msgpack"
        try:
            return Enrolment.from_bytes(file.read_bytes())
        except OSError:
            raise SettingsError(
                f"{self.path}: this site is not enrolled; run 'consilium-site enroll TOKEN' with "
                "the coordinator's invitation"
            ) from None
        except MessageError as error:
            raise SettingsError(f"{file}: is damaged ({error}); restore a backup") from error

    def pin(self, enrolment: Enrolment) -> None:
        """Store what enrolment pinned."""
        write_atomically(self.path / "coordinator.msgpack", enrolment.to_bytes(), mode=PRIVATE_FILE)

    def vouchers(self) -> VoucherStore:
        """Return this site's vouchers and those it was given.

        Raises:
            SettingsError: the site is not enrolled.
        """
        return VoucherStore(
            self.path / "vouchers", self.owner(), self.identity(), self.successions().fingerprints
        )

    def successions(self) -> SuccessionStore:
        """Return the hospitals that came back under a new key, as this site has accepted it."""
        return SuccessionStore(self.path / "successions")

    def state(self, policy: Policy, audit: AuditLog) -> SiteState:
        """Open keys, ledger and journal, beside this site's audit log; nothing is compared here."""

        def log_end() -> LogEnd:
            head = audit.head()
            return LogEnd(entry=head.number, digest=head.digest)

        identity = self.identity()
        return SiteState(
            identity=identity,
            ledger=self.ledger(policy),
            journal=RoundJournal(self.path / JOURNAL_FILE, log_end),
            split_key=self.split_key(),
            personal=self.personal(),
            audit=RoundAudit(
                audit,
                identity=identity.public,
                coordinator=self.enrolment().coordinator,
                heads=self.heads(),
            ),
        )

    def ledger(self, policy: Policy) -> Ledger:
        """Return the privacy ledger."""
        return Ledger(
            self.path / LEDGER_FILE, lifetime_epsilon=policy.lifetime_epsilon, delta=policy.delta
        )

    def heads(self) -> PeerHeads:
        """Return what this site knows of the other sites' audit logs."""
        return PeerHeads(self.path / HEADS_FILE)

    def personal(self) -> PersonalStore:
        """Return the store of the parts of studies' models that stay at this site."""
        return PersonalStore(self.path / "personal")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Make this the only process that answers for this site, while the context is open.

        Raises:
            SettingsError: another process already does.
        """
        file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise SettingsError(
                    f"{self.path}: another process answers for this site; stop it first"
                ) from None
            yield
        finally:
            os.close(file)

    def _keep(self, name: str, make: Callable[[], bytes]) -> None:
        if not (self.path / name).exists():
            write_atomically(self.path / name, make(), mode=PRIVATE_FILE)


def _read_node_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"{file}: is not a node key; restore a backup")
    return key


def _new_node_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public key in the form in which Flower registers it."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
