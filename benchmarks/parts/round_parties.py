"""The two ends of a secure sum that is measured: what the sites agreed on, and the sites."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from consilium.client.secure_sum.journal import RoundJournal
from consilium.client.secure_sum.masking import SiteMasking
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.secure_sum.fixed_point import Segment, VectorSpec, largest_scale
from consilium.shared.secure_sum.parameters import SumParameters

PATIENTS = 100  # declared by each site


@dataclass(frozen=True, kw_only=True)
class RoundParties:
    """What a coordinator and its sites need to sum vectors of one segment, within -1 and 1."""

    agreed: SumParameters
    spec: VectorSpec
    maskings: Mapping[str, SiteMasking]


def round_parties(
    sites: int,
    size: int,
    folder: Path,
    *,
    degree: int,
    collusion: int,
    threads: int = 1,
    bits: int = 32,
) -> RoundParties:
    """Return new sites with their journals in ``folder``.

    Args:
        sites: how many.
        size: numbers in a vector.
        folder: an empty one.
        degree: neighbours with which a site shares masks.
        collusion: sites that may work with the coordinator.
        threads: of a site.
        bits: of the ring.
    """
    identities = {f"site-{i:05d}": IdentityKey.generate() for i in range(sites)}
    digest, threshold = os.urandom(32), 2 * sites // 3 + 1
    agreed = SumParameters(
        study_digest=digest,
        run_id=os.urandom(16),
        roster=Roster(
            tuple((site, key.public) for site, key in identities.items()),
            tuple(
                Declaration.signed(PATIENTS, study_digest=digest, site=site, sign=key.sign)
                for site, key in identities.items()
            ),
        ),
        threshold=threshold,
        minimum_sites=max(threshold, 3),
        collusion=collusion,
        degree=degree,
    )
    scale = largest_scale(1.0, sites=sites, ring_bits=bits)
    segment = Segment(name="update", length=size, linf=1.0, scale=scale)
    return RoundParties(
        agreed=agreed,
        spec=VectorSpec(ring_bits=bits, segments=(segment,)),
        maskings={
            site: SiteMasking(site, key, agreed, RoundJournal(folder / site), threads=threads)
            for site, key in identities.items()
        },
    )
