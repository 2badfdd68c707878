"""A hospital's vouchers: which other hospitals it has checked, in one signed list.

A voucher says: *I have spoken with this hospital, and this is its fingerprint.* A hospital signs
all its vouchers together, with a time that only rises, so the newest list takes the place of those
before it, and who is no longer in it is no longer vouched for. Lists go from hospital to hospital
as files. They are bound to no study: a name and a key are the same in each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consilium.shared.crypto.keys import KEY_BYTES, SIGNATURE_BYTES, IdentityKey
from consilium.shared.crypto.transcript import encode
from consilium.shared.enrolment.fingerprint import FINGERPRINT_BYTES, fingerprint
from consilium.shared.errors import AuthenticationError
from consilium.shared.wire.encoding import SITE, Message, Octets, PerSite, Whole


@dataclass(frozen=True, kw_only=True, repr=False)
class Vouchers(Message):
    """All that one hospital vouches for, signed by it.

    Attributes:
        site: who vouches.
        identity: its Ed25519 identity (32 bytes).
        issued: seconds since 1970; of two lists of a hospital the later one counts.
        fingerprints: by hospital vouched for (16 bytes each).
        signature: Ed25519 over :func:`vouchers_statement`.
    """

    kind: ClassVar[str] = "vouchers"
    max_bytes: ClassVar[int] = 1 << 17
    site: Annotated[str, SITE]
    identity: Annotated[bytes, Octets(KEY_BYTES, KEY_BYTES)]
    issued: Annotated[int, Whole(0, 2**40)]
    fingerprints: Annotated[dict[str, bytes], PerSite(Octets(FINGERPRINT_BYTES, FINGERPRINT_BYTES))]
    signature: Annotated[bytes, Octets(SIGNATURE_BYTES, SIGNATURE_BYTES)]

    @classmethod
    def signed(
        cls, site: str, key: IdentityKey, fingerprints: Mapping[str, bytes], *, issued: int
    ) -> "Vouchers":
        """Return a hospital's list, signed with its identity."""
        return cls(
            site=site,
            identity=key.public,
            issued=issued,
            fingerprints=dict(fingerprints),
            signature=key.sign(vouchers_statement(site, key.public, fingerprints, issued)),
        )

    @property
    def signer(self) -> bytes:
        """Fingerprint of the hospital that vouches (16 bytes)."""
        return fingerprint(self.site, self.identity)

    def check(self) -> None:
        """Check that the list is signed by the identity in it.

        Raises:
            AuthenticationError: it is not.
        """
        statement = vouchers_statement(self.site, self.identity, self.fingerprints, self.issued)
        try:
            Ed25519PublicKey.from_public_bytes(self.identity).verify(self.signature, statement)
        except InvalidSignature:
            raise AuthenticationError(
                f"the vouchers of {self.site} are not signed by its key, so they were altered or "
                "forged; ask it for them again"
            ) from None


def vouchers_statement(
    site: str, identity: bytes, fingerprints: Mapping[str, bytes], issued: int
) -> bytes:
    """What a hospital signs to vouch for others."""
    members = [part for pair in sorted(fingerprints.items()) for part in pair]
    return encode("vouchers", site, identity, issued, *members)
