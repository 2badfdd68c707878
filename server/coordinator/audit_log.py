"""The coordinator's audit log."""

from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.shared.audit.log import FILE_NAME, AuditLog
from consilium.shared.version import VERSION

OWNER = "coordinator"


def open_audit(folder: CoordinatorFolder) -> AuditLog:
    """Open the coordinator's log.

    Raises:
        AuditError: it cannot be written, or does not verify.
    """
    return AuditLog(folder.path / FILE_NAME, owner=OWNER, key=folder.identity(), version=VERSION)
