"""The newest audit head that the coordinator holds of each site, and shows to all sites again.

A site whose folder was put back to an older state finds a head here that bears its own signature
and that its log lacks. The other sites keep what they were shown, so leaving one out is noticed.
"""

from collections.abc import Mapping

from consilium.shared.audit.heads import AuditHead
from consilium.shared.errors import ProtocolError


class SiteHeads:
    """Heads by site, each signed by the identity that the roster gives for its site.

    Args:
        identities: Ed25519 identity (32 bytes) by site.
        known: heads from before, as :func:`consilium.shared.audit.reading.newest_heads` reads them.
    """

    def __init__(
        self, identities: Mapping[str, bytes], known: Mapping[str, AuditHead] | None = None
    ) -> None:
        self._identities = dict(identities)
        self._newest = dict(known or {})

    def of(self, site: str) -> bytes:
        """Return a site's newest head, encoded; empty if it has shown none."""
        return self._newest[site].to_bytes() if site in self._newest else b""

    def shown(self) -> tuple[bytes, ...]:
        """Return the newest head of each site that has shown one, in the order of their names."""
        return tuple(self._newest[site].to_bytes() for site in sorted(self._newest))

    def note(self, site: str, encoded: bytes) -> None:
        """Take the head with which a site joins, if it is newer than the one known.

        Raises:
            ProtocolError: it is not a head of this site, signed by its identity.
        """
        if encoded:
            head = self._verified(site, encoded)
            if site not in self._newest or head.number > self._newest[site].number:
                self._newest[site] = head

    def take(self, site: str, encoded: bytes) -> None:
        """Take the head that came with a masked update; it records that release, so it is newer.

        A site that has never shown one may show none: it keeps no log. An update with any other
        head is left out of the sum, for the other sites would refuse the next round for it.

        Raises:
            ProtocolError: no head, not one of this site, or none newer than the one known.
        """
        known = self._newest.get(site)
        if known is None and not encoded:
            return
        head = self._verified(site, encoded)
        if known is not None and head.number <= known.number:
            raise ProtocolError(
                f"the update of site {site} came with entry {head.number} of its audit log, and "
                f"entry {known.number} was known before: its folder was put back to an older state"
            )
        self._newest[site] = head

    def _verified(self, site: str, encoded: bytes) -> AuditHead:
        if not encoded:
            raise ProtocolError(f"site {site} showed no audit head, and had shown one before")
        head = AuditHead.from_bytes(encoded)
        head.verify(site, *[self._identities[site]] if site in self._identities else [])
        return head
