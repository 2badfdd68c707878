"""Which records each simulated site holds, and which patients the researcher tests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from consilium.client.sources.common.source import Source


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Records of every site, and of the test patients.

    Attributes:
        sites: by name.
        test: the test patients by group, such as their hospital; one group where there is none.
        described: who is tested on.
        synthetic: whether patients are generated; said wherever figures are shown.
        owners: who would train alone, and on which sites' records; each site unless given.
        constant: naive forecasts by name: the value each predicts for everybody.
    """

    sites: Mapping[str, Source]
    test: Mapping[str, Source]
    described: str
    synthetic: bool = False
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    constant: Mapping[str, float] = field(default_factory=dict)

    @property
    def alone(self) -> Mapping[str, tuple[str, ...]]:
        """Who trains alone, and on which sites' records."""
        return self.owners or {site: (site,) for site in self.sites}
