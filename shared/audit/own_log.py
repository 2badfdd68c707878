"""The audit log in the folder of this side, a site's or the coordinator's."""

from pathlib import Path
from typing import Protocol

from consilium.shared.audit.log import FILE_NAME, AuditLog
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.version import VERSION


class OwnFolder(Protocol):
    """A folder in which one side keeps its keys and its log."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def owner(self) -> str:
        """This side's name in its log."""

    def identity(self) -> IdentityKey:
        """The key that signs the log."""


def open_audit(folder: OwnFolder) -> AuditLog:
    """Open this side's log.

    Raises:
        SettingsError: the folder is a site's that is not enrolled.
        AuditError: the log cannot be written, or does not verify.
    """
    path, owner = folder.path / FILE_NAME, folder.owner()
    return AuditLog(path, owner=owner, key=folder.identity(), version=VERSION)
