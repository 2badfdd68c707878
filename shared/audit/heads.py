"""The head of an audit log as one side shows it to the other, signed.

The coordinator's head travels in the round's configuration, which every mask is salted with, so it
cannot show different heads to different sites of one round. A site's head travels with its masked
update, so whoever holds an update also holds the proof that its release was recorded.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consilium.shared.audit.events import LARGEST_NUMBER, HeadSeen
from consilium.shared.crypto.keys import SIGNATURE_BYTES, IdentityKey
from consilium.shared.crypto.transcript import encode
from consilium.shared.errors import AuthenticationError
from consilium.shared.wire.encoding import LARGEST_HEAD_BYTES, SITE, Message, Octets, Whole


@dataclass(frozen=True, kw_only=True, repr=False)
class AuditHead(Message):
    """Number and digest of the last line of `owner`'s log, signed by its identity."""

    kind: ClassVar[str] = "audit-head"
    max_bytes: ClassVar[int] = LARGEST_HEAD_BYTES
    owner: Annotated[str, SITE]
    number: Annotated[int, Whole(1, LARGEST_NUMBER)]
    digest: Annotated[bytes, Octets(32, 32)]
    signature: Annotated[bytes, Octets(SIGNATURE_BYTES, SIGNATURE_BYTES)]

    @classmethod
    def sign(cls, key: IdentityKey, *, owner: str, number: int, digest: bytes) -> "AuditHead":
        """The head, signed."""
        signature = key.sign(head_statement(owner, number, digest))
        return cls(owner=owner, number=number, digest=digest, signature=signature)

    def verify(self, owner: str, *identities: bytes) -> None:
        """Check that this is `owner`'s head, signed by one of these identities (32 bytes each).

        Raises:
            AuthenticationError: another owner, or a signature of none of them.
        """
        statement = head_statement(owner, self.number, self.digest)
        signed = any(is_signed(identity, statement, self.signature) for identity in identities)
        if not signed or self.owner != owner:
            raise AuthenticationError(
                f"the audit head shown for {owner} (entry {self.number}) is not signed by its "
                "identity"
            )

    def as_event(self, study_digest: bytes) -> HeadSeen:
        """The entry that anchors this head, shown in a round of that study, in one's own log."""
        return HeadSeen(
            peer=self.owner,
            study_digest=study_digest,
            number=self.number,
            digest=self.digest,
            signature=self.signature,
        )


def head_statement(owner: str, number: int, digest: bytes) -> bytes:
    """What is signed to show a head."""
    return encode("audit-head", owner, number, digest)


def is_signed(identity: bytes, statement: bytes, signature: bytes) -> bool:
    """Tell whether this Ed25519 identity (32 bytes) signed the statement."""
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True
