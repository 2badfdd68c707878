"""Who opted out passes the door of no source, and a site's running study notices the next name."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from consilium.client.sources.common.source import Patient
from consilium.client.sources.registry import OWN_SYSTEMS, SOURCES, open_source, read_data_settings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, with_changes
from tests.client.sources import cohort_formats as formats
from tests.client.sources.test_damaged_files import FORMATS

FILE = "opted-out.txt"
PATHS = {
    "heart-disease": "h.data", "parkinsons": "p.data", "molecules": "tox21.csv", "npz": "v.npz",
}  # fmt: skip  # sources of a single file
MORE = {
    "wfdb": "same_person = []\n",
    "wfdb-labels": 'same_person = []\n[comments]\nlabel = "Dx"\ncodes = [["59118001"]]\n'
    '[variables.Age]\ncomment = "Age"\n',
    "edf": '[labels]\nfile = "labels.csv"\n[annotations]\ntexts = ["W"]\n',
}  # what else their settings say
OWN: dict[str, Callable[[formats.Written, Path], str]] = {
    "tables": lambda cohort, folder: formats.write_tables(cohort, folder, "csv"),
    "meds": formats.write_meds,
    "omop": formats.write_sqlite,
    "fhir": formats.write_fhir,
    "sql": formats.write_sql_sqlite,
    "hl7": formats.write_hl7,
}


def built_in(name: str, folder: Path) -> tuple[Study, str]:
    form = FORMATS[name]
    form.write(folder)
    kind = form.study.data.source
    return form.study, f'source = "{kind}"\npath = "{PATHS.get(name, ".")}"\n{MORE.get(name, "")}'


def own(name: str, folder: Path) -> tuple[Study, str]:
    study = with_changes(formats.STUDY, data={"source": "hospital"})
    return study, OWN[name](formats.written(12), folder)


def read(study: Study, text: str, folder: Path, **how: bool) -> list[Patient]:
    settings = read_data_settings(tomllib.loads(text), where="site.toml", folder=folder)
    return list(open_source(settings, study, **how).read_patients(study))


@pytest.mark.sampled(3)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*FORMATS, *OWN])
def test_nobody_who_opted_out_is_read_from_any_source(name: str, tmp_path: Path) -> None:
    study, text = own(name, tmp_path) if name in OWN else built_in(name, tmp_path)
    everybody = [patient.patient_id for patient in read(study, text, tmp_path)]
    gone, *others = everybody
    (tmp_path / FILE).write_text(f"# of May\n {gone}\n{gone}.0\nnobody here\n")
    text = f'opted_out = "{FILE}"\n{text}'
    settings = read_data_settings(tomllib.loads(text), where="site.toml", folder=tmp_path)
    source = open_source(settings, study)
    found = list(source.read_patients(study))
    assert [patient.patient_id for patient in found] == others
    assert source.report.patients == len(others)
    assert source.report.events == sum(len(s.hours_E) for p in found for s in p.stays)
    assert source.report.opted_out[0] == 1
    (tmp_path / FILE).write_text("\n".join(everybody))
    assert list(source.read_patients(study)) == []
    (tmp_path / FILE).unlink()
    with pytest.raises(DataError, match=f"{FILE}, which names the persons who opted out, cannot"):
        source.read_patients(study)


def test_every_source_of_the_register_is_among_them() -> None:
    tried = {FORMATS[name].study.data.source for name in FORMATS} | set(OWN)
    assert tried == set(SOURCES)
    assert set(OWN) == OWN_SYSTEMS


def test_a_source_read_without_outcomes_keeps_the_door(tmp_path: Path) -> None:
    study, text = own("tables", tmp_path)
    gone = read(study, text, tmp_path)[0].patient_id
    (tmp_path / FILE).write_text(gone)
    text = f'opted_out = "{FILE}"\n{text}'
    settings = read_data_settings(tomllib.loads(text), where="site.toml", folder=tmp_path)
    blind = open_source(settings, study).without_labels()
    assert gone not in {patient.patient_id for patient in blind.read_patients(study)}
