"""An enrolled site's connection to its coordinator, and its approvals, by the pinned identity."""

from consilium.client.hospital.approvals import Approvals
from consilium.client.hospital.budget_certificates import BudgetCertificates
from consilium.client.hospital.folder import SiteFolder
from consilium.client.ledger.store import Ledger
from consilium.client.service.connection import Connection
from consilium.client.service.proxy import Proxy
from consilium.shared.enrolment.recovery import CERTIFICATE_PATH
from consilium.shared.files.private_text import read_pair


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
    return Connection(host, port, enrolment.authority, folder.node_key(), proxy=proxy_of(folder))


def proxy_of(folder: SiteFolder) -> Proxy | None:
    """Return the proxy that ``site.toml`` names, with its credentials; None if it names none.

    Raises:
        SettingsError: the file with the credentials cannot be read, or by others, too.
    """
    named = folder.settings().proxy
    if named is None:
        return None
    file = None if named.credentials is None else folder.path / named.credentials
    return Proxy(
        url=named.url,
        credentials=None if file is None else read_pair(file, named="[proxy] credentials"),
    )


def budget_certificates(
    folder: SiteFolder, ledger: Ledger, connection: Connection
) -> BudgetCertificates | None:
    """Return what makes this site's budget certificates; None if it has no recovery code."""
    keys, named = folder.recovery_keys(), folder.settings().recovery
    if keys is None:
        return None
    return BudgetCertificates(
        site=folder.owner(),
        identity=folder.identity(),
        seal=keys.seal,
        ledger=ledger,
        split_key=folder.split_key(),
        second_place=None if named is None else folder.path / named.second_place,
        send=lambda content: connection.post(CERTIFICATE_PATH, content),
    )
