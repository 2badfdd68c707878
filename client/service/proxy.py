"""A proxy between this site and its coordinator, and the account that the site has there."""

from dataclasses import dataclass, field

import httpx

from consilium.shared.errors import SettingsError


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
