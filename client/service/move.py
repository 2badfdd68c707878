"""Follows a coordinator that moved: another address, the same certificate authority."""

from dataclasses import replace

from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.connection import Connection
from consilium.client.service.pinned_connection import proxy_of
from consilium.shared.audit.events import AddressChanged
from consilium.shared.audit.own_log import open_audit
from consilium.shared.enrolment.messages import STUDIES_PATH
from consilium.shared.errors import SettingsError


def move(folder: SiteFolder, address: str, *, by: str) -> tuple[str, str]:
    """Dial the coordinator at this address from now on; return the former and the new one.

    The new address is tried first: it must show a certificate of the pinned authority, and know
    this site.

    Raises:
        SettingsError: it is no address, or ``site.toml`` names one, which counts for more.
        AuthenticationError: another coordinator is there, or it does not know this site.
        UnreachableError: nobody answers there.
    """
    enrolment = folder.enrolment()
    if folder.settings().coordinator is not None:
        raise SettingsError(
            f"{folder.path / 'site.toml'}: [coordinator] names an address, and it counts for more; "
            "change or remove it there"
        )
    host, port = read_address(address, default_port=enrolment.port)
    with Connection(
        host, port, enrolment.authority, folder.node_key(), proxy=proxy_of(folder)
    ) as connection:
        connection.post(STUDIES_PATH, b"")
        after = connection.address
    before = f"{enrolment.host}:{enrolment.port}"
    open_audit(folder).append(AddressChanged(before=before, after=after, by=by))
    folder.pin(replace(enrolment, host=host, port=port))
    return before, after


def read_address(text: str, *, default_port: int) -> tuple[str, int]:
    """Read HOST, HOST:PORT, or [ADDRESS]:PORT.

    Raises:
        SettingsError: it is none of them.
    """
    wrong = SettingsError(
        f"{text[:100]!r} is no address; write HOST or HOST:PORT, such as "
        f"consilium.example.org:{default_port}, without https://"
    )
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise wrong
        port = rest[1:]
    elif text.count(":") > 1:  # an address of version 6 without a port
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
        if text.endswith(":"):
            raise wrong
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise wrong
    plain = host and len(host) <= 253 and all(c.isalnum() or c in ".-:%" for c in host)
    if not plain or not host.isascii():
        raise wrong
    return host, int(port) if port else default_port
