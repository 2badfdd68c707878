"""What a site may be called, wherever a person gives the name."""

from consilium.shared.crypto.keys import SITE_NAME
from consilium.shared.errors import SettingsError


def require_site_name(site: str) -> str:
    """Return the name of a site.

    Raises:
        SettingsError: a site cannot have this name.
    """
    if not SITE_NAME.fullmatch(site) or site != site.lower() or "_" in site or "." in site:
        raise SettingsError(
            f"site {site!r}: must be 1 to 64 lower-case letters, digits and hyphens, as in a "
            "study's list of sites; choose another name"
        )
    return site
