"""Logs whose key was changed, as earlier versions wrote them: they must still verify."""

from consilium.shared.audit.entry import rotation_statement
from consilium.shared.audit.events import KeyRotated
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.keys import IdentityKey


def rotate(log: AuditLog, old: IdentityKey, new: IdentityKey) -> AuditHead:
    """Let ``old`` record that ``new`` signs from the next line on, and ``new`` vouch for it."""
    statement = rotation_statement(log.owner, log.head().digest, old.public, new.public)
    return log.append(KeyRotated(new_identity=new.public, endorsement=new.sign(statement)))
