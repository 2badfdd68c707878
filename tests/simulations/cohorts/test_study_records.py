"""The example studies' own settings of records: found, whole, and dealing as they always have."""

import ast
from pathlib import Path

import pytest

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
