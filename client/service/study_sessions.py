"""Passes each message to the session of its study; there is one for each approved study.

The approval is looked up on disk for every message, and its roster is held against the vouchers
there, so an approval or a voucher given or withdrawn while the site runs takes effect with the next
message.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from consilium.client.hospital.approvals import Approval, Approvals
from consilium.client.round.answer import Answer, answer_or_refuse
from consilium.shared.audit.events import Refused
from consilium.shared.audit.log import AuditLog
from consilium.shared.errors import ConsiliumError, MessageError, PolicyError, ProtocolError
from consilium.shared.secure_sum.messages import Action, ChannelRequest
from consilium.shared.wire.encoding import VECTOR_BYTES, open_envelope

if TYPE_CHECKING:  # with a session comes PyTorch, which a site without a study does without
    from consilium.client.round.session import Session

PEER = "coordinator"

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _OpenSession:
    """A session, and the approval under which it was opened, with its stamp."""

    session: "Session"
    approval: Approval
    stamp: tuple[int, int]


class StudySessions:
    """Answers every action of every approved study, and refuses all others.

    Args:
        site: this site's name.
        approvals: the studies approved at this site.
        check_roster: refuses an approval whose roster this site does not trust, as things stand.
        open_session: opens a session for an approval; may refuse.
        audit: the log in which refusals are recorded, as they are told.
        note: called with a refusal whose whole reason is a new one; keeps it at the site.
        renew: called when a run opens that is not known here: asks whether the study has another
            roster by now, and takes it over if this hospital's rules allow it.

    Attributes:
        longest_timeout_s: of a round of those studies that had a session here; None before any has.
    """

    def __init__(
        self,
        site: str,
        approvals: Approvals,
        check_roster: Callable[[Approval], None],
        open_session: Callable[[Approval], "Session"],
        audit: AuditLog,
        *,
        note: Callable[[Action, Answer], None] = lambda _action, _answer: None,
        renew: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self.site, self._note, self._renew = site, note, renew
        self._approvals, self._check_roster = approvals, check_roster
        self._open_session, self._audit = open_session, audit
        self._sessions: dict[bytes, _OpenSession] = {}
        self._runs: dict[bytes, bytes] = {}  # study hash of a run -> digest of its study
        self._last_refusal: tuple[str, str] | None = None
        self._last_reason: str | None = None
        self.longest_timeout_s: float | None = None

    def handle(self, action: Action, body: bytes) -> Answer:
        """Answer one message; a refusal states its code and is recorded in the log."""
        answer = answer_or_refuse(self.site, action, partial(self._answer, action, body))
        self._note_refusal(action, answer)
        return answer

    def _answer(self, action: Action, body: bytes) -> bytes:
        return self._session(action, body).answer(action, body)

    def _session(self, action: Action, body: bytes) -> "Session":
        if action is Action.CHANNEL:
            request = ChannelRequest.from_bytes(body)
            approved = self._approvals.stamp(request.study_digest) is not None
            if approved and request.study_hash not in self._runs:
                self._renew(request.study_digest)
            session = self._approved(request.study_digest)
            self._runs[request.study_hash] = request.study_digest
            return session
        digest = self._runs.get(_run_of(body))
        if digest is None:
            raise ProtocolError(
                f"site {self.site} has no open run of this study; ask for its channel key first",
                case="no-open-run",
            )
        return self._approved(digest)

    def _approved(self, digest: bytes) -> "Session":
        stamp = self._approvals.stamp(digest)
        known = self._sessions.get(digest)
        if stamp is not None and known is not None and known.stamp == stamp:
            self._check_roster(known.approval)
            return known.session
        if self._sessions.pop(digest, None) is not None:  # another roster has other runs
            self._runs = {run: of for run, of in self._runs.items() if of != digest}
        approval = self._approvals.find(digest) if stamp is not None else None
        if approval is None or stamp is None:
            raise PolicyError(
                f"site {self.site} has not approved study {digest.hex()[:16]}; "
                "its hospital must review and approve it",
                case="not-approved",
            )
        self._check_roster(approval)
        session = self._open_session(approval)
        timeout_s = approval.study.aggregation.round_timeout_s
        self.longest_timeout_s = max(timeout_s, self.longest_timeout_s or 0.0)
        self._sessions[digest] = _OpenSession(session=session, approval=approval, stamp=stamp)
        return session

    def _note_refusal(self, action: Action, answer: Answer) -> None:
        """Record a refusal; identical refusals in a row are recorded once."""
        refusal = answer.refusal
        if refusal is None:
            self._last_refusal = self._last_reason = None
            return
        if answer.reason != self._last_reason:
            self._last_reason = answer.reason
            self._note(action, answer)
        if (refused := (action.value, refusal.code)) == self._last_refusal:
            return
        self._last_refusal = refused
        try:
            self._audit.append(
                Refused(peer=PEER, asked=action.value, code=refusal.code, sentence=refusal.sentence)
            )
        except ConsiliumError as error:
            log.error("a refusal could not be recorded: %s", error)


def _run_of(body: bytes) -> bytes:
    """Return the study hash that a message is bound to, the first field of every such message."""
    _, plain = open_envelope(body, VECTOR_BYTES)
    if not isinstance(plain, list) or not plain or not isinstance(plain[0], bytes):
        raise MessageError("a message that names no run of a study")
    return plain[0]
