"""The UCI heart disease files: categories, missing values, and plain refusals."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.sources.common.reasons import BAD_LINE
from consilium.client.sources.public.heart_disease import HOSPITALS, HeartDisease
from consilium.shared.errors import DataError
from consilium.shared.study.definition import load_study, with_changes
from tests.client.sources.tiny_records import HEART

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data" / "heart_disease"
STUDY = load_study(ROOT / "studies" / "heart-disease.toml")
NAMES = list(STUDY.variables)


def file(tmp_path: Path, text: str = HEART) -> Path:
    path = tmp_path / "processed.va.data"
    path.write_text(text)
    return path


def test_numbers_categories_and_missing_values_are_told_apart(tmp_path: Path) -> None:
    grid = to_grid(HeartDisease(file(tmp_path)).read_patients(STUDY), STUDY)
    first, second = (dict(zip(NAMES, row[0].tolist(), strict=True)) for row in grid.value_NTV)
    assert (first["age"], first["cp4"], first["cp1"], first["chol"]) == (63, 1, 0, 233)
    assert np.isnan(first["ca"])
    assert np.isnan(second["chol"])  # 0 means missing
    assert (first["thal3"], first["thal7"], second["thal3"]) == (0, 0, 1)
    assert grid.y_N.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("1,2,3", "line 3: 3 columns, not 14"),
        ("63,1,4,145,233,1,2,x,0,2.3,3,?,6,0", "line 3: a value is neither a number nor"),
        ("63,1,4,145,233,1,2,150,0,2.3,3,?,6,9", "line 3: a value is infinite, or the last"),
        ("63,1,4,145,233,1,2,inf,0,2.3,3,?,6,0", "line 3: a value is infinite"),
    ],
)
def test_a_malformed_line_is_set_aside_and_a_file_of_them_refused(tmp_path, line, sentence) -> None:
    source = HeartDisease(file(tmp_path, HEART + line + "\n"))
    assert len(list(source.read_patients(STUDY))) == 2
    assert source.report.set_aside == {BAD_LINE: 1}
    mostly = file(tmp_path, HEART + 3 * (line + "\n"))
    with pytest.raises(DataError, match=f"{sentence}.*3 of its 5 lines cannot be read") as caught:
        list(HeartDisease(mostly).read_patients(STUDY))
    assert "150" not in str(caught.value).replace(str(tmp_path), "")  # whose name has a number


def test_a_folder_needs_the_hospitals_name(tmp_path: Path) -> None:
    file(tmp_path)
    with pytest.raises(DataError, match="name a hospital, one of cleveland"):
        HeartDisease(tmp_path)
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        list(HeartDisease(tmp_path, hospital="hungarian").read_patients(STUDY))


def test_a_variable_or_unit_it_does_not_have_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path)
    spec = STUDY.variables["age"].model_dump()
    for name, unit, sentence in (("cp9", "1", "did you mean 'cp"), ("age", "mo", "has 'a'")):
        variables = {name: spec | {"unit": unit}}
        asked = with_changes(STUDY, study={"variables": variables}, evaluation={"subgroups": {}})
        with pytest.raises(DataError, match=sentence):
            list(HeartDisease(path).read_patients(asked))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the UCI files are not beside the repository")
def test_all_four_hospitals_read_whole() -> None:
    counts = {}
    for hospital in HOSPITALS:
        grid = to_grid(HeartDisease(DATA, hospital=hospital).read_patients(STUDY), STUDY)
        counts[hospital] = (grid.patients, int(grid.y_N.sum()))
    assert counts == {
        "cleveland": (303, 139),
        "hungarian": (294, 106),
        "switzerland": (123, 115),
        "va": (200, 149),
    }
