"""Rosters of tests: sites with identities, and a declared size of each."""

from collections.abc import Mapping

from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster

SIZE = 7
"""The declared size of every site, unless a test says otherwise."""


def declared(
    keys: Mapping[str, IdentityKey], study_digest: bytes, **sizes: int
) -> dict[str, Declaration]:
    """Every site's declared size, signed: SIZE, or that of the site's name in ``sizes``."""
    return {
        site: Declaration.signed(
            sizes.get(site.replace("-", "_"), SIZE),
            study_digest=study_digest,
            site=site,
            sign=key.sign,
        )
        for site, key in keys.items()
    }


def sized_roster(keys: Mapping[str, IdentityKey], study_digest: bytes, **sizes: int) -> Roster:
    """A roster in the order of ``keys``, with declared sizes as :func:`declared` gives them."""
    signed = declared(keys, study_digest, **sizes)
    return Roster(
        tuple((site, key.public) for site, key in keys.items()),
        tuple(signed[site] for site in keys),
    )
