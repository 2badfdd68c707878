"""What the coordinator keeps for hospitals that may lose their machine, and gives to their codes.

It holds bindings and successions, which prove themselves, and sealed certificates, which it cannot
read. It can withhold each of them and show an older certificate; it can make none.
"""

import logging
from dataclasses import dataclass

from consilium.server.coordinator.register import Member, Register
from consilium.shared.audit.events import Succeeded
from consilium.shared.audit.log import AuditLog
from consilium.shared.enrolment.recovery import (
    BudgetCertificate,
    RecoveryBinding,
    RecoveryClaim,
    RecoveryGrant,
    Succession,
    SuccessorReply,
    SuccessorRequest,
)
from consilium.shared.errors import AuthenticationError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RecoveryService:
    """Answers what sites ask about recovery."""

    register: Register
    audit: AuditLog

    def bind(self, member: Member, body: bytes) -> bytes:
        """Keep the binding of a site's identity to its recovery code.

        Raises:
            MessageError: malformed. AuthenticationError: not this site's, or not signed by both.
            SettingsError: the identity is bound to another code.
        """
        binding = RecoveryBinding.from_bytes(body)
        binding.check()
        _check_own(member, binding.site, binding.identity)
        self.register.keep_binding(member.name, binding.identity, body)
        return b""

    def keep(self, member: Member, body: bytes) -> bytes:
        """Keep a site's budget certificate, if it is the newest.

        Raises:
            MessageError: malformed. AuthenticationError: not this site's.
        """
        certificate = BudgetCertificate.from_bytes(body)
        certificate.check(member.name, member.identity)
        self.register.keep_certificate(member.identity, certificate.number, body)
        return b""

    def claim(self, body: bytes, *, now: float) -> bytes:
        """Show the holder of a recovery code, who has an invitation, what is kept for it.

        Raises:
            MessageError: malformed.
            AuthenticationError: no valid invitation, or no code that this site was bound to.
        """
        claim = RecoveryClaim.from_bytes(body)
        claim.check()
        if not self.register.invited(claim.site, claim.secret, claim.node_key, now=now):
            raise AuthenticationError(
                f"the invitation of site {claim.site} is unknown, used or expired; "
                "ask the coordinator for a new one"
            )
        for encoded in self.register.bindings(claim.site):
            binding = RecoveryBinding.from_bytes(encoded)
            if binding.keys.verify == claim.verify:
                kept = self.register.certificate(binding.identity)
                certificate = None if kept is None else BudgetCertificate.from_bytes(kept)
                return RecoveryGrant(binding=binding, certificate=certificate).to_bytes()
        raise AuthenticationError(
            f"site {claim.site} never enrolled with this recovery code; take the newest paper, or "
            "enrol without it and write the budget off"
        )

    def succeed(self, member: Member, body: bytes) -> bytes:
        """Note that a site's new identity takes the place of its former one.

        Raises:
            MessageError: malformed.
            AuthenticationError: not this site's, or not signed with the code of the former one.
            SettingsError: another identity took that place.
        """
        succession = Succession.from_bytes(body)
        head = succession.check()
        _check_own(member, succession.site, succession.identity)
        before = succession.binding.identity
        if succession.binding.to_bytes() not in self.register.bindings(member.name):
            raise AuthenticationError(
                f"site {member.name} never enrolled under the identity that it says it had"
            )
        if self.register.succeed(before, member.identity, body):
            self.audit.append(
                Succeeded(
                    site=member.name, before=before, after=member.identity, number=head.number
                )
            )
            log.info("site %s came back under a new key, by its recovery code", member.name)
        return b""

    def successor(self, body: bytes) -> bytes:
        """Show which identity took the place of another, with the proof.

        Raises:
            MessageError: malformed.
        """
        found = self.register.successor(SuccessorRequest.from_bytes(body).identity)
        succession = None if found is None else Succession.from_bytes(found[1])
        return SuccessorReply(succession=succession).to_bytes()

    def in_place_of(self, former: bytes, identity: bytes) -> bool:
        """Whether an identity took the place of a former one, directly or through others."""
        seen = {former}
        while (found := self.register.successor(former)) is not None and found[0] not in seen:
            former = found[0]
            seen.add(former)
            if former == identity:
                return True
        return False


def _check_own(member: Member, site: str, identity: bytes) -> None:
    if (site, identity) != (member.name, member.identity):
        raise AuthenticationError(f"site {member.name} speaks for another site or identity")
