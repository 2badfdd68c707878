"""Which records each simulated site holds, and which patients the researcher tests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from consilium.client.sources.common.source import Source
from consilium.shared.errors import SettingsError, StudyError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts import hospitals

SYNTHETIC = (hospitals.SOURCE_NAME, hospitals.FLAWED_NAME)


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


def cohorts_for(study: Study, data: Path | None) -> Cohorts:
    """Return the cohorts of a study's source of data.

    Args:
        study: names the source and the sites.
        data: the folder of real records; None for a synthetic source.

    Raises:
        SettingsError: the folder is missing, or given though the study's patients are synthetic.
        StudyError: no simulation knows the study's source or one of its sites.
    """
    from consilium.simulations.cohorts.real_cohorts import REAL  # it needs Cohorts

    kind = study.data.source
    if kind in SYNTHETIC:
        if data is not None:
            raise SettingsError(
                f"study {study.name}: its patients are synthetic, so --data has no use; leave it"
            )
        return Cohorts(
            sites=hospitals.synthetic_sites(study),
            test=hospitals.synthetic_tests(study),
            synthetic=True,
            described="new synthetic patients of all hospitals",
        )
    if kind not in REAL:
        raise StudyError(
            f"study {study.name}: [data] source = {kind!r} cannot be simulated; "
            f"choose one of {', '.join(map(repr, (*SYNTHETIC, *REAL)))}"
        )
    real = REAL[kind]
    if data is None or not data.exists():
        where = "no --data was given" if data is None else f"--data {data} does not exist"
        raise SettingsError(f"study {study.name}: {where}; give the folder that holds {real.files}")
    return real.cohorts(study, data)
