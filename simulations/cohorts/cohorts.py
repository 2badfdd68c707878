"""The records of a simulation: each site's, and those of the test patients."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from consilium.client.sources.common.source import Source
from consilium.simulations.cohorts.dealing import Dealing


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Records of every site, and of the test patients.

    Attributes:
        sites: each site's source of records, by name.
        test: sources of test patients by group, such as their hospital; at least one group.
        described: who the test patients are.
        synthetic: whether patients are generated; tables and the report say so.
        owners: for each owner that could train alone, the sites with its records; unless given,
            each site is an owner.
        constant: naive forecasts by name: the value that each predicts for everybody.
        dealing: what dealt real records out, if anything did; it knows what was left out.
    """

    sites: Mapping[str, Source]
    test: Mapping[str, Source]
    described: str
    synthetic: bool = False
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    constant: Mapping[str, float] = field(default_factory=dict)
    dealing: Dealing | None = None

    @property
    def alone(self) -> Mapping[str, tuple[str, ...]]:
        """For each owner that trains alone, the sites with its records."""
        return self.owners or {site: (site,) for site in self.sites}
