"""A site's part of the audit in a round: the coordinator's head noted, the own release recorded."""

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
    """The site's log, and its anchors for the coordinator's log.

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
        """Note the coordinator's head, as every site of the round was shown it.

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
        """Record a masked update that is about to leave; return it with the head that proves so.

        Args:
            study: as approved.
            asked: what the round is for.
            masked: what will leave; the entry holds SHA-256 of its packed vector.
            spent: epsilon of the study after each release charged for it; empty without privacy.
            study_hash: of the run.

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
