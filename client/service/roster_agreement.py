"""Agrees to another set of sites for an approved study, and takes it over once all have agreed.

Each step is in the audit log before it is done and may be done again after a crash: the same
signature, the same entry.
"""

import logging
import threading
import time
from dataclasses import dataclass

from consilium.client.hospital.approvals import Approval, Approvals
from consilium.client.hospital.decision_notes import LOCK, DecisionNote, DecisionNotes
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.roster_versions import (
    NextRoster,
    Seen,
    check_next,
    check_rule,
    check_trust,
)
from consilium.client.service.connection import Connection
from consilium.shared.audit.events import RosterAgreed, RosterInForce
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import roster_events
from consilium.shared.clock import utc_now
from consilium.shared.enrolment.roster_version import (
    AGREE_PATH,
    ROSTER_PATH,
    AgreedRoster,
    RosterAgreement,
    RosterReply,
    RosterRequest,
    RosterVersion,
    agreement,
    members_digest,
)
from consilium.shared.errors import ConsiliumError, ProtocolError
from consilium.shared.files.file_lock import file_lock

BY_RULE = "rule: sites join and leave"
EVERY_S, LONGEST_S = 15.0, 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RosterDesk:
    """What it takes to look at the rosters of this site's studies.

    Attributes:
        folder: this site's.
        policy: this site's.
        approvals: this site's.
        audit: this site's.
        connection: to the coordinator.
    """

    folder: SiteFolder
    policy: Policy
    approvals: Approvals
    audit: AuditLog
    connection: Connection

    def follow(self, digest: bytes) -> RosterVersion | None:
        """Take over what is in force by now; return what waits for this site's word, if anything.

        Raises:
            ConsiliumError: a version is shown as in force that this site does not take over, or
                the coordinator cannot be asked.
        """
        while True:
            approval = self.approvals.find(digest)
            if approval is None:
                return None
            shown = self._ask(approval)
            if shown.in_force is None:
                return shown.proposed
            self._take_over(approval, shown.in_force)

    def waiting(self, approval: Approval) -> RosterVersion | None:
        """Return what waits for this site's word, unchecked; nothing is taken over.

        Raises:
            ConsiliumError: the coordinator cannot be asked.
        """
        return self._ask(approval).proposed

    def agreed(self, digest: bytes) -> RosterAgreed | None:
        """Return the newest roster that this site agreed to if it is not in force here yet."""
        events = roster_events(self.audit.path, digest)
        number = Seen.of(events).number
        found = [one for one in events if isinstance(one, RosterAgreed) and one.version > number]
        return found[-1] if found else None

    def agree_by_rule(self, digest: bytes) -> None:
        """Do what :meth:`follow` does, and agree to what is proposed if it is the rule.

        Raises:
            PolicyError: it waits for a person, or this site does not agree to it.
            ConsiliumError: as :meth:`follow`.
        """
        proposed, approval = self.follow(digest), self.approvals.find(digest)
        if proposed is None or approval is None:
            return
        following = self.check(approval, proposed)
        if not self._agreed_before(following):  # or the coordinator did not hear it
            check_rule(following, self.policy)
        with file_lock(self.folder.path / LOCK):
            self.agree(following, by=BY_RULE)

    def check(self, approval: Approval, version: RosterVersion) -> NextRoster:
        """Return what a proposed version changes, if this hospital may agree to it.

        Raises:
            ConsiliumError: as :func:`check_next` and :func:`check_trust`.
        """
        following = check_next(approval, version, self._coordinator, self._seen(approval))
        check_trust(following, self.policy, self.folder.vouchers().trust())
        return following

    def agree(self, following: NextRoster, *, by: str) -> None:
        """Sign a checked version; the caller holds the lock of decisions.

        Raises:
            ConsiliumError: the coordinator cannot be asked, or proposes it no more.
        """
        if not self._agreed_before(following):
            self.audit.append(
                RosterAgreed(
                    study=following.study.name,
                    study_digest=following.study.digest,
                    version=following.version.number,
                    roster=following.digest,
                    joined=following.joined,
                    left=following.left,
                    by=by,
                )
            )
        statement = agreement(following.version, following.roster)
        message = RosterAgreement(
            study=following.study.digest,
            number=following.version.number,
            signature=self.folder.identity().sign(statement),
        )
        self.connection.post(AGREE_PATH, message.to_bytes())
        log.info("%s: agreed to roster %d (%s)", following.study.name, message.number, by)

    def _take_over(self, approval: Approval, agreed: AgreedRoster) -> None:
        """Put a version in the place of the roster approved here, or leave the study.

        Raises:
            ConsiliumError: it is none that this site takes over.
        """
        site, study = self.folder.owner(), approval.study
        seen = self._seen(approval)
        following = check_next(approval, agreed.version, self._coordinator, seen)
        agreed.check_agreed(following.roster, following.staying)
        if site not in following.left:
            check_trust(following, self.policy, self.folder.vouchers().trust())
        with file_lock(self.folder.path / LOCK):
            if following.version.number > seen.number:
                self.audit.append(
                    RosterInForce(
                        study=study.name,
                        study_digest=study.digest,
                        version=following.version.number,
                        roster=following.digest,
                        round=agreed.round,
                        joined=following.joined,
                        left=following.left,
                    )
                )
            if site in following.left:
                self._leave(following)
            else:
                self.approvals.take_version(agreed.version)
        log.info(
            "study %s has roster %d from round %d on: %s",
            study.name, following.version.number, agreed.round, following.in_words,
        )  # fmt: skip

    def _leave(self, following: NextRoster) -> None:
        """End the approval of a study that this site left; its budget stays spent."""
        digest = following.study.digest
        note = DecisionNote(
            state="left",
            by=("coordinator",),
            at=utc_now().isoformat(timespec="seconds"),
            reason=f"roster {following.version.number}",
        )
        DecisionNotes(self.folder.path / "approvals").write(digest, note)
        self.approvals.withdraw(digest)

    def _ask(self, approval: Approval) -> RosterReply:
        request = RosterRequest(
            study=approval.study.digest,
            number=self._seen(approval).least,
            before=members_digest(approval.roster),
        )
        return RosterReply.from_bytes(self.connection.post(ROSTER_PATH, request.to_bytes()))

    def _seen(self, approval: Approval) -> Seen:
        return Seen.of(roster_events(self.audit.path, approval.study.digest))

    def _agreed_before(self, following: NextRoster) -> bool:
        """Whether the log says that this site agreed; the coordinator may still not know."""
        events = roster_events(self.audit.path, following.study.digest)
        return any(
            isinstance(event, RosterAgreed)
            and (event.version, event.roster) == (following.version.number, following.digest)
            for event in events
        )

    @property
    def _coordinator(self) -> bytes:
        return self.folder.enrolment().coordinator


class RosterWatch:
    """Looks at the rosters of this site's studies now and then, while its process runs.

    What the rule allows is agreed to, and what waits for a person is logged, once. A site that left
    a study learns it here, since no message of the study reaches it any more. A coordinator that
    refuses to show the rosters of a study is asked less and less often.

    Args:
        desk: this site's.
        every_s: seconds between two looks.
    """

    def __init__(self, desk: RosterDesk, *, every_s: float = EVERY_S) -> None:
        self._desk, self._every_s = desk, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="roster watch", daemon=True)
        self._told: dict[bytes, str] = {}
        self._due: dict[bytes, tuple[float, float]] = {}  # when to ask again, after which pause

    def __enter__(self) -> "RosterWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Look at every approved study once."""
        for approval in self._desk.approvals:
            digest, now = approval.study.digest, time.monotonic()
            due, pause = self._due.get(digest, (now, self._every_s))
            if now < due:
                continue
            try:
                self._desk.agree_by_rule(digest)
                self._told.pop(digest, None)
                self._due.pop(digest, None)
            except ConsiliumError as error:
                if self._told.get(digest) != str(error):
                    log.warning("study %s: %s", approval.study.name, error)
                self._told[digest] = str(error)
                if isinstance(error, ProtocolError):
                    self._due[digest] = (now + pause, min(2 * pause, LONGEST_S))

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.look()
            except ConsiliumError as error:
                log.warning("the rosters cannot be looked at: %s", error)
