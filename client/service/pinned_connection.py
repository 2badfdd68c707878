"""What an enrolled site has pinned: its line to the coordinator, and its approvals."""

from consilium.client.hospital.approvals import Approvals
from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.connection import Connection


def approvals_of(folder: SiteFolder) -> Approvals:
    """The studies approved at an enrolled site."""
    enrolment = folder.enrolment()
    site = (enrolment.site, folder.identity().public)
    return Approvals(folder.path / "approvals", enrolment.coordinator, site)


def connect(folder: SiteFolder) -> Connection:
    """The enrolled site's line to its coordinator.

    The address is the one in ``site.toml`` if it is there: a coordinator may move, its
    certificate's authority may not.
    """
    enrolment = folder.enrolment()
    moved = folder.settings().coordinator
    host, port = (moved.host, moved.port) if moved else (enrolment.host, enrolment.port)
    return Connection(host, port, enrolment.authority, folder.node_key())
