"""An enrolled site's connection to its coordinator, and its approvals, by the pinned identity."""

from consilium.client.hospital.approvals import Approvals
from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.connection import Connection


def approvals_of(folder: SiteFolder) -> Approvals:
    """Return the studies approved at an enrolled site."""
    enrolment = folder.enrolment()
    site = (enrolment.site, folder.identity().public)
    return Approvals(folder.path / "approvals", enrolment.coordinator, site)


def approved_digests(folder: SiteFolder) -> frozenset[bytes]:
    """Return the digests of the studies approved at an enrolled site."""
    return frozenset(approval.study.digest for approval in approvals_of(folder))


def connect(folder: SiteFolder) -> Connection:
    """Return the enrolled site's connection to its coordinator.

    The address in ``site.toml``, if given, is used: a coordinator may move, but the authority of
    its certificate may not change.
    """
    enrolment = folder.enrolment()
    moved = folder.settings().coordinator
    host, port = (moved.host, moved.port) if moved else (enrolment.host, enrolment.port)
    return Connection(host, port, enrolment.authority, folder.node_key())
