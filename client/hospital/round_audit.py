"""A site's audit entries of a round: heads of the other logs, and what the site released.

A site shows one head of its own log: that of its last release. So nobody can make its log look
longer than what left it, say by asking for something that it refuses and notes.
"""

import logging
import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace

from consilium.client.hospital.peer_heads import PeerHeads
from consilium.client.ledger.releases import Release, charges_to_json
from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.events import AuditEvent, Charged, OptedOut, Released
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.site_record import read_site_record
from consilium.shared.crypto.keys import Roster
from consilium.shared.crypto.transcript import sha256
from consilium.shared.errors import AuditError, OldStateError, ProtocolError
from consilium.shared.rounds.contents import RoundConfiguration
from consilium.shared.secure_sum.messages import MaskedUpdate
from consilium.shared.study.definition import Study

COORDINATOR = "coordinator"

log = logging.getLogger(__name__)


class RoundAudit:
    """Writes a round's entries to the site's log, and compares heads before anything is done.

    Args:
        audit: this site's log.
        identity: this site's Ed25519 identity (32 bytes).
        coordinator: the coordinator's, as pinned at enrolment.
        heads: what this site knows of the other sites' logs.

    Raises:
        AuditError: the log cannot be read.
    """

    def __init__(
        self, audit: AuditLog, *, identity: bytes, coordinator: bytes, heads: PeerHeads
    ) -> None:
        self._audit, self._anchors, self._heads = audit, Anchors(audit), heads
        self._identity, self._identities = identity, {COORDINATOR: coordinator}
        releases = read_site_record(audit.path).releases
        self._last_release = audit.head_at(releases[-1].number) if releases else None

    @property
    def last_release(self) -> bytes:
        """The head that this log had at its last release, encoded; empty if nothing was released.

        It is what this site shows of its log when a run opens.
        """
        return b"" if self._last_release is None else self._last_release.to_bytes()

    def check_own(self, study_digest: bytes, shown: bytes) -> None:
        """Refuse if this log is older than a head that this site once signed.

        Args:
            study_digest: of the study in which it was shown.
            shown: what another side shows as this site's head, encoded; empty if it shows none.

        Raises:
            AuditError: this log has no such entry, or another one in its place.
            ProtocolError: it is no head signed by this site.
        """
        if shown:
            head = AuditHead.from_bytes(shown)
            head.verify(self._audit.owner, self._identity)
            try:
                check_not_older(self._audit, head)
            except AuditError:
                self._heads.note(study_digest, {self._identity: head})  # so that no start forgets
                raise
        check_not_older(self._audit, self._heads.newest(self._identity))

    def begin(
        self,
        study: Study,
        asked: RoundConfiguration,
        roster: Roster,
        participants: Collection[str],
    ) -> None:
        """Compare the heads that the round's configuration shows, and record the coordinator's.

        Guarantee: if this returns, this log continues every head of its own that was ever shown to
        it, and no other participant's log is shown at an earlier entry than this site knows of.

        Args:
            study: the approved study.
            asked: what the round is for; all participants are shown the same.
            roster: the study's sites and their identities.
            participants: names of the sites that take part in the round.

        Raises:
            AuditError: this site's log went back, or what was shown could not be recorded.
            ProtocolError: another site's log went back, or a head is not signed by its site.
        """
        shown = {head.owner: head for head in map(AuditHead.from_bytes, asked.site_heads)}
        own = shown.pop(self._audit.owner, None)
        self.check_own(study.digest, b"" if own is None else own.to_bytes())
        verified = self._check_peers(study.digest, shown, dict(roster.members), participants)
        if own is not None:
            verified[self._identity] = own
        self._heads.note(study.digest, verified)
        wrong = self._anchors.record(
            {COORDINATOR: asked.audit_head}, self._identities, study_digest=study.digest
        )
        for sentence in wrong.values():
            log.warning("%s", sentence)

    def _check_peers(
        self,
        study_digest: bytes,
        shown: dict[str, AuditHead],
        identities: dict[str, bytes],
        participants: Collection[str],
    ) -> dict[bytes, AuditHead]:
        """Return the participants' heads by identity, each checked against what is known."""
        least = self._heads.least(study_digest)
        verified = {}
        for site in sorted(set(participants) - {self._audit.owner}):
            head, identity = shown.get(site), identities[site]
            number = 0 if head is None else head.number
            if number < least.get(identity, 0):
                raise ProtocolError(
                    f"the audit log of site {site} is shown at entry {number}, and this site knows "
                    f"that it had come to entry {least[identity]}: that hospital was put back to "
                    "an older state, or its last release is hidden; ask the hospital, and compare "
                    "with 'consilium-site audit head'",
                    case="peer-log",
                )
            if head is not None:
                head.verify(site, identity)
                verified[identity] = head
        return verified

    def release(
        self,
        study: Study,
        asked: RoundConfiguration,
        masked: MaskedUpdate,
        spent: Sequence[float],
        study_hash: bytes,
        *,
        charges: Sequence[Release] = (),
        own_part: bytes = b"",
        opted_out: tuple[int, int] | None = None,
    ) -> MaskedUpdate:
        """Record a masked update about to leave; return it with this log's new head attached.

        Args:
            study: the approved study.
            asked: what the round is for.
            masked: what will leave; the entry holds the SHA-256 of its packed vector.
            spent: the study's epsilon after each release charged for it; empty without privacy.
            study_hash: identifies the run.
            charges: the releases charged for it, of which the log can charge a lost ledger again.
            own_part: SHA-256 of the file with the part of the model that stays here, or empty.
            opted_out: how many persons who opted out were left out, and how many the hospital's
                file names; None if it keeps none.

        Raises:
            AuditError: it could not be recorded, so it must not leave.
        """
        events: list[AuditEvent] = []
        if opted_out is not None:
            left_out, named = opted_out
            events.append(
                OptedOut(
                    study_digest=study.digest,
                    round=masked.round,
                    named=named,
                    left_out=left_out,
                    blind=secrets.token_bytes(32),
                )
            )
        if charges or own_part:
            events.append(
                Charged(
                    study=study.name,
                    study_digest=study.digest,
                    study_hash=study_hash,
                    round=masked.round,
                    study_epsilon=study.privacy.epsilon if charges else None,
                    study_delta=study.privacy.delta if charges else None,
                    charges=charges_to_json(charges),
                    own_part=own_part,
                )
            )
        released = Released(
            study_digest=study.digest,
            study_hash=study_hash,
            round=masked.round,
            purpose=asked.purpose.value,
            message_digest=sha256(masked.packed),
            epsilon=max(spent) if spent else None,
            delta=study.privacy.delta if spent else None,
        )
        head = self._audit.append(*events, released)
        if self._last_release is None or head.number > self._last_release.number:
            self._last_release = head  # another study's release may have overtaken this one
        return replace(masked, audit_head=head.to_bytes())

    def opened(self, study: Study, roster: Roster, survivors: Collection[str]) -> None:
        """Note whose releases the sum holds that this site is about to help open.

        Raises:
            AuditError: it could not be noted, so the sum must not be opened.
        """
        identities = dict(roster.members)
        others = [identities[site] for site in survivors if site != self._audit.owner]
        self._heads.released(study.digest, others)


def check_not_older(audit: AuditLog, head: AuditHead | None) -> None:
    """Refuse a log that does not continue a head of it that its owner signed.

    Raises:
        OldStateError: it has no such entry, or another one in its place.
    """
    if head is None:
        return
    found = audit.head_at(head.number)
    if found is None or found.digest != head.digest:
        ends = audit.head().number
        state = (
            f"ends at entry {ends}" if ends < head.number else f"has another entry {head.number}"
        )
        raise OldStateError(
            f"this site's audit log {state}, and others were shown entry {head.number}, signed "
            "by this site: its folder was put back to an older state, whose ledger does not know "
            "what was spent since; restore a newer backup, or run 'consilium-site write-off'"
        )
