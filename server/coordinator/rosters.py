"""Other sites for a study that runs: proposed by the operator, agreed to by those that stay.

The coordinator carries proposals and signatures. It takes a roster over when every site that stays
has signed for it; a lying one that does so earlier has a study in which those that did not sign
take no part.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace

from consilium.server.coordinator.register import Member, Register, Submitted
from consilium.server.coordinator.roster_book import (
    Proposal,
    keep_agreement,
    proposal_of,
    propose,
    version_after,
    versions_of,
)
from consilium.shared.audit.events import RosterAgreed
from consilium.shared.audit.heads import is_signed
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.messages import offer_statement, roster_digest
from consilium.shared.enrolment.roster_version import (
    RosterAgreement,
    RosterReply,
    RosterRequest,
    RosterVersion,
    agreement,
)
from consilium.shared.errors import AuthenticationError, SettingsError
from consilium.shared.rounds.contents import Purpose, RoundConfiguration, vector_spec

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Rosters:
    """Proposals, agreements and versions in the register.

    Attributes:
        register: the coordinator's.
        identity: the coordinator's, which signs.
        audit: the coordinator's log.
    """

    register: Register
    identity: IdentityKey
    audit: AuditLog

    def propose(self, study: Submitted, *, join: Collection[str], leave: Collection[str]) -> int:
        """Propose other sites for a study, in place of what was proposed before; its number.

        Sites that were dismissed before leave with it.

        Raises:
            ConsiliumError: as :meth:`check`.
        """
        members = self.check(study, join=join, leave=leave)
        return propose(self.register, study.digest, members)

    def check(
        self, study: Submitted, *, join: Collection[str], leave: Collection[str]
    ) -> dict[str, bytes]:
        """Return the identity (32 bytes) by site that a study would have.

        Raises:
            SettingsError: the study has ended or not begun, a site that is to join is not enrolled
                or takes part already, or one that is to leave takes no part.
            StudyError: the study cannot be run among those sites.
        """
        enrolled = {m.name: m.identity for m in self.register.members() if m.revoked is None}
        current = dict(study.roster.members)
        _check_open(study)
        for site in join:
            if site in current:
                raise SettingsError(
                    f"site {site} left study {study.name} and stands in its roster still; propose "
                    "one without it first"
                    if site in study.gone
                    else f"site {site} takes part in study {study.name} already"
                )
            if site not in enrolled:
                raise SettingsError(
                    f"site {site} is not enrolled; run 'consilium-coordinator invite {site}' first"
                )
        for site in leave:
            if site not in current:
                raise SettingsError(f"site {site} is none of the sites of study {study.name}")
        staying = {s: i for s, i in current.items() if s not in {*leave, *study.gone}}
        members = staying | {site: enrolled[site] for site in join}
        if members == current:
            raise SettingsError(f"nobody would join study {study.name} and nobody leave it")
        if not staying:
            raise SettingsError(f"none of the sites of study {study.name} would stay")
        check_sites(study, members)
        return members

    def joins(self, study: Submitted, member: Member) -> bool:
        """Whether a site is to join a study under the identity it has."""
        found = proposal_of(self.register, study) if study.open else None
        return (
            found is not None
            and member.name in found.joined
            and (member.name, member.identity) in found.roster.members
        )

    def to_be(self, study: Submitted) -> Submitted:
        """Return the study as it is offered to a site that is to join it."""
        found = proposal_of(self.register, study)
        assert found is not None  # noqa: S101 - `joins` said so; this is for mypy
        return replace(
            study,
            roster=found.roster,
            declared=dict(found.declared),
            signature=self.identity.sign(offer_statement(study.text, found.roster)),
        )

    def show(self, member: Member, body: bytes) -> bytes:
        """Show the version in force that follows a site's roster, and the one that is proposed.

        Raises:
            MessageError: malformed. SettingsError: no such study is the site's.
        """
        asked = RosterRequest.from_bytes(body)
        study = self._of(member, asked.study)
        found, proposed = proposal_of(self.register, study) if study.open else None, None
        if found is not None and member.name in found.missing and not found.unapproved:
            proposed = self._version(study, found)
        following = version_after(self.register, asked.study, asked.number, asked.before)
        return RosterReply(in_force=following, proposed=proposed).to_bytes()

    def agree(self, member: Member, body: bytes) -> bytes:
        """Note that a site agrees to what is proposed.

        Raises:
            MessageError: malformed.
            SettingsError: that version is not proposed to this site, or not any more.
            AuthenticationError: the site's identity did not sign that version.
        """
        message = RosterAgreement.from_bytes(body)
        study = self._of(member, message.study)
        found = proposal_of(self.register, study) if study.open else None
        if found is None or found.number != message.number or found.unapproved:
            raise SettingsError(
                f"roster {message.number} of study {study.name} is not proposed any more"
            )
        stays = member.name not in found.joined
        if not stays or (member.name, member.identity) not in found.roster.members:
            raise SettingsError(
                f"roster {message.number} of study {study.name} does not wait for {member.name}"
            )
        version = self._version(study, found)
        sized = found.roster.with_declared(found.declared, study.digest)
        if not is_signed(member.identity, agreement(version, sized), message.signature):
            raise AuthenticationError(
                f"site {member.name} did not sign roster {message.number} of study {study.name}"
            )
        if member.name not in found.agreed:
            keep_agreement(self.register, version, member.name, message.signature)
            self.audit.append(
                RosterAgreed(
                    study=study.name,
                    study_digest=study.digest,
                    version=found.number,
                    roster=roster_digest(sized),
                    joined=found.joined,
                    left=found.left,
                    by=member.name,
                )
            )
            log.info(
                "site %s agrees to roster %d of study %s", member.name, found.number, study.name
            )
        return b""

    def _of(self, member: Member, digest: bytes) -> Submitted:
        for study in self.register.studies():
            if study.digest == digest and member.name in _ever_of(self.register, study):
                return study
        raise SettingsError(f"no study {digest.hex()[:16]} is open to site {member.name}")

    def _version(self, study: Submitted, found: Proposal) -> RosterVersion:
        return found.version or RosterVersion.make(
            study=study.digest,
            text=study.text,
            number=found.number,
            before=study.roster,
            roster=found.roster.with_declared(found.declared, study.digest),
            key=self.identity,
        )


def check_sites(study: Submitted, sites: Collection[str]) -> None:
    """Check that a study can be run among these sites, from its next round on.

    Raises:
        StudyError: its numbers do not hold, or its sites keep control variates.
        PrivacyError, EncodingError: a sum over so many sites does not fit its ring.
    """
    from consilium.shared.model.study_model import study_model
    from consilium.shared.model.weight_vector import to_vector

    study.study.check_roster_may_change()
    among = study.study.among(sites)
    vector_spec(
        among,
        RoundConfiguration(purpose=Purpose.TRAINING, evaluate=True),
        parameters=to_vector(study_model(among)).size,
        largest_size=max(one.patients for one in study.declared.values()),
    )


def _ever_of(register: Register, study: Submitted) -> set[str]:
    found = {*study.first_sites, *study.roster}
    for agreed in versions_of(register, study.digest):
        found |= agreed.version.members.keys()
    proposed = proposal_of(register, study)
    return found if proposed is None else found | set(proposed.roster)


def _check_open(study: Submitted) -> None:
    if not study.open:
        raise SettingsError(f"study {study.name} is {study.state}; nobody joins or leaves it")
    if study.undeclared:
        raise SettingsError(
            f"study {study.name} has not begun: {', '.join(study.undeclared)} did not approve it "
            "yet; submit it again with the sites that you want"
        )
