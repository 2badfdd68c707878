"""What site and coordinator say to each other outside a round: enrolment, and offered studies.

The exchange runs over TLS whose authority the invitation pins. Both sides sign what was agreed, so
either can show later who joined whom under which keys.

::

    site                   coordinator
    EnrolRequest     ->    EnrolReply       once, with an invitation's secret
    (signed headers) ->    StudyList        digests of the studies that name this site
    StudyRequest     ->    StudyOffer       the study's text and its roster, signed
    StudyRequest     ->    StudyProgress    how far it is; a site asks if it sends notices of it
    SizeDeclaration  ->    (nothing)        once for each study, with its approval
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consilium.shared.crypto.declaration import DECLARATION_BYTES, Declaration
from consilium.shared.crypto.keys import KEY_BYTES, SIGNATURE_BYTES, Roster, check_identity
from consilium.shared.crypto.transcript import Encodable, digest, encode
from consilium.shared.enrolment.invitation import SECRET_BYTES
from consilium.shared.errors import AuthenticationError, StudyError
from consilium.shared.files.strict_toml import LARGEST_BYTES
from consilium.shared.secure_sum.messages import Declarations
from consilium.shared.study.definition import Study, parse_study
from consilium.shared.wire.encoding import SITE, Message, Octets, PerSite, Text

NODE_ID_BYTES = 8
DIGEST_BYTES = 32
ROUND_BYTES = 4
MOST_VOIDS = 64
ENROL_PATH = "/consilium/v1/enrol"
HELLO_PATH = "/consilium/v1/hello"
STUDIES_PATH = "/consilium/v1/studies"
STUDY_PATH = "/consilium/v1/study"
DECLARE_PATH = "/consilium/v1/declare"
PROGRESS_PATH = "/consilium/v1/progress"
VERSION_HEADER = "consilium-version"
BUDGET_HEADER = "consilium-budget-left"  # lifetime epsilon left, if the site chooses to say

_Identity = Annotated[bytes, Octets(KEY_BYTES, KEY_BYTES)]
_Signature = Annotated[bytes, Octets(SIGNATURE_BYTES, SIGNATURE_BYTES)]


@dataclass(frozen=True, kw_only=True, repr=False)
class EnrolRequest(Message):
    """A site's two public keys, with proof that it holds both, and its invitation's secret.

    Attributes:
        secret: the invitation's.
        site: its name.
        identity: its Ed25519 identity, for rosters and audit logs.
        node_key: its elliptic-curve key for Flower's node authentication, public, PEM.
        version: of the site's build.
        identity_signature: Ed25519 over :func:`enrol_statement`.
        node_signature: ECDSA over :func:`enrol_statement`, DER.
    """

    kind: ClassVar[str] = "enrol-request"
    max_bytes: ClassVar[int] = 4096
    secret: Annotated[bytes, Octets(SECRET_BYTES, SECRET_BYTES)]
    site: Annotated[str, SITE]
    identity: _Identity
    node_key: Annotated[bytes, Octets(1, 1024)]
    version: Annotated[str, Text(32)]
    identity_signature: _Signature
    node_signature: Annotated[bytes, Octets(8, 256)]

    def check(self) -> None:
        """Check that whoever sent this holds both private keys.

        Raises:
            AuthenticationError: an identity for which anybody can sign, a signature that does not
                verify, or a node key of another kind.
        """
        try:
            check_identity(self.identity, f"the identity of site {self.site}")
        except StudyError as error:
            raise AuthenticationError(str(error)) from None
        statement = enrol_statement(self.secret, self.site, self.identity, self.node_key)
        try:
            identity = Ed25519PublicKey.from_public_bytes(self.identity)
            identity.verify(self.identity_signature, statement)
            key = serialization.load_pem_public_key(self.node_key)
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise ValueError("not an elliptic-curve key")
            key.verify(self.node_signature, statement, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            raise AuthenticationError(
                f"the enrolment of site {self.site} is not signed by the keys it brings"
            ) from None


@dataclass(frozen=True, kw_only=True, repr=False)
class EnrolReply(Message):
    """The site is enrolled as this Flower node; signed by the coordinator's identity."""

    kind: ClassVar[str] = "enrol-reply"
    max_bytes: ClassVar[int] = 4096
    site: Annotated[str, SITE]
    node_id: Annotated[bytes, Octets(NODE_ID_BYTES, NODE_ID_BYTES)]
    signature: _Signature

    def check(self, coordinator: bytes, identity: bytes, node_key: bytes) -> None:
        """Check that the coordinator of the invitation agreed to exactly these keys.

        Raises:
            AuthenticationError: the signature does not verify.
        """
        statement = enrolled_statement(self.site, identity, node_key, self.node_id)
        _verify(coordinator, statement, self.signature, "the coordinator's answer to the enrolment")


@dataclass(frozen=True, kw_only=True, repr=False)
class StudyList(Message):
    """Digests, 32 bytes each, one after another, of the open studies that name the site."""

    kind: ClassVar[str] = "study-list"
    digests: Annotated[bytes, Octets(0, 1000 * DIGEST_BYTES)]


@dataclass(frozen=True, kw_only=True, repr=False)
class StudyRequest(Message):
    """Asks for one study by its digest."""

    kind: ClassVar[str] = "study-request"
    max_bytes: ClassVar[int] = 256
    digest: Annotated[bytes, Octets(DIGEST_BYTES, DIGEST_BYTES)]


@dataclass(frozen=True, kw_only=True, repr=False)
class StudyOffer(Message):
    """A study as submitted, and the identities of its sites as enrolled; signed.

    ``declared`` has the sizes that sites have declared so far, each signed by its site
    (:class:`consilium.shared.crypto.declaration.Declaration`).
    """

    kind: ClassVar[str] = "study-offer"
    max_bytes: ClassVar[int] = 2 * LARGEST_BYTES
    text: Annotated[bytes, Octets(1, LARGEST_BYTES)]
    roster: Annotated[dict[str, bytes], PerSite(Octets(KEY_BYTES, KEY_BYTES))]
    declared: Declarations
    signature: _Signature

    @property
    def sizes(self) -> dict[str, int]:
        """Declared sizes so far, in patients; verified by :meth:`check`."""
        return {site: Declaration.from_bytes(data).patients for site, data in self.declared.items()}

    def check(self, coordinator: bytes) -> tuple[Study, Roster]:
        """Return the study and the roster, both validated.

        The roster has declared sizes if every site has declared its own. Its sites are those of
        the study's text, or those that take part by now: the study returned is among them.

        Raises:
            AuthenticationError: not signed by this coordinator, or a declared size is not signed by
                its site for this study.
            StudyError: the text is not a valid study, it cannot be run among these sites, or a size
                is not allowed in it.
        """
        roster = Roster(tuple(sorted(self.roster.items())))
        statement = offer_statement(self.text, roster)
        _verify(coordinator, statement, self.signature, "the offer of the study")
        study = parse_study(self.text.decode("utf-8", "replace"), where="offered")
        study = study.among(roster.names)
        declared = {s: Declaration.from_bytes(data) for s, data in self.declared.items()}
        sized = roster.restricted_to(declared).with_declared(declared, study.digest)
        return study, sized if len(sized) == len(roster) else roster


@dataclass(frozen=True, kw_only=True, repr=False)
class StudyProgress(Message):
    """A study's state, one word, and the numbers of its last void rounds (4 bytes each).

    It is the coordinator's word and decides nothing.
    """

    kind: ClassVar[str] = "study-progress"
    max_bytes: ClassVar[int] = 1024
    state: Annotated[str, Text(16)]
    voids: Annotated[bytes, Octets(0, MOST_VOIDS * ROUND_BYTES)]

    @property
    def void_rounds(self) -> tuple[int, ...]:
        """The numbers of the void rounds, rising."""
        starts = range(0, len(self.voids) - ROUND_BYTES + 1, ROUND_BYTES)
        numbers = {int.from_bytes(self.voids[at : at + ROUND_BYTES], "big") for at in starts}
        return tuple(sorted(numbers))


@dataclass(frozen=True, kw_only=True, repr=False)
class SizeDeclaration(Message):
    """A site's declared size for the study with this digest, and its signature."""

    kind: ClassVar[str] = "size-declaration"
    max_bytes: ClassVar[int] = 256
    digest: Annotated[bytes, Octets(DIGEST_BYTES, DIGEST_BYTES)]
    declared: Annotated[bytes, Octets(DECLARATION_BYTES, DECLARATION_BYTES)]


def enrol_statement(secret: bytes, site: str, identity: bytes, node_key: bytes) -> bytes:
    """What a site signs with both keys; the secret binds it to one invitation."""
    return encode("enrol", secret, site, identity, node_key)


def enrolled_statement(site: str, identity: bytes, node_key: bytes, node_id: bytes) -> bytes:
    """What the coordinator signs."""
    return encode("enrolled", site, identity, node_key, node_id)


def offer_statement(text: bytes, roster: Roster) -> bytes:
    """What the coordinator signs to offer a study."""
    members = [part for member in roster.members for part in member]
    return encode("offer", text, *members)


def roster_digest(roster: Roster) -> bytes:
    """A digest of a roster's names, identities and, once all sites declared them, sizes."""
    sizes = roster.sizes
    members: list[Encodable] = []
    for site, identity in sorted(roster.members):
        members += [site, identity, *([sizes[site]] if sizes else [])]
    return digest("roster", *members)


def roster_fingerprint(roster: Roster) -> str:
    """A short name of a roster that two people can read to each other: 8 groups of 4 digits.

    It covers names, identities and, once all sites have declared them, sizes.
    """
    word = roster_digest(roster).hex()[:32]
    return " ".join(word[at : at + 4] for at in range(0, len(word), 4))


def _verify(identity: bytes, statement: bytes, signature: bytes, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, statement)
    except InvalidSignature:
        raise AuthenticationError(
            f"{what} is not signed by the coordinator this site enrolled with; "
            "enrol again with a new invitation if the coordinator was set up anew"
        ) from None
