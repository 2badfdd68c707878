"""Takes over another roster of an approved study: by the hospital's rule, or by a person."""

import logging
from functools import partial

from consilium.client.hospital.approvals import Approval, Approvals
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.roster_change import NewKey, check_new_key, new_keys
from consilium.client.service.connection import Connection
from consilium.client.service.offers import fetch_offer
from consilium.client.service.roster_agreement import RosterDesk
from consilium.shared.audit.events import Approved, RosterChanged
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import roster_events
from consilium.shared.enrolment.messages import StudyOffer, roster_digest
from consilium.shared.enrolment.recovery import (
    SUCCESSOR_PATH,
    Succession,
    SuccessorReply,
    SuccessorRequest,
)
from consilium.shared.errors import ConsiliumError, PolicyError

BY_RULE = "rule: same hospital, new key"

log = logging.getLogger(__name__)


def renew_roster(
    folder: SiteFolder,
    policy: Policy,
    approvals: Approvals,
    audit: AuditLog,
    connection: Connection,
    digest: bytes,
) -> None:
    """Take over a study's roster as it is by now, if this hospital agreed to it or it is the rule.

    Other sites: all that stay must have agreed, this one among them. Other keys: of the same
    hospitals, as their recovery codes prove, unless the policy leaves that to a person. What is not
    taken over is left as it was approved: the run is then refused, as one with another
    roster, and the reason stands in this site's log.
    """
    desk = RosterDesk(
        folder=folder, policy=policy, approvals=approvals, audit=audit, connection=connection
    )
    try:
        desk.follow(digest)
    except ConsiliumError as error:
        log.warning("the sites of study %s stay as approved: %s", digest.hex()[:16], error)
    try:
        approval = approvals.find(digest)
        if approval is None:
            return
        offer = fetch_offer(connection, digest)
        changes = changes_of(approval, offer, folder, connection)
        if not changes:
            return
        if not policy.new_keys_by_rule:
            raise PolicyError(
                "this hospital's policy leaves new keys to a person ([roster] new_keys_by_rule); "
                "run 'consilium-site roster STUDY'"
            )
        for change in changes:
            check_new_key(change, folder.heads().newest)
        accept(folder, approvals, audit, approval, offer, changes, by=BY_RULE, policy=policy)
    except ConsiliumError as error:
        log.warning("the roster of study %s stays as approved: %s", digest.hex()[:16], error)


def changes_of(
    approval: Approval, offer: StudyOffer, folder: SiteFolder, connection: Connection
) -> tuple[NewKey, ...]:
    """Return which sites stand under other keys in an offer than in the approval.

    Raises:
        AuthenticationError: the offer is not the coordinator's.
        PolicyError: it is of other sites.
    """
    _, offered = offer.check(folder.enrolment().coordinator)
    return new_keys(approval.roster, offered, partial(succession_of, connection))


def succession_of(connection: Connection, identity: bytes) -> Succession | None:
    """Return what the coordinator shows for the successor of an identity; it may be false.

    Raises:
        UnreachableError: no answer. MessageError: it is malformed.
    """
    request = SuccessorRequest(identity=identity)
    reply = connection.post(SUCCESSOR_PATH, request.to_bytes())
    return SuccessorReply.from_bytes(reply).succession


def accept(
    folder: SiteFolder,
    approvals: Approvals,
    audit: AuditLog,
    approval: Approval,
    offer: StudyOffer,
    changes: tuple[NewKey, ...],
    *,
    by: str,
    policy: Policy,
) -> Approval:
    """Take an offer's roster over: proofs kept, entries written, then the approval replaced.

    Args:
        folder: this site's.
        approvals: this site's.
        audit: this site's.
        policy: this site's.
        approval: as it was.
        offer: with the new roster.
        changes: what differs, as checked.
        by: the rule or the person that decided.

    Raises:
        StudyError: the study's sites keep control variates.
        PolicyError: the roster is not one that this hospital trusts.
    """
    study = approval.study
    study.check_roster_may_change()
    checked = approvals.check(offer)
    for change in changes:
        for proof in change.proofs:
            folder.successions().keep(proof)
    policy.check_roster(study, checked.roster, folder.vouchers().trust())
    events = roster_events(audit.path, study.digest)
    version = 1 + max((e.version for e in events if not isinstance(e, Approved)), default=1)
    audit.append(
        *(
            RosterChanged(
                study=study.name,
                study_digest=study.digest,
                version=version,
                roster=roster_digest(checked.roster),
                site=change.site,
                before=change.before,
                after=change.after,
                by=by,
            )
            for change in changes
        )
    )
    renewed = approvals.replace_roster(offer)
    names = ", ".join(change.site for change in changes)
    log.info("study %s: site %s stands under a new key (%s)", study.name, names, by)
    return renewed
