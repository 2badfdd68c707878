"""Every source through a site's own settings: ``site.toml`` and the check; no patient is shown."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consilium.client.cli import app
from consilium.client.hospital.settings import FILE_NAME, SiteSettings
from consilium.client.sources.registry import OWN_SYSTEMS, SOURCES
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import load_study
from tests.client.sources.test_damaged_files import FORMATS, STUDIES
from tests.client.sources.tiny_records import write_molecules

DATA = {
    "physionet2012": "",
    "physionet2019": "",
    "heart-disease": 'path = "records/h.data"',
    "parkinsons": 'path = "records/p.data"',
    "diagnosis-codes": 'where = { payer_code = "?" }',
    "molecules": 'path = "records/tox21.csv"',
    "npz": 'path = "records/v.npz"\nsplit = "test"',
    "nifti": "",
    "dicom": "",
    "wfdb": 'records = ["100"]',
    "eicu-demo": "where = { hospitalid = 73 }",
}


def site(folder: Path, name: str) -> Path:
    """A site's folder with tiny records of that format and settings that name them."""
    records = folder / "records"
    records.mkdir(parents=True)
    FORMATS[name].write(records)
    path = "" if "path" in DATA[name] else 'path = "records"'
    source = FORMATS[name].study.data.source
    text = f'[data]\nsource = "{source}"\n{path}\n{DATA[name]}\n'
    (folder / FILE_NAME).write_text(text)
    return folder


def check(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", *arguments])
    return result.exit_code, result.output + str(result.exception or "")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_a_site_names_its_records_and_checks_them(name: str, tmp_path: Path) -> None:
    study = FORMATS[name].study
    source = SiteSettings.read(site(tmp_path, name)).open_source(tmp_path, study)
    patients = list(source.read_patients(study))
    assert len(patients) > 0
    assert source.report.patients == len(patients)


def test_every_built_in_source_is_among_those_tried() -> None:
    tried = {form.study.data.source for form in FORMATS.values()}
    assert tried == set(SOURCES) - OWN_SYSTEMS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "study", "told"),
    [
        ("diagnosis-codes", "readmission-fusion", "% of them in the study's vocabulary of"),
        ("wfdb", "arrhythmia-mitdb", "patients with aami: 1, 1, 1, 0, 1"),
        ("physionet2019", "sepsis-2019", "% of the hours with SepsisLabel"),
        ("parkinsons", "parkinsons-progression", "mean total-change"),
    ],
)
def test_the_check_says_what_each_kind_of_task_needs(
    name: str, study: str, told: str, tmp_path: Path
) -> None:
    pytest.importorskip("wfdb")
    file = str(STUDIES / f"{study}.toml")
    code, output = check(file, "--settings", str(site(tmp_path, name) / FILE_NAME))
    assert told in " ".join(output.split())
    assert "verdict: not ready" in output
    assert (code, "below the study's minimum" in output) == (1, True)


def test_the_check_of_molecules_is_ready_and_counts_codes(tmp_path: Path) -> None:
    write_molecules(tmp_path, 200)
    page = tmp_path / "page.html"
    bbbp = str(STUDIES / "bbbp.toml")
    data = str(tmp_path / "BBBP.csv")
    code, output = check(bbbp, "--data", data, "--page", str(page))
    assert code == 0, output
    assert "token: " in output
    assert "svg" in page.read_text()
    code, output = check(bbbp, "--data", data, "--json")
    report = json.loads(output)
    assert code == 0
    assert report["codes"] > report["unknown_codes"] == 0
    shutil.copy(tmp_path / "BBBP.csv", tmp_path / "other.csv")
    text = (tmp_path / "other.csv").read_text().replace("Cl", "[Xe]").replace("C", "[Kr]")
    (tmp_path / "other.csv").write_text(text)
    _, output = check(bbbp, "--data", str(tmp_path / "other.csv"))
    assert "of the codes are outside the study's vocabulary" in " ".join(output.split())


def test_settings_as_an_editor_of_windows_saves_them_are_read(tmp_path: Path) -> None:
    write_molecules(tmp_path, 200)
    text = '\ufeff[data]\r\nsource = "molecules"\r\npath = "BBBP.csv"\r\n'
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8", newline="")
    code, output = check(str(STUDIES / "bbbp.toml"), "--settings", str(tmp_path / FILE_NAME))
    assert code == 0, output


def test_without_any_records_named_the_check_says_how_to_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = check(str(STUDIES / "bbbp.toml"))
    assert code == 1
    assert "by --settings FILE, which needs no enrolment" in output


def test_what_site_toml_says_wrongly_is_named_with_the_remedy(tmp_path: Path) -> None:
    study = load_study(STUDIES / "heart-disease.toml")
    file = tmp_path / FILE_NAME
    for text, sentence in (
        ("", "has no \\[data\\]; say there where this site's records lie"),
        ('[data]\nsource = "hart-disease"\n', "did you mean 'heart-disease'"),
        ('[data]\nsource = "heart-disease"\n', "path is missing; add it"),
        ('[data]\nsource = "heart-disease"\npath = "."\nhospitl = "va"\n', "mean 'hospital'"),
        ('[data]\nsource = "physionet2012"\npath = "."\n', "wants source 'heart-disease'"),
    ):
        file.write_text(text)
        with pytest.raises((SettingsError, DataError), match=sentence):
            SiteSettings.read(tmp_path).open_source(tmp_path, study)
    file.write_text('[data]\nsource = "physionet2012"\npath = "."\nwhere = { ICUType = "x" }\n')
    with pytest.raises(SettingsError, match="ICUType is a text and must be a number"):
        SiteSettings.read(tmp_path).open_source(tmp_path, FORMATS["physionet2012"].study)
