"""A proxy between this site and its coordinator, and the account that the site has there."""

from dataclasses import dataclass, field
from pathlib import Path

import httpx

from consilium.shared.errors import SettingsError
from consilium.shared.files.permissions import read_by_others


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT; TLS still ends at the coordinator.

    Attributes:
        url: of the proxy, such as ``http://proxy.hospital.example:3128``.
        credentials: name and password there, if it asks for them.
    """

    url: str
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def for_httpx(self) -> httpx.Proxy:
        """The proxy as httpx takes it.

        Raises:
            SettingsError: the address is not one of a proxy.
        """
        try:
            return httpx.Proxy(self.url, auth=self.credentials)
        except (ValueError, httpx.InvalidURL) as error:
            raise SettingsError(
                f"[proxy] url {self.url!r} in site.toml is not the address of a proxy ({error}); "
                "write http://NAME:PORT"
            ) from None


def read_pair(file: Path) -> tuple[str, str]:
    """Read name and password from a file of one line, NAME:PASSWORD.

    Raises:
        SettingsError: it cannot be read, has another form, or is readable by other accounts.
    """
    try:
        status, text = file.stat(), file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file}: cannot be read ({getattr(error, 'strerror', 'not UTF-8')}); [proxy] "
            "credentials in site.toml names it"
        ) from None
    if read_by_others(status):
        raise SettingsError(
            f"{file}: may be read by other accounts (mode {status.st_mode & 0o777:o}); run "
            f"'chmod 600 {file}'"
        )
    name, colon, password = text.strip("\r\n").partition(":")
    if not name or not colon or not f"{name}{password}".isprintable():
        raise SettingsError(f"{file}: must hold one line, NAME:PASSWORD, of the proxy's account")
    return name, password
