"""Voice recordings by week: what is known when, and plain refusals."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.sources.common.reasons import BAD_LINE
from consilium.client.sources.public.parkinsons import KNOWN_WEEKS, LABEL_WEEK, Parkinsons
from consilium.shared.errors import DataError
from consilium.shared.study.definition import load_study
from tests.client.sources.tiny_records import parkinsons_csv

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data" / "parkinsons_telemonitoring"
STUDY = load_study(ROOT / "studies" / "parkinsons-progression.toml")


def write(folder: Path, text: str | None = None) -> Path:
    path = folder / "parkinsons_updrs.data"
    path.write_text(parkinsons_csv(2) if text is None else text)
    return path


def test_scores_are_hidden_from_week_twelve_and_labels_are_changes_since(tmp_path: Path) -> None:
    grid = to_grid(Parkinsons(write(tmp_path)).read_patients(STUDY), STUDY)
    names = list(STUDY.variables)
    for score in ("motor_UPDRS", "total_UPDRS"):
        known = ~np.isnan(grid.value_NTV[:, :, names.index(score)])
        assert known[:, :KNOWN_WEEKS].all()
        assert not known[:, KNOWN_WEEKS:].any()
    assert np.isnan(grid.y_N[:, :LABEL_WEEK]).all()
    expected = 0.3 * (np.arange(LABEL_WEEK, 26) - (KNOWN_WEEKS - 1))
    assert grid.y_N[1, LABEL_WEEK:] == pytest.approx(expected, abs=1e-4)
    assert not np.isnan(grid.value_NTV[:, 25, names.index("PPE")]).any()


def test_several_recordings_of_a_week_are_averaged(tmp_path: Path) -> None:
    lines = parkinsons_csv(1).splitlines()
    twice = lines[1].replace(",60,0,1,", ",60,0,2,").replace("0.01", "0.03")
    grid = to_grid(
        Parkinsons(write(tmp_path, "\n".join([*lines, twice]))).read_patients(STUDY), STUDY
    )
    assert grid.value_NTV[0, 0, list(STUDY.variables).index("PPE")] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (parkinsons_csv(1).replace("PPE", "XYZ"), "has no column 'PPE'"),
        (parkinsons_csv(1).replace(",60,0,", ",old,0,"), "line 2: a value is missing"),
        (parkinsons_csv(1).replace(",60,0,", ",nan,0,"), "line 2: a value is missing"),
    ],
)
def test_a_malformed_file_is_refused_with_its_first_line(tmp_path, text, sentence) -> None:
    with pytest.raises(DataError, match=sentence):
        list(Parkinsons(write(tmp_path, text)).read_patients(STUDY))


@pytest.mark.parametrize("damage", [lambda text: text.replace(",60,0,", ",old,0,", 1),
                                    lambda text: text[:-40]])  # fmt: skip  # reads as one
def test_a_malformed_line_is_set_aside_and_counted(tmp_path, damage) -> None:
    source = Parkinsons(write(tmp_path, damage(parkinsons_csv(1))))
    assert len(list(source.read_patients(STUDY))) == 1
    assert source.report.set_aside == {BAD_LINE: 1}


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the recordings are not beside the repository")
def test_the_scores_that_are_offered_tell_nothing_of_later_visits() -> None:
    """The file interpolates between visits: before week twelve a person's slope never changes."""
    grid = to_grid(Parkinsons(DATA).read_patients(STUDY), STUDY)
    assert grid.patients == 42
    score_NT = grid.value_NTV[:, :KNOWN_WEEKS, list(STUDY.variables).index("total_UPDRS")]
    bends = 0
    for score_T in score_NT:
        week = np.flatnonzero(~np.isnan(score_T))
        line = np.polyfit(week, score_T[week], 1)
        bends += np.abs(np.polyval(line, week) - score_T[week]).max() > 0.5
    assert bends <= 2
