"""The Challenge 2019's hourly tables: right values, right hours, right labels; plain refusals."""

import zipfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.records.windows import read_windows
from consilium.client.sources.common.reasons import BAD_LINE
from consilium.client.sources.public.physionet2019 import PhysioNet2019
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, load_study, with_changes
from tests.client.sources.tiny_records import psv, write_physionet2019

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data" / "physionet2019"
STUDY = load_study(ROOT / "studies" / "sepsis-2019.toml")


def study(**tables: dict) -> Study:
    return with_changes(STUDY, **({"data": {"window_h": 8}} | tables))


def read(folder: Path, asked: Study | None = None) -> list:
    return list(PhysioNet2019(folder).read_patients(asked or study()))


def test_values_hours_and_labels_are_those_of_the_rows(tmp_path: Path) -> None:
    (tmp_path / "p1.psv").write_text(psv(5, septic_from=4))
    grid = to_grid(read(tmp_path), study())
    rate = list(STUDY.variables).index("HR")
    assert grid.value_NTV[0, :5, rate].tolist() == [81, 82, 83, 84, 85]
    assert grid.mask_NT[0].tolist() == [True] * 5 + [False] * 3
    assert grid.y_N[0, :5].tolist() == [0, 0, 0, 1, 1]
    assert np.isnan(grid.y_N[0, 5:]).all()


def test_hours_after_the_window_do_not_show(tmp_path: Path) -> None:
    (tmp_path / "p1.psv").write_text(psv(12))
    grid = to_grid(read(tmp_path), study())
    rate = list(STUDY.variables).index("HR")
    assert grid.value_NTV[0, -1, rate] == 88


def test_a_zip_reads_as_a_folder_does(tmp_path: Path) -> None:
    write_physionet2019(tmp_path, patients=3)
    with zipfile.ZipFile(tmp_path / "training_setA-first5000.zip") as archive:
        archive.extractall(tmp_path / "folder")
    zipped = to_grid(read(tmp_path / "training_setA-first5000.zip"), study())
    plain = to_grid(read(tmp_path / "folder"), study())
    assert np.array_equal(zipped.value_NTV, plain.value_NTV, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("8", "eight"), "3 of its 3 lines do not hold the challenge's"),
        (lambda text: text.replace("81.0", "inf"), "a value is infinite"),
        (lambda text: text.replace("HR|", "HeartRate|"), "line 1 is not the challenge's header"),
        (lambda text: text.split("\n")[0], "1 of its 1 lines"),
        (lambda text: text.replace("|2|0\n", "|9|0\n"), "ICULOS does not count up"),
        (lambda text: text.replace("|2|0\n", "|2|3\n"), "SepsisLabel is not 0 or 1"),
        (lambda text: text.encode("utf-16"), "is not UTF-8 text"),
    ],
)
def test_a_damaged_file_is_refused_or_skipped_and_told(tmp_path, change, sentence) -> None:
    given = change(psv(3))
    (tmp_path / "p1.psv").write_bytes(given if isinstance(given, bytes) else given.encode())
    (tmp_path / "p2.psv").write_text(psv(3))
    with pytest.raises(DataError, match=f"record p1.psv: .*({sentence})"):
        read(tmp_path)
    source = PhysioNet2019(tmp_path)
    kept = list(source.read_patients(study(data={"window_h": 8, "on_bad_file": "skip"})))
    assert [patient.patient_id for patient in kept] == ["p2"]
    assert [file for file, _ in source.report.skipped] == ["p1.psv"]


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-9], lambda text: text.replace("81.0", "eighty")]
)
def test_a_line_that_cannot_be_read_is_set_aside_and_counted(tmp_path, damage) -> None:
    (tmp_path / "p1.psv").write_text(damage(psv(3)))
    source = PhysioNet2019(tmp_path)
    (patient,) = source.read_patients(study(data={"window_h": 8}))
    assert len(np.unique(patient.stays[0].hours_E)) == 2
    assert source.report.set_aside == {BAD_LINE: 1}


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p1.psv", b"0" * (1 << 22))
    with pytest.raises(DataError, match=r"p1\.psv: is larger than"):
        read(tmp_path / "bomb.zip")


def test_a_study_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p1.psv").write_text(psv(3))
    for asked, sentence in (
        (study(task={"per_step": False}), "outputs 1, per_step true; correct"),
        (study(data={"label": "Death"}), "has no label 'Death'"),
        (study(data={"step_h": 2}), "step_h 2 must be 1"),
        (study(data={"clock": "position"}), 'set \\[data\\] clock = "hour"'),
    ):
        with pytest.raises(DataError, match=sentence):
            read(tmp_path, asked)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.psv files"):
        read(tmp_path / "empty")


def test_sepsis_begins_six_hours_after_the_first_label_that_is_one(tmp_path: Path) -> None:
    (tmp_path / "p1.psv").write_text(psv(12, septic_from=4))
    (tmp_path / "p2.psv").write_text(psv(12))
    by_stay = study(task={"per_step": False}, data={"label": "sepsis", "step_h": 2})
    septic, other = (patient.stays[0] for patient in read(tmp_path, by_stay))
    assert (septic.label, septic.outcome_h) == (1.0, 3 + 6)  # ICULOS counts from 1
    assert (other.label, other.outcome_h) == (0.0, None)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the challenge's files are not beside the repository")
def test_landmarks_an_hour_apart_give_the_hourly_labels_of_the_challenge() -> None:
    """Sepsis within six hours of a landmark is what the challenge's own label of that hour says."""
    source = PhysioNet2019(DATA / "training_setA-first5000.zip")
    windows = study(
        task={"per_step": False},
        data={
            "label": "sepsis",
            "window_h": 24,
            "landmarks": {"every_h": 1, "horizon_h": 6, "longest_h": 400},
        },
    )
    hourly = study(data={"window_h": 400})
    cut = {patient.patient_id: patient for patient in islice(read_windows(source, windows), 300)}
    compared = 0
    for patient in islice(source.read_patients(hourly), 300):
        label_T = patient.stays[0].label[1:]  # the first landmark lies at hour 1
        landmarks = cut[patient.patient_id].stays if patient.patient_id in cut else ()
        labels = np.array([window.label for window in landmarks])
        known = ~np.isnan(label_T[: len(labels)])
        assert np.array_equal(labels[known], label_T[: len(labels)][known])
        assert all(len(w.hours_E) == 0 or w.hours_E.max() <= w.end_h <= 24 for w in landmarks)
        compared += int(labels[known].sum())
    assert compared > 50


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the challenge's files are not beside the repository")
def test_both_hospital_systems_read_whole() -> None:
    for system, positive in (("A", 0.0217), ("B", 0.0142)):
        source = PhysioNet2019(DATA / f"training_set{system}-first5000.zip")
        grid = to_grid(source.read_patients(STUDY), STUDY)
        assert grid.patients == 5000
        assert source.report.skipped == ()
        assert np.nanmean(grid.y_N) == pytest.approx(positive, abs=0.006)
