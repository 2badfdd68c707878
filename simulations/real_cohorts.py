"""Real records as sites of a simulation: one function for each collection.

Where a collection names its hospitals, these are the sites. Where it does not, sites are made up by
a hash of the patient, and the description says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from client.sources import Source
from client.sources.heart_disease import HOSPITALS, HeartDisease
from client.sources.physionet2012 import PhysioNet2012
from client.sources.physionet2019 import PhysioNet2019
from shared.errors import StudyError
from shared.study import Study
from simulations import hospitals
from simulations.cohorts import Cohorts
from simulations.partitions import Part, Records, is_test, place_of


@dataclass(frozen=True)
class Real:
    """A collection: what its folder must hold, in words, and how it becomes sites."""

    files: str
    cohorts: Callable[[Study, Path], Cohorts]


def _physionet2012(study: Study, data: Path) -> Cohorts:
    units = hospitals.split_physionet2012(data)
    _require_sites(study, units)
    return Cohorts(
        sites={site: units[site] for site in study.sites},
        test={"set-b": hospitals.physionet2012_test(data)},
        described="set-b, all units",
    )


def _physionet2019(study: Study, data: Path) -> Cohorts:
    """Each hospital system is two sites: a sum of two would tell each the other's part."""
    systems = {
        system: Records(PhysioNet2019(data / f"training_set{system}-first5000.zip"))
        for system in ("A", "B")
    }
    sites: dict[str, Source] = {}
    for system, records in systems.items():
        for number in (0, 1):
            sites[f"hospital-{system.lower()}{number + 1}"] = Part(
                records,
                lambda patient, half=number: (
                    not is_test(patient) and int(2 * place_of(patient, "site")) == half
                ),
            )
    _require_sites(study, sites)
    return Cohorts(
        sites={site: sites[site] for site in study.sites},
        test={system: Part(records, is_test) for system, records in systems.items()},
        described="a fifth of each hospital system's patients, hour by hour",
        owners={
            system: tuple(s for s in study.sites if s.startswith(f"hospital-{system.lower()}"))
            for system in systems
        },
    )


def _heart_disease(study: Study, data: Path) -> Cohorts:
    records = {name: Records(HeartDisease(data, hospital=name)) for name in HOSPITALS}
    _require_sites(study, records)
    share = 1 / 3
    return Cohorts(
        sites={
            site: Part(records[site], lambda patient: not is_test(patient, share))
            for site in study.sites
        },
        test={site: Part(records[site], lambda p: is_test(p, share)) for site in study.sites},
        described="a third of each hospital's patients",
    )


def _require_sites(study: Study, known: Mapping[str, object]) -> None:
    if unknown := sorted(set(study.sites) - set(known)):
        raise StudyError(
            f"study {study.name}: the records have no site {unknown[0]!r}; "
            f"choose sites from {', '.join(known)}"
        )


REAL: Mapping[str, Real] = MappingProxyType(
    {
        PhysioNet2012.name: Real(
            "set-a.zip, set-b.zip, Outcomes-a.txt and Outcomes-b.txt of the PhysioNet/CinC "
            "Challenge 2012",
            _physionet2012,
        ),
        PhysioNet2019.name: Real(
            "training_setA-first5000.zip and training_setB-first5000.zip of the PhysioNet/CinC "
            "Challenge 2019",
            _physionet2019,
        ),
        HeartDisease.name: Real(
            "processed.cleveland.data and the files of the other three hospitals of the UCI heart "
            "disease collection",
            _heart_disease,
        ),
    }
)
