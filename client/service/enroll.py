"""Enrolment: site and coordinator exchange and pin each other's keys, once, by an invitation.

A site that was revoked enrols again under its identity, with its ledger and log, and a new node
key. A hospital whose machine is lost enrols a new one under a new identity with its recovery code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from consilium.client.hospital.budget_certificates import read_certificates
from consilium.client.hospital.folder import Enrolment, SiteFolder, public_pem
from consilium.client.ledger.certificate import SpentBudget, from_bytes
from consilium.client.service.connection import Connection
from consilium.client.service.pinned_connection import budget_certificates, connect, proxy_of
from consilium.shared.audit.events import AuditEvent, BudgetCarried, Enrolled
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.site_record import read_site_record
from consilium.shared.crypto.transcript import sha256
from consilium.shared.enrolment.invitation import Invitation
from consilium.shared.enrolment.messages import (
    ENROL_PATH,
    EnrolReply,
    EnrolRequest,
    enrol_statement,
)
from consilium.shared.enrolment.recovery import (
    BIND_PATH,
    CLAIM_PATH,
    SUCCEED_PATH,
    BudgetCertificate,
    RecoveryBinding,
    RecoveryClaim,
    RecoveryCode,
    RecoveryGrant,
    Succession,
)
from consilium.shared.errors import AuditError, AuthenticationError, ProtocolError, SettingsError
from consilium.shared.version import VERSION


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What a recovery code brought back: the former identity's binding, certificate and budget."""

    binding: RecoveryBinding
    certificate: BudgetCertificate
    spent: SpentBudget


def enroll(folder: SiteFolder, invitation: Invitation) -> Enrolment:
    """Enrol this site with the inviting coordinator and pin what was agreed.

    The private keys stay in the folder. If the answer is lost, the same token works again.

    Raises:
        SettingsError: the settings name another site than the invitation.
        AuthenticationError: the other end is not the inviting coordinator, or it refuses.
        UnreachableError: no answer.
    """
    if folder.is_enrolled:
        folder.renew_node_key()  # the coordinator may have shut the old one out
    request = enrol_request(folder, invitation)
    with _line(folder, invitation) as connection:
        reply = EnrolReply.from_bytes(connection.post(ENROL_PATH, request.to_bytes()))
    return pin_reply(folder, invitation, reply)


def join(folder: SiteFolder, invitation: Invitation) -> Enrolment:
    """Enrol this site, note it in its audit log, and leave its first budget certificate.

    Raises:
        ConsiliumError: as :func:`enroll`; or the log cannot be written.
    """
    pinned = enroll(folder, invitation)
    audit = open_audit(folder)
    audit.append(_enrolled(folder, pinned))
    leave_recovery(folder, audit)
    return pinned


def leave_recovery(folder: SiteFolder, audit: AuditLog) -> bool:
    """Bind this site's recovery code at the coordinator and leave a certificate there.

    Returns:
        Whether it was done: an older coordinator keeps neither, and an older site has no code.

    Raises:
        UnreachableError: no answer.
        SettingsError: the hospital's second place cannot be written.
    """
    keys = folder.recovery_keys()
    if keys is None:
        return False
    with connect(folder) as connection:
        binding = keys.bind(folder.owner(), folder.identity())
        try:
            connection.post(BIND_PATH, binding.to_bytes())
        except ProtocolError:
            return False
        made = budget_certificates(folder, folder.ledger(folder.policy()), connection)
        if made is not None:
            releases = read_site_record(audit.path).releases
            head = audit.head_at(releases[-1].number) if releases else None
            made.issue((head or audit.head()).to_bytes())
    return True


def recover(
    folder: SiteFolder,
    invitation: Invitation,
    code: RecoveryCode,
    *,
    places: Sequence[Path],
    heads: Sequence[AuditHead],
) -> tuple[Enrolment, Recovered]:
    """Enrol a new machine as the same hospital, with the budget that it has left.

    The budget is on disk before the site is enrolled: whatever ends in between, the ledger of the
    new machine never knows of less. Repeating it with the same token goes on where it ended.

    Args:
        folder: one that ``init`` has just made.
        invitation: a new one for this site.
        code: from the paper.
        places: the hospital's second places, as far as it has any.
        heads: what other hospitals and the coordinator know of the former audit log.

    Raises:
        SettingsError: the folder was used before, or a place cannot be read.
        AuditError: only older certificates are at hand than somebody has seen, or none.
        AuthenticationError: the code is another one, or the coordinator shows what it did not sign.
    """
    enrolled = folder.is_enrolled
    log = folder.path / AUDIT_FILE
    if enrolled and log.exists() and not read_site_record(log).former:
        raise SettingsError(
            f"{folder.path}: this site is enrolled and has a budget of its own; use the recovery "
            "code in a folder that 'init' has just made"
        )
    key = folder.enrolling_node_key()
    claim = RecoveryClaim.make(code, invitation.secret, invitation.site, public_pem(key))
    with _line(folder, invitation) as connection:
        grant = RecoveryGrant.from_bytes(connection.post(CLAIM_PATH, claim.to_bytes()))
    found = newest_budget(grant, invitation.site, code, places=places, heads=heads)
    folder.take_split_key(found.spent.split_key)
    folder.ledger(folder.policy()).carry(found.spent)
    pinned = folder.enrolment() if enrolled else enroll(folder, invitation)
    audit = open_audit(folder)
    if not read_site_record(audit.path).former:
        audit.append(_enrolled(folder, pinned), *_carried(found))
    succession = Succession.make(code, found.binding, found.certificate.head, folder.identity())
    with connect(folder) as connection:
        connection.post(SUCCEED_PATH, succession.to_bytes())
    leave_recovery(folder, audit)
    return pinned, found


def newest_budget(
    grant: RecoveryGrant,
    site: str,
    code: RecoveryCode,
    *,
    places: Sequence[Path],
    heads: Sequence[AuditHead],
) -> Recovered:
    """Return the newest budget that coordinator and second places show, if none is known newer.

    Guarantee: it is a budget that this hospital's former identity certified, no older than any
    certificate at hand and any head given.

    Raises:
        AuthenticationError: what is shown is not signed by the hospital that made the code.
        AuditError: there is none, or somebody has seen a later entry of the former log.
    """
    binding = grant.binding
    binding.check()
    if binding.site != site or binding.keys != code.endorse(binding.identity):
        raise AuthenticationError(
            f"the coordinator shows another hospital's recovery code for site {site}; telephone it"
        )
    shown = [] if grant.certificate is None else [grant.certificate]
    own = [one for place in places for one in read_certificates(place)]
    certificates = shown + [one for one in own if one.identity == binding.identity]
    for one in certificates:
        one.check(site, binding.identity)
    if not certificates:
        raise AuditError(
            f"no budget certificate of site {site} is at hand, so nobody can tell what was spent; "
            "name the hospital's second place with --second-place, or enrol without the code and "
            "run 'consilium-site write-off' first"
        )
    newest = max(certificates, key=lambda one: one.number)
    known = AuditHead.from_bytes(newest.head)
    for head in heads:
        head.verify(site, binding.identity)
        if head.number > known.number or (
            head.number == known.number and head.digest != known.digest
        ):
            raise AuditError(
                f"the newest budget certificate at hand is of entry {known.number} of the former "
                f"audit log, and entry {head.number} was seen: budget that was spent since would "
                "be forgotten; name the hospital's second place with --second-place, ask the "
                "coordinator for a newer one, or enrol without the code and write the budget off"
            )
    spent = from_bytes(newest.open(code), binding.identity)
    return Recovered(binding=binding, certificate=newest, spent=spent)


def enrol_request(folder: SiteFolder, invitation: Invitation) -> EnrolRequest:
    """Return what the site sends: its public keys, signed with them, and the invitation's secret.

    Raises:
        SettingsError: the settings name another site than the invitation.
    """
    named = folder.settings().site
    if named is not None and named != invitation.site:
        raise SettingsError(
            f"{folder.path / 'site.toml'}: names site {named!r}, and the invitation is for "
            f"{invitation.site!r}; ask for an invitation of this site, or correct the setting"
        )
    identity, node_key = folder.identity(), folder.enrolling_node_key()
    public = public_pem(node_key)
    statement = enrol_statement(invitation.secret, invitation.site, identity.public, public)
    return EnrolRequest(
        secret=invitation.secret,
        site=invitation.site,
        identity=identity.public,
        node_key=public,
        version=VERSION,
        identity_signature=identity.sign(statement),
        node_signature=node_key.sign(statement, ec.ECDSA(hashes.SHA256())),
    )


def pin_reply(folder: SiteFolder, invitation: Invitation, reply: EnrolReply) -> Enrolment:
    """Check the coordinator's answer and store what was agreed.

    Raises:
        AuthenticationError: the answer is not signed by the inviting coordinator for these keys.
    """
    node_key = folder.enrolling_node_key()
    reply.check(invitation.coordinator, folder.identity().public, public_pem(node_key))
    enrolment = Enrolment(
        site=invitation.site,
        node_id=reply.node_id,
        host=invitation.host,
        port=invitation.port,
        coordinator=invitation.coordinator,
        authority=invitation.authority,
    )
    folder.pin(enrolment)  # before the key: after a crash between the two the token works again
    folder.take_next_node_key()
    return enrolment


def _line(folder: SiteFolder, invitation: Invitation) -> Connection:
    return Connection(
        invitation.host, invitation.port, invitation.authority, proxy=proxy_of(folder)
    )


def _enrolled(folder: SiteFolder, pinned: Enrolment) -> Enrolled:
    return Enrolled(
        site=pinned.site,
        site_identity=folder.identity().public,
        coordinator_identity=pinned.coordinator,
    )


def _carried(found: Recovered) -> list[AuditEvent]:
    certificate = sha256(found.certificate.to_bytes())
    identity = found.binding.identity
    return [
        BudgetCarried(
            identity=identity,
            number=found.certificate.number,
            certificate_digest=certificate,
            releases=len(found.spent.releases),
            written_off=found.spent.written_off,
        ),
        *found.spent.events(identity, certificate),
    ]
