"""What the approved study fixes about its secure sum, checked once, on construction."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from consilium.shared.crypto.keys import Roster
from consilium.shared.crypto.transcript import Encodable, digest
from consilium.shared.errors import StudyError
from consilium.shared.secure_sum import mask_graph
from consilium.shared.secure_sum.thresholds import least_threshold


@dataclass(frozen=True, kw_only=True)
class SumParameters:
    """Parameters of every secure sum of one run.

    Attributes:
        study_digest: digest of the approved study, 32 bytes.
        run_id: random and fresh for every run, 16 bytes: two runs of one study share nothing.
        roster: the sites, in order, with their identities and declared sizes.
        threshold: t, sites that must agree to a sum; in the complete graph also the shares that
            open a secret.
        minimum_sites: M, fewest sites whose sum may be released.
        collusion: c, most sites that may work with the coordinator.
        degree: other sites with which each site shares masks and secrets; all of them, or the
            degree of a sparse graph.

    Raises:
        StudyError: the numbers do not give the protocol's guarantees.
    """

    study_digest: bytes
    run_id: bytes
    roster: Roster
    threshold: int
    minimum_sites: int
    collusion: int
    degree: int

    def __post_init__(self) -> None:
        sites, t, least, c = len(self.roster), self.threshold, self.minimum_sites, self.collusion
        rules = (
            (len(self.study_digest) == 32, "the study digest must have 32 bytes"),
            (len(self.run_id) == 16, "the run's identifier must have 16 bytes"),
            (least >= 3, f"minimum_sites is {least}, and below 3 a sum shows a site's update"),
            (least <= sites, f"minimum_sites is {least}, and the roster has {sites} sites"),
            (t <= least, f"the threshold is {t}, above minimum_sites {least}; lower it"),
            (c >= 0, f"collusion is {c}, and cannot be negative"),
            (least - c >= 2, f"minimum_sites {least} less collusion {c} must leave at least 2"),
            (
                t >= least_threshold(sites, c),
                f"twice the threshold {t} must exceed {sites} sites plus {c} colluding; "
                f"raise it to {least_threshold(sites, c)}",
            ),
            (len(self.roster.sizes) == sites, "the roster lacks the sites' declared sizes"),
        )
        for holds, sentence in rules:
            if not holds:
                raise StudyError(sentence)
        mask_graph.check_degree(sites, self.degree, c)

    @cached_property
    def study_hash(self) -> bytes:
        """SHA-256 over all parameters; salts and binds everything in the run; 32 bytes."""
        sizes = self.roster.sizes
        members: list[Encodable] = [
            part for site, key in self.roster.members for part in (site, key, sizes[site])
        ]
        return digest(
            "study",
            self.study_digest,
            self.run_id,
            self.threshold,
            self.minimum_sites,
            self.collusion,
            self.degree,
            *members,
        )

    @property
    def dropouts_tolerated(self) -> int:
        """Sites that may fail in a round before it is void: 0 of three, 1 of four at most."""
        return len(self.roster) - self.minimum_sites

    def point(self, site: str) -> int:
        """The point of the site's Shamir shares: its place in the roster, from 1."""
        return self.roster.position(site) + 1

    @property
    def complete(self) -> bool:
        """Whether each site shares masks with all others."""
        return self.degree == len(self.roster) - 1

    @property
    def sharing_threshold(self) -> int:
        """Shares that open a secret."""
        if self.complete:
            return self.threshold
        return mask_graph.sharing_threshold(self.degree, self.collusion)

    def circle(self, site: str) -> frozenset[str]:
        """The site itself and those it shares masks and secrets with."""
        return self._circles[site]

    @cached_property
    def _circles(self) -> dict[str, frozenset[str]]:
        names = self.roster.names
        if self.complete:
            return dict.fromkeys(names, frozenset(names))
        return {
            site: frozenset(
                names[place]
                for place in (position, *mask_graph.neighbours(position, len(names), self.degree))
            )
            for position, site in enumerate(names)
        }

    def supported(self, sites: Collection[str]) -> frozenset[str]:
        """The largest part of these sites that can open all of its own secrets.

        A site stays as long as `sharing_threshold` of its circle, itself included, stay. In the
        complete graph all stay: `minimum_sites` is checked elsewhere.
        """
        staying = frozenset(sites)
        if self.complete:
            return staying
        while True:
            kept = {
                site
                for site in staying
                if len(self.circle(site) & staying) >= self.sharing_threshold
            }
            if len(kept) == len(staying):
                return staying
            staying = frozenset(kept)
