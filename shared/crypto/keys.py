"""Identities, key agreement, key derivation and sealing.

Ed25519 identifies a site for years, X25519 keys live for a round at most, HKDF-SHA256 derives
every symmetric key, and :mod:`consilium.shared.crypto.boxes` seals with AES-256-GCM.
Secret objects here print nothing, compare by identity and refuse to be pickled or copied.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Never, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from consilium.shared.crypto.declaration import Declaration, size_statement
from consilium.shared.crypto.transcript import Encodable, encode
from consilium.shared.errors import AuthenticationError, SettingsError, StudyError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
NONCE_BYTES = 12

_P = 2**255 - 19
_LOW_ORDER_X25519 = frozenset(
    value.to_bytes(KEY_BYTES, "little")
    for value in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
        _P,  # zero again
        _P + 1,  # one again
    )
)
"""Every encoding of a point of order 1, 2, 4 or 8, with the top bit, which is ignored, cleared."""

_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})
"""The y coordinate of all eight Ed25519 points of order 1, 2, 4 or 8."""

_SHA256 = hashes.SHA256()

SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Entropy = Callable[[int], bytes]
"""A source of that many unpredictable bytes: `os.urandom`, but in test vectors."""


class Secret:
    """Base of objects that hold a secret: no printing, no pickling, no copying."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, secret>"

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError(f"{type(self).__name__} holds a secret and is never pickled or copied")


class IdentityKey(Secret):
    """A site's long-lived Ed25519 key; `public` is what the study's roster pins (32 bytes)."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "IdentityKey":
        """A fresh key from the operating system's source."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "IdentityKey":
        """The key of a 32-byte secret seed."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_pem(cls, pem: bytes) -> "IdentityKey":
        """Read an unencrypted PKCS #8 PEM file's contents.

        Raises:
            SettingsError: not an Ed25519 private key.
        """
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise SettingsError(
                "the site's identity file is not an unencrypted Ed25519 key in PEM form; "
                "restore it from the backup or enrol the site again"
            )
        return cls(private)

    def to_pem(self) -> bytes:
        """PKCS #8 PEM for a file that only the site's own account may read (mode 0600)."""
        return self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, statement: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self._private.sign(statement)


@dataclass(frozen=True)
class Roster:
    """The study's sites in order, each with its Ed25519 identity (32 bytes) and declared size.

    ``declared`` is in the order of ``members``, and empty until every site has declared its size.

    Raises:
        StudyError: a malformed or repeated name; an identity that is malformed, repeated, or of low
            order; or sizes that are not one for each site.
    """

    members: tuple[tuple[str, bytes], ...]
    declared: tuple[Declaration, ...] = ()

    def __post_init__(self) -> None:
        if len(self.declared) not in (0, len(self.members)):
            raise StudyError(
                f"{len(self.declared)} sizes are declared for {len(self.members)} sites; the "
                "roster needs one for each"
            )
        for site, identity in self.members:
            if not SITE_NAME.fullmatch(site):
                raise StudyError(
                    f"site name {site!r} in the roster is not 1 to 64 letters, digits, dots, "
                    "dashes or underscores; rename the site"
                )
            if len(identity) != KEY_BYTES:
                raise StudyError(
                    f"the roster's identity of {site} has {len(identity)} bytes, not {KEY_BYTES}; "
                    "ask the site for its public identity"
                )
            check_identity(identity, f"the roster's identity of {site}")
        for what, values in (("name", self._positions), ("identity", self._identities)):
            if len(values) != len(self.members):
                raise StudyError(f"two sites of the roster have the same {what}; list each once")

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {site: position for position, (site, _) in enumerate(self.members)}

    @cached_property
    def _identities(self) -> dict[bytes, str]:
        return {identity: site for site, identity in self.members}

    @cached_property
    def _verifiers(self) -> dict[str, Ed25519PublicKey]:
        return {site: Ed25519PublicKey.from_public_bytes(key) for site, key in self.members}

    @property
    def names(self) -> tuple[str, ...]:
        """The sites' names in the roster's order."""
        return tuple(site for site, _ in self.members)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Each site's declared size in patients, in the roster's order; empty before they are."""
        declared = zip(self.names, self.declared, strict=bool(self.declared))
        return {site: declaration.patients for site, declaration in declared}

    @property
    def largest_size(self) -> int:
        """The largest declared size, in patients.

        Raises:
            StudyError: the sizes are not declared yet.
        """
        if not self.declared:
            raise StudyError("the roster's sites have not all declared their sizes yet")
        return max(self.sizes.values())

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, site: object) -> bool:
        return site in self._positions

    def position(self, site: str) -> int:
        """Zero-based place of the site in the roster.

        Raises:
            AuthenticationError: the site is not in the roster.
        """
        if site not in self._positions:
            raise AuthenticationError(
                f"site {site!r} is not one of the {len(self)} in the study's roster"
            )
        return self._positions[site]

    def restricted_to(self, sites: Iterable[str]) -> "Roster":
        """The roster of these sites alone, in the same order."""
        kept = frozenset(sites)
        return Roster(
            tuple(member for member in self.members if member[0] in kept),
            tuple(
                size for site, size in zip(self.names, self.declared, strict=False) if site in kept
            ),
        )

    def with_declared(self, declared: Mapping[str, Declaration], study_digest: bytes) -> Self:
        """Return this roster with these declared sizes, each verified.

        Raises:
            StudyError: not one for each site of the roster.
            AuthenticationError: a size is not signed by its site for this study.
        """
        given = tuple(declared[site] for site in self.names if site in declared)
        if len(given) != len(self) or len(declared) != len(self):
            raise StudyError(
                f"{len(declared)} sizes are declared for {len(self)} sites; the roster is final "
                "when every site has declared its size"
            )
        if given != self.declared:
            for site, size in zip(self.names, given, strict=True):
                statement = size_statement(study_digest, site, size.patients)
                self.verify(site, statement, size.signature, "the declared size")
        return replace(self, declared=given)

    def verify(self, site: str, statement: bytes, signature: bytes, what: str) -> None:
        """Check that the site's identity signed the statement; `what` names it in the error.

        Raises:
            AuthenticationError: an unknown site or a wrong signature.
        """
        self.position(site)
        try:
            self._verifiers[site].verify(signature, statement)
        except InvalidSignature:
            raise AuthenticationError(
                f"the signature on {what} of site {site} does not verify against the roster"
            ) from None


class ExchangeKey(Secret):
    """An X25519 key pair; `public` has 32 bytes."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def shared_secret(self, peer: bytes) -> bytes:
        """Diffie-Hellman with a peer's 32-byte public key.

        Raises:
            AuthenticationError: the peer's key is one of the low-order points.
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError:
            raise AuthenticationError(
                "a peer's X25519 key is a low-order point, which no honest site makes"
            ) from None


def is_low_order(public: bytes) -> bool:
    """Whether 32 bytes encode an X25519 point of low order, also in a way no library writes.

    With such a key every shared secret is zero (RFC 7748, section 6.1).
    """
    return public[:-1] + bytes([public[-1] & 0x7F]) in _LOW_ORDER_X25519


def check_identity(public: bytes, what: str) -> None:
    """Refuse an Ed25519 public key (32 bytes) that no site makes by the rules of RFC 8032.

    Under a point of low order anybody can make signatures that verify; a second encoding of a key
    would let one identity stand in a roster twice.

    Raises:
        StudyError: a point of low order, or an encoding that is not the canonical one; `what` names
            it in the sentence.
    """
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    if y >= _P or y in _SMALL_ORDER_Y:
        raise StudyError(
            f"{what} is a point of low order, for which anybody can sign, or not in the one form "
            "that a key has; ask the site for its public identity"
        )


def derive(secret: bytes, *, salt: bytes, label: str, parts: tuple[Encodable, ...]) -> bytes:
    """HKDF-SHA256 (RFC 5869) of a shared secret for one purpose; 32 bytes."""
    return HKDF(algorithm=_SHA256, length=KEY_BYTES, salt=salt, info=encode(label, *parts)).derive(
        secret
    )


def pair_seed(secret: bytes, *, context: bytes, low: str, high: str) -> bytes:
    """Seed of the mask two sites share in one round; `low` stands first in the roster; 32 bytes."""
    return derive(secret, salt=context, label="pair", parts=(low, high))
