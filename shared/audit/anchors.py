"""Each side's record of the other side's audit heads: what makes cutting off a log visible.

Whoever owns a disk can cut off the end of the log on it, or write all of it anew with its own key.
A later head, signed by the old key and recorded by the other side, then proves it.
"""

from collections.abc import Mapping

from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import AuditEvent, Diverged, HeadSeen, Refused, RosterChanged
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import read_lines
from consilium.shared.errors import AuditError, ProtocolError


class Anchors:
    """Heads that other sides have shown: all of them in our log, the last of each in memory.

    A peer shows rising heads in the rounds of one study. Studies that run at the same time overtake
    each other, so heads are compared within a study.

    Args:
        log: our own log; it is read once for the last head of each peer in each study.

    Raises:
        AuditError: the log cannot be read.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._known: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        for line in read_lines(log.path):
            try:
                event = AuditEntry.from_line(line).event
            except AuditError:
                continue  # check_log names it
            if isinstance(event, HeadSeen):
                self._known[event.peer, event.study_digest] = (event.number, event.digest)
            if isinstance(event, Diverged):
                shown = (event.shown_number, event.shown_digest)
                self._known[event.peer, event.study_digest] = shown
            if isinstance(event, RosterChanged):
                self.forget(event.site, event.study_digest)

    def forget(self, peer: str, study_digest: bytes) -> None:
        """Expect a new log of this peer in this study: it came back under another identity."""
        self._known.pop((peer, study_digest), None)

    def record(
        self, shown: Mapping[str, bytes], identities: Mapping[str, bytes], *, study_digest: bytes
    ) -> dict[str, str]:
        """Note the heads shown in our log, on disk, and say what is wrong with them.

        A head with a lower number than the one shown before, or with its number and another digest,
        means that this peer's log was cut, restored from a backup or written anew. That is evidence
        for people, not a reason to stop a study: it is recorded as a divergence, and the next head
        is compared with the new one.

        Args:
            shown: encoded head by the peer that showed it; empty if it showed none.
            identities: pinned Ed25519 identity (32 bytes) by peer.
            study_digest: of the study in whose round the heads were shown.

        Returns:
            One sentence for each peer whose head is missing, not its own, or does not follow on.

        Raises:
            AuditError: the heads could not be recorded.
        """
        events: list[AuditEvent] = []
        wrong: dict[str, str] = {}
        for peer, encoded in shown.items():
            try:
                if not encoded:
                    raise ProtocolError(f"{peer} showed no audit head in this round")
                head = AuditHead.from_bytes(encoded)
                head.verify(peer, *[identities[peer]] if peer in identities else [])
            except ProtocolError as error:
                wrong[peer] = str(error)
                events.append(
                    Refused(
                        peer=peer,
                        asked="audit-head",
                        code=type(error).__name__,
                        sentence=str(error),
                    )
                )
                continue
            events.append(self._event(head, study_digest, wrong))
        if events:
            self._log.append(*events)
        return wrong

    def _event(self, head: AuditHead, study: bytes, wrong: dict[str, str]) -> AuditEvent:
        number, digest = self._known.get((head.owner, study), (0, b""))
        self._known[head.owner, study] = (head.number, head.digest)
        if head.number > number or (head.number, head.digest) == (number, digest):
            return head.as_event(study)
        wrong[head.owner] = (
            f"the audit log of {head.owner} stands at entry {head.number} and stood at entry "
            f"{number} before: it was cut, restored from an older backup, or written anew; "
            "compare both logs with 'audit verify --peer'"
        )
        return Diverged(
            peer=head.owner,
            study_digest=study,
            known_number=number,
            known_digest=digest,
            shown_number=head.number,
            shown_digest=head.digest,
            shown_signature=head.signature,
        )
