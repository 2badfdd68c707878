"""The site's audit log."""

from consilium.client.hospital.folder import SiteFolder
from consilium.shared.audit.log import FILE_NAME, AuditLog
from consilium.shared.version import VERSION


def open_audit(folder: SiteFolder) -> AuditLog:
    """Open the enrolled site's log.

    Raises:
        SettingsError: the site is not enrolled.
        AuditError: the log cannot be written, or does not verify.
    """
    owner = folder.enrolment().site
    return AuditLog(folder.path / FILE_NAME, owner=owner, key=folder.identity(), version=VERSION)
