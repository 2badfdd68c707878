"""The coordinator's audit log."""

from server.coordinator_folder import CoordinatorFolder
from shared.audit import FILE_NAME, AuditLog
from shared.version import VERSION

OWNER = "coordinator"


def open_audit(folder: CoordinatorFolder) -> AuditLog:
    """Open the coordinator's log.

    Raises:
        AuditError: it cannot be written, or does not verify.
    """
    return AuditLog(folder.path / FILE_NAME, owner=OWNER, key=folder.identity(), version=VERSION)
