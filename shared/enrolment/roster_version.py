"""Another set of sites for a study that runs: a version of its roster, and who agreed to it.

The study stays the same, with its digest, budgets and declared sizes; what follows from the number
of its sites follows from the roster in force (``Study.among``).

::

    operator      proposes which sites join and leave
    who joins     reviews and approves the study, and declares its size
    coordinator   signs the version: number, roster before, roster after with all sizes
    who stays     checks it, by rule or by hand, and signs that it agrees
    study         takes the version over at its next round, once all have agreed

Guarantee: of versions that follow one roster, a site that keeps to the rules below takes over one
only, and only if every site that stays signed for it. So as long as one such site stays in both,
there are not two of them.

1. A site agrees to no number at or below one that it agreed to or took over before, unless it is
   the same version once more.
2. It takes over the newest version that it agreed to, and no other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from consilium.shared.audit.heads import is_signed
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import KEY_BYTES, SIGNATURE_BYTES, IdentityKey, Roster
from consilium.shared.crypto.transcript import encode
from consilium.shared.enrolment.messages import DIGEST_BYTES, offer_statement, roster_digest
from consilium.shared.errors import AuthenticationError, StudyError
from consilium.shared.secure_sum.messages import Declarations
from consilium.shared.wire.encoding import MAX_ROUND, Maybe, Message, Octets, Part, PerSite, Whole

ROSTER_PATH = "/consilium/v1/roster"
AGREE_PATH = "/consilium/v1/roster/agree"
FIRST = 1
"""The number of the roster that a study was submitted with."""

_Digest = Annotated[bytes, Octets(DIGEST_BYTES, DIGEST_BYTES)]
_Signature = Annotated[bytes, Octets(SIGNATURE_BYTES, SIGNATURE_BYTES)]
_Number = Annotated[int, Whole(FIRST + 1, MAX_ROUND)]


@dataclass(frozen=True, kw_only=True, repr=False)
class RosterVersion(Message):
    """A study's next roster, signed by the coordinator.

    Attributes:
        study: the study's digest.
        number: of the version; the roster of the submission is number 1.
        before: digest of names and identities of the roster that it follows.
        members: identity (32 bytes) by site.
        declared: every site's declared size, signed by the site.
        signature: of the coordinator over all of that.
        offer: of the coordinator over the study's text with this roster, as in an offer.
    """

    kind: ClassVar[str] = "roster-version"
    study: _Digest
    number: _Number
    before: _Digest
    members: Annotated[dict[str, bytes], PerSite(Octets(KEY_BYTES, KEY_BYTES))]
    declared: Declarations
    signature: _Signature
    offer: _Signature

    @classmethod
    def make(
        cls,
        *,
        study: bytes,
        text: bytes,
        number: int,
        before: Roster,
        roster: Roster,
        key: IdentityKey,
    ) -> Self:
        """Sign a version; ``roster`` has all sizes, ``text`` is the study's as it was submitted."""
        earlier = members_digest(before)
        statement = _version(study, number, earlier, roster_digest(roster))
        return cls(
            study=study,
            number=number,
            before=earlier,
            members=dict(roster.members),
            declared={
                site: one.to_bytes()
                for site, one in zip(roster.names, roster.declared, strict=True)
            },
            signature=key.sign(statement),
            offer=key.sign(offer_statement(text, roster)),
        )

    @property
    def roster(self) -> Roster:
        """The roster with its sizes; nothing is verified.

        Raises:
            StudyError: a size is missing, or an identity is none.
        """
        members = tuple(sorted(self.members.items()))
        if self.declared.keys() != self.members.keys():
            raise StudyError(f"roster {self.number} of the study lacks the size of a site")
        sizes = tuple(Declaration.from_bytes(self.declared[site]) for site, _ in members)
        return Roster(members, sizes)

    def check(self, coordinator: bytes) -> Roster:
        """Return the roster with its sizes, each verified.

        Raises:
            AuthenticationError: not signed by this coordinator (32 bytes), or a size not by its
                site for this study.
            StudyError: a size is missing, or an identity is none.
        """
        shown = self.roster
        sizes = dict(zip(shown.names, shown.declared, strict=True))
        roster = Roster(shown.members).with_declared(sizes, self.study)
        statement = _version(self.study, self.number, self.before, roster_digest(roster))
        if not is_signed(coordinator, statement, self.signature):
            raise AuthenticationError(
                f"roster {self.number} of the study is not signed by the coordinator that this "
                "site enrolled with; ask the coordinator's operator"
            )
        return roster


@dataclass(frozen=True, kw_only=True, repr=False)
class AgreedRoster(Message):
    """A version in force.

    Attributes:
        version: what all agreed to.
        agreed: by site, its signature over :func:`agreement`.
        round: number of the first sum that may be of it; 0 before it is in force.
    """

    kind: ClassVar[str] = "agreed-roster"
    version: Annotated[RosterVersion, Part(RosterVersion)]
    agreed: Annotated[dict[str, bytes], PerSite(Octets(SIGNATURE_BYTES, SIGNATURE_BYTES))]
    round: Annotated[int, Whole(0, MAX_ROUND)]

    def check_agreed(self, roster: Roster, staying: Mapping[str, bytes]) -> None:
        """Check that all of these sites agreed to this version.

        Args:
            roster: what :meth:`RosterVersion.check` returned.
            staying: identity (32 bytes) by site, as pinned here.

        Raises:
            AuthenticationError: a site did not; the sentence names it.
        """
        for site, identity in sorted(staying.items()):
            signature = self.agreed.get(site, b"")
            if not is_signed(identity, agreement(self.version, roster), signature):
                raise AuthenticationError(
                    f"roster {self.version.number} of the study is shown as agreed, and site "
                    f"{site} did not sign that it agrees; ask that hospital, by telephone"
                )


@dataclass(frozen=True, kw_only=True, repr=False)
class RosterRequest(Message):
    """Asks for the version that follows a site's roster, and for the one that is proposed.

    Attributes:
        study: the study's digest.
        number: the least that the version in force may have.
        before: digest of names and identities of the roster that the site has.
    """

    kind: ClassVar[str] = "roster-request"
    max_bytes: ClassVar[int] = 256
    study: _Digest
    number: Annotated[int, Whole(FIRST, MAX_ROUND)]
    before: _Digest


@dataclass(frozen=True, kw_only=True, repr=False)
class RosterReply(Message):
    """The version in force that follows the site's roster, and the one that waits for its word."""

    kind: ClassVar[str] = "roster-reply"
    in_force: Annotated[AgreedRoster | None, Maybe(AgreedRoster)]
    proposed: Annotated[RosterVersion | None, Maybe(RosterVersion)]


@dataclass(frozen=True, kw_only=True, repr=False)
class RosterAgreement(Message):
    """A site agrees to a version."""

    kind: ClassVar[str] = "roster-agreement"
    max_bytes: ClassVar[int] = 256
    study: _Digest
    number: _Number
    signature: _Signature


def members_digest(roster: Roster) -> bytes:
    """A digest of a roster's names and identities, without sizes."""
    return roster_digest(Roster(roster.members))


def agreement(version: RosterVersion, roster: Roster) -> bytes:
    """What a site signs to agree to a version with this roster."""
    return encode(
        "roster-agreed", version.study, version.number, version.before, roster_digest(roster)
    )


def changes_in_words(joined: Sequence[str], left: Sequence[str]) -> str:
    """Say who joins and who leaves."""
    return ", ".join([f"{site} joins" for site in joined] + [f"{site} leaves" for site in left])


def _version(study: bytes, number: int, before: bytes, roster: bytes) -> bytes:
    return encode("roster-version", study, number, before, roster)
