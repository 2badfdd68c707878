"""Real records as sites of a simulation: one function for each collection.

Where a collection names its hospitals, these are the sites. Where it does not, a hash of the
patient's identifier makes up sites, and the description says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from consilium.client.sources.common.source import Source
from consilium.client.sources.own.image_slices import ImageSlices
from consilium.client.sources.own.molecules import Molecules
from consilium.client.sources.own.waveforms import Waveforms
from consilium.client.sources.public.diagnosis_codes import DiagnosisCodes
from consilium.client.sources.public.heart_disease import HOSPITALS, HeartDisease
from consilium.client.sources.public.parkinsons import Parkinsons
from consilium.client.sources.public.physionet2012 import PhysioNet2012
from consilium.client.sources.public.physionet2019 import PhysioNet2019
from consilium.client.sources.registry import needs
from consilium.shared.errors import StudyError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts import hospitals
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.partitions import Records, SubsetSource, is_test, parts

EICU = "eicu-demo"  # its module needs polars, so it is imported only when asked for
EICU_REGIONS: Mapping[str, str] = MappingProxyType(
    {
        "midwest": "Midwest",
        "south": "South",
        "west": "West",
        "northeast": "Northeast",
        "region-unknown": "",
    }
)

MITDB_DS1 = (
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122",
    "124", "201", "203", "205", "207", "208", "209", "215", "220", "223", "230",
)  # fmt: skip
MITDB_PERSONS = (("201", "202"),)  # of one man; 202 is in DS2, all others are of other people
MITDB_TEST = MITDB_DS1[3::4] + MITDB_DS1[:1]  # every fourth and the first: six records

PAYERS: Mapping[str, str] = MappingProxyType(
    {
        "payer-unknown": "?",
        "payer-medicare": "MC",
        "payer-hm": "HM",
        "payer-sp": "SP",
        "payer-blue-cross": "BC",
        "payer-medicaid": "MD",
    }
)


@dataclass(frozen=True)
class Real:
    """A collection: its folder's usual name, the files expected there, and how to make cohorts."""

    folder: str
    files: str
    cohorts: Callable[[Study, Path], Cohorts]


def _physionet2012(study: Study, data: Path) -> Cohorts:
    units = hospitals.split_physionet2012(data)
    _require_sites(study, units)
    return Cohorts(
        sites={site: units[site] for site in study.sites},
        test=hospitals.split_physionet2012(data, which="b"),
        described="set-b, all units",
    )


def _physionet2019(study: Study, data: Path) -> Cohorts:
    """Split each hospital system into two sites: a sum of two would reveal each to the other."""
    systems = {
        system: Records(PhysioNet2019(data / f"training_set{system}-first5000.zip"))
        for system in ("A", "B")
    }
    sites: dict[str, Source] = {}
    for system, records in systems.items():
        halves = (f"hospital-{system.lower()}1", f"hospital-{system.lower()}2")
        sites |= parts(records, halves)[0]
    _require_sites(study, sites)
    return Cohorts(
        sites={site: sites[site] for site in study.sites},
        test={system: SubsetSource(records, is_test) for system, records in systems.items()},
        described="a fifth of each hospital system's patients, "
        + ("hour by hour" if study.task.per_step else "all their windows"),
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
            site: SubsetSource(records[site], lambda patient: not is_test(patient, share))
            for site in study.sites
        },
        test={
            site: SubsetSource(records[site], lambda p: is_test(p, share)) for site in study.sites
        },
        described="a third of each hospital's patients",
    )


def _eicu_demo(study: Study, data: Path) -> Cohorts:
    """Make a site of each region (``midwest``) or hospital (``hospital-73``) the study names."""
    needs("polars", EICU)
    from consilium.client.sources.public.eicu_demo import EicuDemo

    def where(site: str) -> dict[str, float | str]:
        if site.startswith("hospital-") and site[9:].isdigit():
            return {"hospitalid": float(site[9:])}
        if site not in EICU_REGIONS:
            raise StudyError(
                f"study {study.name}: the records have no site {site!r}; choose hospital-N, N "
                f"being a hospitalid, or one of {', '.join(EICU_REGIONS)}"
            )
        return {"region": EICU_REGIONS[site]}

    records = {site: Records(EicuDemo(data, where=where(site))) for site in study.sites}
    by_region = all(site in EICU_REGIONS for site in study.sites)
    held = {
        site: SubsetSource(of_site, lambda person: not is_test(person))
        for site, of_site in records.items()
    }
    everyone = Records(EicuDemo(data))
    test: dict[str, Source] = (
        {site: SubsetSource(of_site, is_test) for site, of_site in records.items()}
        if by_region
        else {"all": SubsetSource(everyone, is_test)}
    )
    return Cohorts(
        sites=held,
        test=test,
        described="a fifth of the persons of "
        + ("each region" if by_region else "all 186 hospitals"),
    )


def _waveforms(study: Study, data: Path) -> Cohorts:
    """Sixteen records of the MIT-BIH set DS1 on four made-up sites, the other six for the test.

    Training keeps every fourth normal beat, as there are ten times as many as of all other kinds;
    the test keeps all. The sites' records, and the test's, are dealt out in the order of names.
    """
    archive = data / "mitdb-ds1.zip" if data.is_dir() else data
    sites = tuple(f"laboratory-{number}" for number in range(1, 5))
    _require_sites(study, dict.fromkeys(sites))
    training = [name for name in MITDB_DS1 if name not in MITDB_TEST]
    held: dict[str, Source] = {
        site: _whole(
            Waveforms(
                archive, records=training[number::4], same_person=MITDB_PERSONS, thin_normal=4
            )
        )
        for number, site in enumerate(sites)
        if site in study.sites
    }
    return Cohorts(
        sites=held,
        test={"test": _whole(Waveforms(archive, records=MITDB_TEST, same_person=MITDB_PERSONS))},
        described=f"all beats of records {', '.join(MITDB_TEST)} of DS1",
    )


def _diagnosis_codes(study: Study, data: Path) -> Cohorts:
    """Patients with two visits or more; a site for each kind of payer of the first visit."""
    records = {
        site: Records(DiagnosisCodes(data, where={"payer_code": code}, fewest_visits=2))
        for site, code in PAYERS.items()
        if site in study.sites
    }
    _require_sites(study, PAYERS)
    return Cohorts(
        sites={
            s: SubsetSource(r, lambda patient: not is_test(patient)) for s, r in records.items()
        },
        test={s: SubsetSource(r, is_test) for s, r in records.items()},
        described="a fifth of each payer's patients, visit by visit",
    )


def _molecules(study: Study, data: Path) -> Cohorts:
    """Molecules dealt out at random to made-up laboratories that share no compound."""
    file = "BBBP.csv" if study.data.label == "p_np" else "tox21.csv"
    sites, test = parts(Records(Molecules(data / file)), study.sites)
    return Cohorts(
        sites=sites, test={"test": test}, described="a fifth of the molecules, drawn at random"
    )


def _image_slices(study: Study, data: Path) -> Cohorts:
    """The official training volumes dealt out at random, and the official test volumes."""
    file = data / "adrenalmnist3d_64.npz"
    sites, _ = parts(Records(ImageSlices(file, split="train")), study.sites, share=0.0)
    return Cohorts(
        sites=sites,
        test={"test": _whole(ImageSlices(file, split="test"))},
        described="the official test volumes",
    )


def _parkinsons(study: Study, data: Path) -> Cohorts:
    """People dealt out at random; the last value carried forward predicts no change."""
    sites, test = parts(Records(Parkinsons(data)), study.sites, share=1 / 3)
    return Cohorts(
        sites=sites,
        test={"test": test},
        described="a third of the people, weeks 14 to 25",
        constant={"last-value": 0.0},
    )


def _whole(source: Source) -> Source:
    """The source, read once."""
    return SubsetSource(Records(source), lambda _: True)


def _require_sites(study: Study, known: Mapping[str, object]) -> None:
    if unknown := sorted(set(study.sites) - set(known)):
        raise StudyError(
            f"study {study.name}: the records have no site {unknown[0]!r}; "
            f"choose sites from {', '.join(known)}"
        )


REAL: Mapping[str, Real] = MappingProxyType(
    {
        PhysioNet2012.name: Real(
            "physionet2012",
            "set-a.zip, set-b.zip, Outcomes-a.txt and Outcomes-b.txt of the PhysioNet/CinC "
            "Challenge 2012",
            _physionet2012,
        ),
        PhysioNet2019.name: Real(
            "physionet2019",
            "training_setA-first5000.zip and training_setB-first5000.zip of the PhysioNet/CinC "
            "Challenge 2019",
            _physionet2019,
        ),
        HeartDisease.name: Real(
            "heart_disease",
            "processed.cleveland.data and the files of the other three hospitals of the UCI heart "
            "disease collection",
            _heart_disease,
        ),
        EICU: Real(
            "eicu_demo",
            "patient.csv and the folders mortality24, aki, sepsis, los, kidney_function of the "
            "eICU demo's hourly cohorts",
            _eicu_demo,
        ),
        DiagnosisCodes.name: Real(
            "diabetes130",
            "diabetic_data.csv.gz, the encounters of the UCI Diabetes 130-US hospitals collection",
            _diagnosis_codes,
        ),
        Molecules.name: Real("molecules", "BBBP.csv and tox21.csv of MoleculeNet", _molecules),
        ImageSlices.name: Real(
            "medmnist_adrenal3d", "adrenalmnist3d_64.npz of MedMNIST", _image_slices
        ),
        Parkinsons.name: Real(
            "parkinsons_telemonitoring",
            "parkinsons_updrs.data of the UCI Parkinson's telemonitoring collection",
            _parkinsons,
        ),
        Waveforms.name: Real(
            "mitdb", "mitdb-ds1.zip, the set DS1 of the MIT-BIH database", _waveforms
        ),
    }
)
