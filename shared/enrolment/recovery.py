"""Coming back as the same hospital: the recovery code, and what is signed with it.

A code of twenty-four words is made once, shown once and kept on paper. From it follow two keys: one
that signs, and one for which budget certificates are sealed. A site keeps only their public halves,
so whoever has the machine, the coordinator or the hospital's second place has not the code.

::

    code  --endorses-->  identity  --binds name and keys-->  RecoveryBinding
    code  --signs---->   RecoveryClaim   shows the coordinator that the hospital itself asks
    code  --signs---->   Succession      names the identity that takes the place of the old one

Guarantee: nobody makes a binding without both the code and the identity, and nobody a succession
without the code: not the coordinator, not another hospital, not both.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consilium.shared.audit.heads import AuditHead, is_signed
from consilium.shared.crypto.keys import (
    KEY_BYTES,
    NONCE_BYTES,
    SIGNATURE_BYTES,
    Entropy,
    ExchangeKey,
    IdentityKey,
    Secret,
    check_identity,
    derive,
)
from consilium.shared.crypto.transcript import encode, sha256
from consilium.shared.enrolment.fingerprint import read_words, to_words
from consilium.shared.enrolment.invitation import SECRET_BYTES
from consilium.shared.errors import AuthenticationError, StudyError
from consilium.shared.wire.encoding import LARGEST_HEAD_BYTES, SITE, Maybe, Message, Octets, Part

CODE_BYTES = 32
CODE_WORDS = 24
LARGEST_SEALED = 1 << 19
PAGE_BYTES = 4096  # sealed contents are filled up to a multiple: their length tells little

BIND_PATH = "/consilium/v1/recovery/bind"
CLAIM_PATH = "/consilium/v1/recovery/claim"
SUCCEED_PATH = "/consilium/v1/recovery/succeed"
SUCCESSOR_PATH = "/consilium/v1/recovery/successor"
CERTIFICATE_PATH = "/consilium/v1/recovery/certificate"

_Key = Annotated[bytes, Octets(KEY_BYTES, KEY_BYTES)]
_Signature = Annotated[bytes, Octets(SIGNATURE_BYTES, SIGNATURE_BYTES)]
_Head = Annotated[bytes, Octets(1, LARGEST_HEAD_BYTES)]


class RecoveryCode(Secret):
    """The secret on paper; ``signing`` and ``sealing`` are the keys that follow from it."""

    __slots__ = ("_secret", "sealing", "signing")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.signing = IdentityKey.from_seed(self._derived("recovery-sign"))
        self.sealing = ExchangeKey(self._derived("recovery-seal"))

    @classmethod
    def generate(cls, entropy: Entropy) -> "RecoveryCode":
        """A fresh code."""
        return cls(entropy(CODE_BYTES))

    @classmethod
    def from_words(cls, text: str) -> "RecoveryCode":
        """Read the words from the paper; capitals, blanks and commas do not matter.

        Raises:
            SettingsError: a word is not in the list, or they do not belong together.
        """
        words = text.lower().replace(",", " ").replace("-", " ").split()
        return cls(
            read_words(words, count=CODE_WORDS, what="a recovery code", again="read it again")
        )

    def words(self) -> tuple[str, ...]:
        """The twenty-four words for the paper."""
        return to_words(self._secret)

    def endorse(self, identity: bytes) -> "RecoveryKeys":
        """Return what a site keeps of the code: its public keys, for this identity (32 bytes)."""
        sealing = self.sealing.public
        return RecoveryKeys(
            verify=self.signing.public,
            seal=sealing,
            endorsement=self.signing.sign(_endorsement(identity, sealing)),
        )

    def _derived(self, label: str) -> bytes:
        return derive(self._secret, salt=bytes(KEY_BYTES), label=label, parts=())


@dataclass(frozen=True, kw_only=True, repr=False)
class RecoveryKeys(Message):
    """The public halves of a code's keys, and the code's signature over an identity."""

    kind: ClassVar[str] = "recovery-keys"
    max_bytes: ClassVar[int] = 512
    verify: _Key
    seal: _Key
    endorsement: _Signature

    def bind(self, site: str, identity: IdentityKey) -> "RecoveryBinding":
        """Return the binding of this site's name and identity to the code, signed by both."""
        statement = _binding(site, identity.public, self.verify, self.seal)
        return RecoveryBinding(
            site=site,
            identity=identity.public,
            keys=self,
            signature=identity.sign(statement),
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class RecoveryBinding(Message):
    """A hospital's name and identity, and the recovery code that may name its successor."""

    kind: ClassVar[str] = "recovery-binding"
    max_bytes: ClassVar[int] = 1024
    site: Annotated[str, SITE]
    identity: _Key
    keys: Annotated[RecoveryKeys, Part(RecoveryKeys)]
    signature: _Signature

    def check(self) -> None:
        """Check that identity and code agreed to each other.

        Raises:
            AuthenticationError: one of the two did not sign.
        """
        keys = self.keys
        _check_key(self.identity, f"the identity of site {self.site}")
        statement = _binding(self.site, self.identity, keys.verify, keys.seal)
        both = is_signed(self.identity, statement, self.signature) and is_signed(
            keys.verify, _endorsement(self.identity, keys.seal), keys.endorsement
        )
        if not both:
            raise AuthenticationError(
                f"the recovery code shown for site {self.site} is not bound to its identity; "
                "ask the hospital itself, by telephone"
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class BudgetCertificate(Message):
    """What a site has spent, sealed for the holder of its recovery code, and signed.

    Attributes:
        site: whose it is.
        identity: that signs it, and the head in it.
        head: of the site's audit log when it was made, encoded: the log's entry of its last
            release, or an earlier one if nothing was released. A later certificate has a later one.
        sealed: the spent budget, for the recovery code alone.
    """

    kind: ClassVar[str] = "budget-certificate"
    site: Annotated[str, SITE]
    identity: _Key
    head: _Head
    sealed: Annotated[bytes, Octets(KEY_BYTES + 16, LARGEST_SEALED + KEY_BYTES + 16)]
    signature: _Signature

    @classmethod
    def make(
        cls, site: str, identity: IdentityKey, head: bytes, content: bytes, *, seal: bytes, entropy:
        Entropy
    ) -> "BudgetCertificate":  # fmt: skip
        """Seal the content for the public key ``seal`` (32 bytes), and sign."""
        ephemeral = ExchangeKey(entropy(KEY_BYTES))
        key = _sealing_key(ephemeral.shared_secret(seal), ephemeral.public, seal)
        body = len(content).to_bytes(8, "big") + content
        body += bytes(-len(body) % PAGE_BYTES)
        about = encode("budget", site, identity.public, head)
        sealed = ephemeral.public + AESGCM(key).encrypt(bytes(NONCE_BYTES), body, about)
        statement = _certificate(site, identity.public, head, sealed)
        return cls(
            site=site,
            identity=identity.public,
            head=head,
            sealed=sealed,
            signature=identity.sign(statement),
        )

    @property
    def number(self) -> int:
        """The entry of the site's audit log that the certificate has come to."""
        return AuditHead.from_bytes(self.head).number

    def check(self, site: str, identity: bytes) -> None:
        """Check that it is this site's, signed by this identity (32 bytes), and so its head.

        Raises:
            AuthenticationError: it is not.
        """
        statement = _certificate(self.site, self.identity, self.head, self.sealed)
        own = (self.site, self.identity) == (site, identity)
        if not own or not is_signed(identity, statement, self.signature):
            raise AuthenticationError(
                f"a budget certificate shown for site {site} is not signed by its identity"
            )
        AuditHead.from_bytes(self.head).verify(site, identity)

    def open(self, code: RecoveryCode) -> bytes:
        """Return the content.

        Raises:
            AuthenticationError: it is sealed for another code, or was altered.
        """
        own = code.sealing
        ephemeral, sealed = self.sealed[:KEY_BYTES], self.sealed[KEY_BYTES:]
        about = encode("budget", self.site, self.identity, self.head)
        try:
            key = _sealing_key(own.shared_secret(ephemeral), ephemeral, own.public)
            body = AESGCM(key).decrypt(bytes(NONCE_BYTES), sealed, about)
        except (AuthenticationError, InvalidTag):
            raise AuthenticationError(
                f"the budget certificate of site {self.site} does not open with this recovery code"
            ) from None
        return body[8 : 8 + int.from_bytes(body[:8], "big")]


@dataclass(frozen=True, kw_only=True, repr=False)
class RecoveryClaim(Message):
    """The holder of a code asks for its hospital's newest certificate, with an invitation.

    Attributes:
        secret: the invitation's.
        site: the hospital's name.
        node_key: the node key with which it will enrol, public, PEM.
        verify: the code's public key.
        signature: by the code.
    """

    kind: ClassVar[str] = "recovery-claim"
    max_bytes: ClassVar[int] = 4096
    secret: Annotated[bytes, Octets(SECRET_BYTES, SECRET_BYTES)]
    site: Annotated[str, SITE]
    node_key: Annotated[bytes, Octets(1, 1024)]
    verify: _Key
    signature: _Signature

    @classmethod
    def make(cls, code: RecoveryCode, secret: bytes, site: str, node_key: bytes) -> "RecoveryClaim":
        """The claim, signed."""
        statement = encode("recovery-claim", secret, site, node_key)
        return cls(
            secret=secret,
            site=site,
            node_key=node_key,
            verify=code.signing.public,
            signature=code.signing.sign(statement),
        )

    def check(self) -> None:
        """Check that the code signed.

        Raises:
            AuthenticationError: it did not.
        """
        statement = encode("recovery-claim", self.secret, self.site, self.node_key)
        if not is_signed(self.verify, statement, self.signature):
            raise AuthenticationError(f"the recovery of site {self.site} is not signed by its code")


@dataclass(frozen=True, kw_only=True, repr=False)
class RecoveryGrant(Message):
    """What the coordinator keeps for a code: the old identity's binding, and its certificate."""

    kind: ClassVar[str] = "recovery-grant"
    binding: Annotated[RecoveryBinding, Part(RecoveryBinding)]
    certificate: Annotated[BudgetCertificate | None, Maybe(BudgetCertificate)]


@dataclass(frozen=True, kw_only=True, repr=False)
class Succession(Message):
    """The same hospital, a new key: signed by the code that the old identity is bound to.

    Attributes:
        binding: of the old identity and the code.
        head: of the old identity's audit log at the certificate from which the budget goes on.
        identity: the new one (32 bytes).
        signature: by the code.
        consent: by the new identity.
    """

    kind: ClassVar[str] = "succession"
    max_bytes: ClassVar[int] = 4096
    binding: Annotated[RecoveryBinding, Part(RecoveryBinding)]
    head: _Head
    identity: _Key
    signature: _Signature
    consent: _Signature

    @classmethod
    def make(
        cls, code: RecoveryCode, binding: RecoveryBinding, head: bytes, identity: IdentityKey
    ) -> "Succession":
        """The succession, signed by the code and by the new identity."""
        statement = _succession(binding, head, identity.public)
        return cls(
            binding=binding,
            head=head,
            identity=identity.public,
            signature=code.signing.sign(statement),
            consent=identity.sign(statement),
        )

    @property
    def site(self) -> str:
        """The hospital's name."""
        return self.binding.site

    def check(self) -> AuditHead:
        """Check that old identity, code and new identity all agreed; return the old one's head.

        Raises:
            AuthenticationError: one of them did not.
        """
        self.binding.check()
        _check_key(self.identity, f"the new identity of site {self.site}")
        statement = _succession(self.binding, self.head, self.identity)
        signed = is_signed(self.binding.keys.verify, statement, self.signature) and is_signed(
            self.identity, statement, self.consent
        )
        if not signed or self.identity == self.binding.identity:
            raise AuthenticationError(
                f"the new key shown for site {self.site} is not signed with its recovery code, so "
                "nobody can tell that it is the same hospital; telephone it"
            )
        head = AuditHead.from_bytes(self.head)
        head.verify(self.site, self.binding.identity)
        return head


@dataclass(frozen=True, kw_only=True, repr=False)
class SuccessorRequest(Message):
    """Asks which identity took the place of this one."""

    kind: ClassVar[str] = "successor-request"
    max_bytes: ClassVar[int] = 256
    identity: _Key


@dataclass(frozen=True, kw_only=True, repr=False)
class SuccessorReply(Message):
    """The succession asked for, if there is one."""

    kind: ClassVar[str] = "successor-reply"
    max_bytes: ClassVar[int] = 8192
    succession: Annotated[Succession | None, Maybe(Succession)]


def _check_key(public: bytes, what: str) -> None:
    try:
        check_identity(public, what)
    except StudyError as error:
        raise AuthenticationError(str(error)) from None


def _sealing_key(secret: bytes, ephemeral: bytes, to: bytes) -> bytes:
    return derive(secret, salt=bytes(KEY_BYTES), label="recovery-box", parts=(ephemeral, to))


def _endorsement(identity: bytes, seal: bytes) -> bytes:
    return encode("recovery-endorsement", identity, seal)


def _binding(site: str, identity: bytes, verify: bytes, seal: bytes) -> bytes:
    return encode("recovery-binding", site, identity, verify, seal)


def _certificate(site: str, identity: bytes, head: bytes, sealed: bytes) -> bytes:
    return encode("budget-certificate", site, identity, head, sha256(sealed))


def _succession(binding: RecoveryBinding, head: bytes, identity: bytes) -> bytes:
    return encode("succession", binding.site, binding.identity, head, identity)
