"""Which records each simulated site holds, and which patients the researcher tests on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.sources import Source
from client.sources.physionet2012 import PhysioNet2012
from shared.errors import SettingsError, StudyError
from shared.study import Study
from simulations import hospitals

SYNTHETIC = hospitals.SOURCE_NAME
CHALLENGE_2012 = PhysioNet2012.name


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Records of every site, and of the test patients; ``synthetic`` is said wherever shown."""

    sites: Mapping[str, Source]
    test: Source
    synthetic: bool
    described: str


def cohorts_for(study: Study, data: Path | None) -> Cohorts:
    """Return the cohorts of a study's source of data.

    Args:
        study: names the source and the sites.
        data: the folder of real records; None for a synthetic source.

    Raises:
        SettingsError: the folder is missing, or given though the study's patients are synthetic.
        StudyError: no simulation knows the study's source or one of its sites.
    """
    kind = study.data.source
    if kind == SYNTHETIC:
        if data is not None:
            raise SettingsError(
                f"study {study.name}: its patients are synthetic, so --data has no use; leave it"
            )
        return Cohorts(
            sites=hospitals.synthetic_sites(study),
            test=hospitals.synthetic_test(study),
            synthetic=True,
            described="new synthetic patients of all hospitals",
        )
    if kind != CHALLENGE_2012:
        raise StudyError(
            f"study {study.name}: [data] source = {kind!r} cannot be simulated; "
            f"choose {SYNTHETIC!r} or {CHALLENGE_2012!r}"
        )
    if data is None or not data.exists():
        where = "no --data was given" if data is None else f"--data {data} does not exist"
        raise SettingsError(
            f"study {study.name}: {where}; give the folder that holds set-a.zip, set-b.zip, "
            "Outcomes-a.txt and Outcomes-b.txt of the PhysioNet/CinC Challenge 2012"
        )
    units = hospitals.split_physionet2012(data)
    if unknown := sorted(set(study.sites) - set(units)):
        raise StudyError(
            f"study {study.name}: site {unknown[0]!r} is no intensive-care unit of the challenge; "
            f"choose sites from {', '.join(units)}"
        )
    return Cohorts(
        sites={site: units[site] for site in study.sites},
        test=hospitals.physionet2012_test(data),
        synthetic=False,
        described="set-b, all units",
    )
