"""The example studies' own settings of records: found, whole, and dealing as they always have."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from consilium.client.sources.common.source import Source
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import load_study, with_changes
from consilium.simulations.cohorts.records_file import read_records_file
from consilium.simulations.cohorts.study_cohorts import SYNTHETIC, cohorts_for
from consilium.simulations.cohorts.study_records import (
    collection_of,
    folder_for,
    missing_folder,
    records_of,
)

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
STUDIES = sorted((ROOT / "studies").glob("*.toml"))
SETTINGS = sorted((ROOT / "studies" / "records").glob("*.toml"))
COLLECTIONS = (
    "physionet", "eicu", "mitdb", "mit-bih", "heart_disease", "heart-disease", "cleveland",
    "diabet", "tox21", "bbbp", "adrenal", "medmnist", "parkinson", "diagnosis-codes", "clintox",
    "pbc", "synthea", "smni", "payer",
)  # fmt: skip  # reads as one
DEALT = {  # by the code that had the names of files in it; but for eicu, see decision 174
    "adrenal-slices": "7adc4440c1e535d4",
    "adrenal-slices-grid": "7adc4440c1e535d4",
    "arrhythmia-mitdb": "8f6c86a0d3f6c83d",
    "bbbp": "f126b1b7851f0d34",
    "eicu-aki-hospitals": "dffded90dfee2bb3",
    "eicu-aki-regions": "e99264cae50d59a1",
    "eicu-length-of-stay": "d0bacb6677d6dc53",
    "heart-disease-strategies": "193a0cd0fbaba58c",
    "heart-disease": "193a0cd0fbaba58c",
    "icu-mortality-2012-branches": "c0f50f1185ec8832",
    "icu-mortality-2012": "c0f50f1185ec8832",
    "parkinsons-progression": "22703811978ab0ab",
    "readmission-codes": "05385d59c9962018",
    "readmission-fusion": "05385d59c9962018",
    "sepsis-2019": "507c3646076e58c6",
    "sepsis-landmarks": "507c3646076e58c6",
    "tox21": "e65fd43a044c6360",
    "ventilation-mortality": "c0f50f1185ec8832",
}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_example_study_of_real_records_has_settings_with_its_sites(path: Path) -> None:
    study = load_study(path)
    if study.data.source in SYNTHETIC:
        assert records_of(study, path) is None
        return
    file = records_of(study, path)
    assert file is not None
    content = read_records_file(file)
    assert content.records.folder
    assert content.records.files
    if content.sites.parts:
        assert set(study.sites) <= {site for part in content.sites.parts for site in part.sites}
    if content.sites.names:
        assert set(study.sites) <= set(content.sites.names)


def test_every_file_of_settings_belongs_to_a_study() -> None:
    used = {records_of(load_study(path), path) for path in STUDIES}
    assert set(SETTINGS) == used - {None}


def test_no_code_of_simulations_names_a_collection() -> None:
    """Neither in a name nor in a text; the files beside the studies have them all."""
    found = []
    for file in sorted((ROOT / "simulations").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        found += [(file.name, word) for word in COLLECTIONS if word in text.lower()]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and "sources.public" in (node.module or ""):
                found.append((file.name, node.module or ""))
    assert not found


def test_settings_beside_a_study_come_before_those_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (ROOT / "studies" / "heart-disease.toml").read_text()
    path.write_text(text.replace('name = "heart-disease"', 'name = "mine"'))
    study = load_study(path)
    packaged = records_of(study, path)
    assert packaged is not None
    assert packaged.name == "heart-disease.toml"  # by its source
    (tmp_path / "records").mkdir()
    own = tmp_path / "records" / "mine.toml"
    own.write_text("[data]\nsource = 'heart-disease'\npath = 'x.data'\n")
    assert records_of(study, path) == own
    assert collection_of(study, None, path).base == own.parent
    assert (folder_for(study, DATA, path), missing_folder(study, DATA, path)) == (None, None)


def test_data_may_be_the_folder_itself_or_one_that_holds_it(tmp_path: Path) -> None:
    study = load_study(ROOT / "studies" / "bbbp.toml")
    inside = tmp_path / "molecules"
    inside.mkdir()
    assert collection_of(study, tmp_path).base == inside
    assert collection_of(study, inside).base == inside
    (file := inside / "other.csv").write_text("smiles,p_np\n")
    assert collection_of(study, file).instead == file  # a file takes the place of the usual one
    assert missing_folder(study, tmp_path, STUDIES[0]) is None
    assert missing_folder(study, inside, STUDIES[0]) == "molecules"
    for data, told in ((None, "no --data was given"), (tmp_path / "no", "does not exist")):
        with pytest.raises(SettingsError, match=told):
            collection_of(study, data)


def test_a_site_that_the_collection_does_not_have_is_refused() -> None:
    study = load_study(ROOT / "studies" / "heart-disease.toml")
    other = with_changes(study, study={"sites": ("cleveland", "va", "nowhere")})
    with pytest.raises(SettingsError, match="has no site 'nowhere'"):
        cohorts_for(other, ROOT)
    foreign = with_changes(study, study={"sites": ("a", "b", "c")})
    with pytest.raises(SettingsError, match="have no site 'a'; choose sites from cleveland"):
        cohorts_for(foreign, ROOT)


SLOW = ("sepsis", "tox21", "readmission", "icu", "ventilation", "adrenal", "arrhythmia", "eicu")


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name.startswith(SLOW) else ()) for name in DEALT],
)
def test_the_same_persons_are_at_the_same_sites_as_ever(name: str) -> None:
    path = ROOT / "studies" / f"{name}.toml"
    study = load_study(path)
    if missing_folder(study, DATA, path) is not None:
        pytest.skip(f"the records of {name} are not beside the repository")
    cohorts = cohorts_for(study, folder_for(study, DATA, path), path)
    places = [*cohorts.sites.items(), *cohorts.test.items()]

    def persons(sources: Iterable[tuple[str, Source]]) -> str:
        digest = hashlib.sha256()
        for place, source in sources:
            ids = [patient.patient_id for patient in source.read_patients(study)]
            if study.data.source == "waveforms":  # records, which were named without their folder
                ids = [one.rpartition("/")[2] for one in ids]
            digest.update("\n".join([place, *sorted(ids), ""]).encode())
        return digest.hexdigest()[:16]

    assert persons(places) == DEALT[name]
