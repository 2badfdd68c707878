"""A site's audit entries of a round: the coordinator's audit head, and what the site released."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.events import Released
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.transcript import sha256
from consilium.shared.rounds.contents import RoundConfiguration
from consilium.shared.secure_sum.messages import MaskedUpdate
from consilium.shared.study.definition import Study

COORDINATOR = "coordinator"

log = logging.getLogger(__name__)


class RoundAudit:
    """Writes a round's entries to the site's log, the heads of the coordinator's log among them.

    Args:
        audit: this site's log.
        coordinator: the coordinator's Ed25519 identity as pinned at enrolment.

    Raises:
        AuditError: the log cannot be read.
    """

    def __init__(self, audit: AuditLog, coordinator: bytes) -> None:
        self._audit, self._anchors = audit, Anchors(audit)
        self._identities = {COORDINATOR: coordinator}

    def begin(self, study: Study, asked: RoundConfiguration) -> None:
        """Record the head of the coordinator's log, which every site of the round was shown.

        Raises:
            AuditError: it could not be recorded.
        """
        wrong = self._anchors.record(
            {COORDINATOR: asked.audit_head}, self._identities, study_digest=study.digest
        )
        for sentence in wrong.values():
            log.warning("%s", sentence)

    def release(
        self,
        study: Study,
        asked: RoundConfiguration,
        masked: MaskedUpdate,
        spent: Sequence[float],
        study_hash: bytes,
    ) -> MaskedUpdate:
        """Record a masked update about to leave; return it with this log's new head attached.

        Args:
            study: the approved study.
            asked: what the round is for.
            masked: what will leave; the entry holds the SHA-256 of its packed vector.
            spent: the study's epsilon after each release charged for it; empty without privacy.
            study_hash: identifies the run.

        Raises:
            AuditError: it could not be recorded, so it must not leave.
        """
        head = self._audit.append(
            Released(
                study_digest=study.digest,
                study_hash=study_hash,
                round=masked.round,
                purpose=asked.purpose.value,
                message_digest=sha256(masked.packed),
                epsilon=max(spent) if spent else None,
                delta=study.privacy.delta if spent else None,
            )
        )
        return replace(masked, audit_head=head.to_bytes())
