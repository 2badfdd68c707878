"""The eICU demo's hourly cohorts: persons, hours, labels by kind, hospitals, and plain refusals."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.sources.public.eicu_demo import EicuDemo
from consilium.shared.errors import DataError
from consilium.shared.study.definition import load_study, with_changes
from tests.client.sources.tiny_records import write_eicu

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data" / "eicu_demo"
STUDY = with_changes(load_study(ROOT / "studies" / "eicu-aki-regions.toml"), data={"window_h": 4})
NAMES = list(STUDY.variables)


def test_a_person_has_all_stays_with_values_and_labels_at_their_hours(tmp_path: Path) -> None:
    source = EicuDemo(write_eicu(tmp_path))
    grid = to_grid(source.read_patients(STUDY), STUDY)
    assert grid.patient_ids == ("a",)  # the other person's only label is not known
    assert grid.patient_N.tolist() == [0, 0]
    rate = grid.value_NTV[0, :, NAMES.index("hr")]
    assert (rate[0], rate[3], np.isnan(rate[1:3]).all()) == (80, 90, True)
    assert grid.y_N[0, [0, 1, 3]].tolist() == [0, 0, 1]
    assert np.isnan(grid.y_N[0, 2])
    assert grid.value_NTV[:, 0, NAMES.index("male")].tolist() == [1, 0]
    assert (source.report.stays, source.report.unlabelled) == (2, 1)


def test_an_outcome_of_the_stay_serves_a_task_that_is_not_per_step(tmp_path: Path) -> None:
    study = with_changes(STUDY, data={"label": "mortality24"}, task={"per_step": False})
    grid = to_grid(EicuDemo(write_eicu(tmp_path)).read_patients(study), study)
    assert grid.y_N.tolist() == [1, 0, 0]


def test_stays_are_selected_by_hospital_or_region(tmp_path: Path) -> None:
    study = with_changes(STUDY, data={"label": "mortality24"}, task={"per_step": False})
    write_eicu(tmp_path)
    for where, person in (
        ({"hospitalid": 80}, "b"),
        ({"region": "South"}, "a"),
        ({"region": ""}, "b"),
    ):
        source = EicuDemo(tmp_path, where=where)
        assert [p.patient_id for p in source.read_patients(study)] == [person]
    with pytest.raises(DataError, match="no column 'ward' to select stays by"):
        list(EicuDemo(tmp_path, where={"ward": 1}).read_patients(study))


def test_a_damaged_or_missing_file_and_a_wrong_task_are_refused(tmp_path: Path) -> None:
    write_eicu(tmp_path)
    los = with_changes(STUDY, data={"label": "los"})
    with pytest.raises(DataError, match="label 'los' is for a task of kind 'regression'"):
        list(EicuDemo(tmp_path).read_patients(los))
    study = with_changes(los, task={"kind": "regression", "prevalence": None})
    with pytest.raises(DataError, match=r"dyn.parquet cannot be read as a parquet table"):
        list(EicuDemo(tmp_path).read_patients(study))
    whole = (tmp_path / "aki" / "dyn.parquet").read_bytes()
    (tmp_path / "aki" / "dyn.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"dyn.parquet cannot be read as a parquet table"):
        list(EicuDemo(tmp_path).read_patients(STUDY))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the cohorts are not beside the repository")
def test_the_real_cohort_reads_whole() -> None:
    study = load_study(ROOT / "studies" / "eicu-aki-regions.toml")
    source = EicuDemo(DATA)
    grid = to_grid(source.read_patients(study), study)
    assert source.report.stays == 1988
    assert (np.nanmax(grid.y_N, axis=1) > 0).mean() == pytest.approx(0.35, abs=0.05)
