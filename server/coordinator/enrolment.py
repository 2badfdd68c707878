"""Enrolment of sites, and the studies offered to them: what a site may ask outside a round.

An invitation allows one enrolment. The site's private keys never leave it; it proves that it
holds them. A site that did not receive the answer may ask again with the same keys.
"""

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from consilium.server.coordinator.defaults import DEFAULT_HOURS
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.recovery import RecoveryService
from consilium.server.coordinator.register import Member, Register, Submitted
from consilium.server.coordinator.rosters import Rosters
from consilium.shared.audit.events import Enrolled, Revoked, RosterChanged, StudyChanged
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.enrolment.compatibility import disagreement
from consilium.shared.enrolment.invitation import SECRET_BYTES, Invitation
from consilium.shared.enrolment.messages import (
    MOST_VOIDS,
    NODE_ID_BYTES,
    ROUND_BYTES,
    EnrolReply,
    EnrolRequest,
    SizeDeclaration,
    StudyList,
    StudyOffer,
    StudyProgress,
    StudyRequest,
    enrolled_statement,
    offer_statement,
    roster_digest,
)
from consilium.shared.enrolment.site_names import require_site_name
from consilium.shared.errors import AuthenticationError, ProtocolError, SettingsError, StudyError
from consilium.shared.rounds.contents import check_size
from consilium.shared.study.definition import Study
from consilium.shared.version import VERSION

log = logging.getLogger(__name__)

Nodes = Callable[[str, bytes], int]
"""Registers a site's node key with the SuperLink and returns the node's identifier."""


def invite(
    folder: CoordinatorFolder, site: str, *, hours: float = DEFAULT_HOURS, now: float | None = None
) -> Invitation:
    """Make an invitation for a site; an earlier one of the same site is void from now on.

    Raises:
        SettingsError: a site cannot have this name, or the site is enrolled already.
    """
    require_site_name(site)
    secret = secrets.token_bytes(SECRET_BYTES)
    expires = (time.time() if now is None else now) + 3600 * hours
    folder.register().invite(site, secret, expires=expires)
    return Invitation(
        site=site,
        host=folder.settings.host,
        port=folder.settings.port,
        secret=secret,
        coordinator=folder.identity().public,
        authority=folder.certificates.authority_der(),
        expires=int(expires),
    )


def submit(
    register: Register, identity: IdentityKey, audit: AuditLog, study: Study, text: bytes
) -> Roster:
    """Offer a study to its sites under the identities they enrolled with; return the roster.

    Raises:
        StudyError: one of its sites is not enrolled.
        SettingsError: this same study was submitted before.
    """
    members = {m.name: m.identity for m in register.members() if m.revoked is None}
    missing = sorted(set(study.sites) - members.keys())
    if missing:
        raise StudyError(
            f"study {study.name}: site {missing[0]} is not enrolled; "
            f"run 'consilium-coordinator invite {missing[0]}' first"
        )
    roster = Roster(tuple((site, members[site]) for site in sorted(study.sites)))
    register.submit(
        digest=study.digest,
        name=study.name,
        text=text,
        roster=roster,
        signature=identity.sign(offer_statement(text, roster)),
        now=time.time(),
    )
    audit.append(StudyChanged(study=study.name, study_digest=study.digest, state="submitted"))
    return roster


def revoke(register: Register, audit: AuditLog, site: str, reason: str) -> Member:
    """Shut a site out for good; return its last entry in the register.

    Raises:
        SettingsError: no site of this name is enrolled.
    """
    member = register.revoke(site, now=time.time())
    audit.append(Revoked(site=site, reason=reason or "no reason given"))
    return member


@dataclass(frozen=True, kw_only=True)
class EnrolmentService:
    """Answers the requests of sites that do not go to Flower: to enrol, and to see studies.

    Attributes:
        register: invitations, sites and studies.
        identity: signs enrolments.
        audit: the coordinator's log.
        nodes: registers a node key with the SuperLink.
        clock: seconds since 1970.
        voids: returns the numbers of a study's last void rounds, rising.
    """

    register: Register
    identity: IdentityKey
    audit: AuditLog
    nodes: Nodes
    clock: Callable[[], float] = time.time
    voids: Callable[[bytes], tuple[int, ...]] = lambda _: ()

    @property
    def recovery(self) -> RecoveryService:
        """Answers what is asked about recovery."""
        return RecoveryService(register=self.register, audit=self.audit)

    @property
    def rosters(self) -> Rosters:
        """Answers what is asked about rosters of studies that run."""
        return Rosters(register=self.register, identity=self.identity, audit=self.audit)

    def enrol(self, body: bytes) -> bytes:
        """Enrol a site.

        Raises:
            MessageError: a malformed request.
            AuthenticationError: no valid invitation, or keys that the sender does not hold.
            SettingsError: the site or one of its keys is enrolled already.
            ProtocolError: the site's version does not fit the coordinator's.
        """
        request = EnrolRequest.from_bytes(body)
        request.check()
        mismatch = disagreement(VERSION, request.version)
        if mismatch is not None:
            raise ProtocolError(mismatch)
        now = self.clock()
        if not self.register.invited(request.site, request.secret, request.node_key, now=now):
            raise AuthenticationError(
                f"the invitation of site {request.site} is unknown, used or expired; "
                "ask the coordinator for a new one"
            )
        known = self.register.member_by_key(request.node_key)
        if known is None:
            node_id = self.nodes(request.site, request.node_key)
            self.register.enrol(
                request.site,
                identity=request.identity,
                node_key=request.node_key,
                node_id=node_id,
                version=request.version,
                now=now,
            )
            self.audit.append(
                Enrolled(
                    site=request.site,
                    site_identity=request.identity,
                    coordinator_identity=self.identity.public,
                )
            )
            log.info("site %s enrolled", request.site)
        elif (known.name, known.identity) == (request.site, request.identity):
            node_id = known.node_id
        else:
            raise SettingsError("another site enrolled with one of these keys")
        node = node_id.to_bytes(NODE_ID_BYTES, "big")
        statement = enrolled_statement(request.site, request.identity, request.node_key, node)
        return EnrolReply(
            site=request.site, node_id=node, signature=self.identity.sign(statement)
        ).to_bytes()

    def list_studies(self, member: Member) -> bytes:
        """Digests of the open studies that name this site."""
        digests = [study.digest for study in self._offered(member)]
        return StudyList(digests=b"".join(digests)).to_bytes()

    def show_study(self, member: Member, body: bytes) -> bytes:
        """The study asked for, with its roster.

        Raises:
            MessageError: a malformed request.
            SettingsError: no such study is open to this site.
        """
        asked = StudyRequest.from_bytes(body).digest
        for study in self._offered(member):
            if study.digest == asked:
                return StudyOffer(
                    text=study.text,
                    roster=dict(study.roster.members),
                    declared={site: d.to_bytes() for site, d in study.declared.items()},
                    signature=study.signature,
                ).to_bytes()
        raise SettingsError(f"no study {asked.hex()[:16]} is open to site {member.name}")

    def progress(self, member: Member, body: bytes) -> bytes:
        """How far a study is, also one that has ended; for the notices of its sites.

        Raises:
            MessageError: a malformed request.
            SettingsError: no such study names this site.
        """
        asked = StudyRequest.from_bytes(body).digest
        for study in self.register.studies():
            if study.digest == asked and member.name in study.roster:
                voids = [number.to_bytes(ROUND_BYTES, "big") for number in self.voids(asked)]
                return StudyProgress(
                    state=study.state.value, voids=b"".join(voids[-MOST_VOIDS:])
                ).to_bytes()
        raise SettingsError(f"no study {asked.hex()[:16]} names site {member.name}")

    def declare(self, member: Member, body: bytes) -> bytes:
        """Note the size that a site declares for a study; it cannot be changed afterwards.

        Raises:
            MessageError: a malformed request.
            SettingsError: no such study is open to this site, or it declared another size before.
            StudyError: the study does not allow this size.
            AuthenticationError: the site's identity did not sign it for this study.
        """
        message = SizeDeclaration.from_bytes(body)
        declared = Declaration.from_bytes(message.declared)
        for study in self._offered(member):
            if study.digest == message.digest:
                check_size(study.study, member.name, declared.patients)
                site = study.roster.restricted_to([member.name])
                site.with_declared({member.name: declared}, study.digest)
                now = self.register.study(study.digest.hex())
                joins = self.rosters.joins(now, member)
                if joins or now.roster.members == study.roster.members:
                    self.register.declare(study.digest, member.name, declared)
                else:
                    self._take_successor(study, member, declared)
                log.info("site %s declared its size for study %s", member.name, study.name)
                return b""
        raise SettingsError(f"no study {message.digest.hex()[:16]} is open to site {member.name}")

    def _offered(self, member: Member) -> list[Submitted]:
        """The open studies of a site.

        Where it joins, or came back under a new key, they have the roster to be.
        """
        offered = []
        for study in self.register.studies():
            former = dict(study.roster.members).get(member.name)
            if self.rosters.joins(study, member):
                offered.append(self.rosters.to_be(study))
            if former is None or not study.open or member.name in study.gone:
                continue
            if former == member.identity:
                offered.append(study)
            elif study.study.roster_may_change and self.recovery.in_place_of(
                former, member.identity
            ):
                offered.append(self._with_successor(study, member))
        return offered

    def _with_successor(self, study: Submitted, member: Member) -> Submitted:
        """The study with this site under its new identity; its size is to be declared again."""
        roster = Roster(
            tuple(
                (site, member.identity if site == member.name else identity)
                for site, identity in study.roster.members
            )
        )
        return replace(
            study,
            roster=roster,
            declared={site: d for site, d in study.declared.items() if site != member.name},
            signature=self.identity.sign(offer_statement(study.text, roster)),
        )

    def _take_successor(self, offered: Submitted, member: Member, declared: Declaration) -> None:
        """Put a site's new identity into a study's roster from now on.

        Raises:
            SettingsError: it declares another size than it had declared before.
        """
        before = self.register.study(offered.digest.hex())
        known = before.declared.get(member.name)
        if known is not None and known.patients != declared.patients:
            raise _other_size(member.name, known.patients)
        former = dict(before.roster.members)[member.name]
        version = self.register.replace_member(
            offered.digest,
            member.name,
            before=former,
            after=member.identity,
            declared=declared,
            signature=offered.signature,
            now=self.clock(),
        )
        note_roster(
            self.audit, self.register.study(offered.digest.hex()), version, member.name, former,
            member.identity,
        )  # fmt: skip


def dismiss(register: Register, audit: AuditLog, study: Submitted, site: str) -> int:
    """Let a site leave a study for good; return the version of the roster without it.

    The study's sums keep their bounds: threshold, minimum and noise are those of all its sites, and
    hold with fewer of them as they do when one is not there.

    Raises:
        StudyError: too few sites would be left for a sum.
        SettingsError: the study has ended, or it is none of its sites, or left before.
    """
    if not study.open:
        raise SettingsError(f"study {study.name} is {study.state}; nobody leaves it any more")
    parsed = study.study
    left = set(study.roster) - study.gone - {site}
    for group in parsed.groups:
        if len(left & set(group)) < parsed.minimum_sites:
            raise StudyError(
                f"study {study.name}: without {site} a sum would be over {len(left & set(group))} "
                f"sites, and {parsed.minimum_sites} are needed; stop the study, and submit one of "
                "the others"
            )
    version = register.dismiss(study.digest, site, now=time.time())
    former = dict(study.roster.members)[site]
    note_roster(audit, register.study(study.digest.hex()), version, site, former, b"")
    return version


def note_roster(
    audit: AuditLog, study: Submitted, version: int, site: str, before: bytes, after: bytes
) -> None:
    """Record that a study has another roster from now on."""
    audit.append(
        RosterChanged(
            study=study.name,
            study_digest=study.digest,
            version=version,
            roster=roster_digest(study.roster.restricted_to(set(study.roster) - study.gone)),
            site=site,
            before=before,
            after=after,
            by="coordinator",
        )
    )
    log.info("study %s has roster %d: site %s", study.name, version, site)


def _other_size(site: str, known: int) -> SettingsError:
    return SettingsError(
        f"site {site} declared {known} patients for this study before, and a declared size does "
        f"not change; approve with --patients {known}, or ask for the study to be submitted again"
    )
