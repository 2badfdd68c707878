import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from consilium.client.sources.common.reasons import BAD_LINE
from consilium.client.sources.public.physionet2012 import LARGEST_RECORD_BYTES, PhysioNet2012
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, load_study, with_changes

ROOT = Path(__file__).parents[4]
STUDY = load_study(ROOT / "studies" / "icu-mortality-2012.toml")
SKIP_BAD = with_changes(STUDY, data={"on_bad_file": "skip"})
REAL = next(
    (p / "shared" / "data" / "physionet2012" for p in ROOT.parents
     if (p / "shared" / "data" / "physionet2012").is_dir()),
    None,
)  # fmt: skip  # reads as one search
OUTCOMES = (
    "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n"
    "1,6,1,5,-1,0\n2,16,8,8,-1,1\n3,6,1,-1,-1,0\n"
)
RECORD = (
    "Time,Parameter,Value\n00:00,RecordID,{id}\n00:00,Age,54\n00:00,Gender,-1\n"
    "00:00,Height,-1\n00:00,ICUType,{icu}\n00:00,Weight,-1\n00:07,HR,73\n00:07,HR,75\n"
    "01:30,Temp,98.6\n47:59,SysABP,0\n48:00,GCS,15\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = tmp_path / "set-a"
    records.mkdir()
    (tmp_path / "Outcomes-a.txt").write_text(OUTCOMES)
    for identity, icu in ((1, 4), (2, 1)):
        (records / f"{identity}.txt").write_text(RECORD.format(id=identity, icu=icu))
    return tmp_path


def read(source: PhysioNet2012, study: Study = STUDY) -> list:
    return list(source.read_patients(study))


def named(stay: object, study: Study = STUDY) -> dict[str, float]:
    names = list(study.variables)
    return {names[v]: float(x) for v, x in zip(stay.variable_E, stay.value_E, strict=True)}


def test_a_record_becomes_events_with_missing_descriptors_left_out(folder: Path) -> None:
    source = PhysioNet2012(folder)
    first, second = read(source)
    values = named(first.stays[0])
    assert values["HR"] == 75
    assert values["Temp"] == pytest.approx(37, abs=1e-4)
    assert values["GCS"] == 15
    assert {"Weight", "Gender", "SysABP"}.isdisjoint(values)
    assert (first.stays[0].label, second.stays[0].label) == (0, 1)
    report = source.report
    assert (report.patients, report.stays, report.duplicates) == (2, 2, 2)
    assert report.out_of_range == {"SysABP": 2}
    assert report.repaired == {"Temp": 2}
    assert report.missing_static["Gender"] == 2


def test_folder_of_records_zip_and_parent_folder_read_alike(folder: Path) -> None:
    with zipfile.ZipFile(folder / "set-a.zip", "w") as archive:
        for file in (folder / "set-a").iterdir():
            archive.write(file, f"set-a/{file.name}")
    readings = [
        [named(p.stays[0]) for p in read(PhysioNet2012(path))]
        for path in (folder, folder / "set-a", folder / "set-a.zip")
    ]
    assert readings[0] == readings[1] == readings[2]


def test_only_stays_of_the_wanted_unit_are_read(folder: Path) -> None:
    source = PhysioNet2012(folder, where={"ICUType": 1})
    assert [p.patient_id for p in read(source)] == ["2"]
    assert source.report.filtered == 1


def test_unknown_outcomes_are_left_out_and_counted(folder: Path) -> None:
    (folder / "set-a" / "3.txt").write_text(RECORD.format(id=3, icu=1))
    study = with_changes(
        STUDY, data={"label": "Length_of_stay"}, task={"kind": "regression", "prevalence": None}
    )
    source = PhysioNet2012(folder)
    assert [p.stays[0].label for p in read(source, study)] == [5, 8]
    assert source.report.unlabelled == 1


def test_a_patient_shows_counts_and_no_values(folder: Path) -> None:
    patient = read(PhysioNet2012(folder))[0]
    assert repr(patient) == "Patient(1 stays)"
    assert repr(patient.stays[0]).startswith("Stay(")
    assert "75" not in repr(patient.stays[0])


BAD: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b"Time,Parameter,Value\n00:00,RecordID,1\xff\n", "not UTF-8"),
    "wrong header": (b"time;parameter;value\n", "header"),
    "shifted columns": (
        b"Time,Parameter,Value\n00:00,RecordID\n1,00:07,HR,70\n", "line 2: has 2"
    ),
    "mostly no rows": (
        b"Time,Parameter,Value\n00:00,RecordID,4\n00:07,HR,fast\n00:08,,3\n",
        "line 3: the value is not a finite number, like most of its lines",
    ),
    "no RecordID": (b"Time,Parameter,Value\n00:07,HR,70\n", "no RecordID"),
    "no outcome": (b"Time,Parameter,Value\n00:00,RecordID,99\n", "outcomes"),
    "empty": (b"", "header"),
    "huge": (b" " * (LARGEST_RECORD_BYTES + 1), "larger"),
    "twice": (RECORD.format(id=1, icu=1).encode(), "already read"),
}  # fmt: skip  # name, content, reason


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name_or_skipped_as_the_study_says(
    folder: Path, name: str
) -> None:
    content, reason = BAD[name]
    (folder / "set-a" / "4.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"4\.txt") as refusal:
        read(PhysioNet2012(folder))
    assert reason in str(refusal.value)
    assert "fast" not in str(refusal.value)
    source = PhysioNet2012(folder)
    assert len(read(source, SKIP_BAD)) == 2
    assert [reason in why for _, why in source.report.skipped] == [True]


@pytest.mark.parametrize(
    "line", ["00:07,HR", "00:07,HR,fast", "00:07,HR,inf", "00:07,HR,7_0", "48:01,HR,70",
             "00:07,Hr,70", "00:07,,70", "", "1,00:07,HR,70"],
)  # fmt: skip  # reads as one list
def test_a_line_that_cannot_be_read_is_set_aside_and_the_file_is_read(
    folder: Path, line: str
) -> None:
    whole = read(PhysioNet2012(folder))
    path = folder / "set-a" / "1.txt"
    head, _, rest = path.read_text().partition("\n00:")
    path.write_text(f"{head}\n{line}\n00:{rest}")
    source = PhysioNet2012(folder)
    found = read(source)
    assert [patient.patient_id for patient in found] == [patient.patient_id for patient in whole]
    assert np.array_equal(found[0].stays[0].value_E, whole[0].stays[0].value_E)
    assert source.report.set_aside == {BAD_LINE: 1}
    assert source.report.skipped == ()


def break_label(folder: Path) -> Study:
    return with_changes(STUDY, data={"label": "Death"})


def remove_outcomes(folder: Path) -> Study:
    (folder / "Outcomes-a.txt").unlink()
    return STUDY


def break_outcomes(folder: Path) -> Study:
    (folder / "Outcomes-a.txt").write_text(OUTCOMES + "4,1\n")
    return STUDY


def repeat_outcome(folder: Path) -> Study:
    (folder / "Outcomes-a.txt").write_text(OUTCOMES + "1,6,1,5,-1,0\n")
    return STUDY


def ask_for_unknown_variable(folder: Path) -> Study:
    return STUDY.model_copy(update={"variables": {"Hr": STUDY.variables["HR"]}})


def ask_for_other_unit(folder: Path) -> Study:
    return with_changes(STUDY, variables={"HR": {**dict(STUDY.variables["HR"]), "unit": "Hz"}})


def ask_for_classes(folder: Path) -> Study:
    return with_changes(STUDY, data={"label": "SOFA"})


def ask_for_steps(folder: Path) -> Study:
    return with_changes(STUDY, task={"per_step": True})


def ask_for_other_source(folder: Path) -> Study:
    return with_changes(STUDY, data={"source": "omop"})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (break_label, "In-hospital_death"),
        (remove_outcomes, "not found"),
        (break_outcomes, "line 5: 2 columns"),
        (repeat_outcome, "line 5: its RecordID"),
        (ask_for_unknown_variable, "did you mean 'HR'"),
        (ask_for_other_unit, "unit 'Hz'"),
        (ask_for_classes, "not a class"),
        (ask_for_steps, "per-step"),
        (ask_for_other_source, "omop"),
    ],
)
def test_data_that_do_not_fit_the_study_are_refused_in_one_sentence(
    folder: Path, spoil: Callable[[Path], Study], reason: str
) -> None:
    study = spoil(folder)
    with pytest.raises(DataError) as refusal:
        read(PhysioNet2012(folder), study)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_folder_an_empty_one_and_a_broken_zip_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set-b.zip").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "Outcomes-b.txt").write_text(OUTCOMES)
    for path, reason in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path, "neither set-a.zip"),
        (tmp_path / "set-b.zip", "not a readable zip"),
    ):
        with pytest.raises(DataError, match=reason):
            read(PhysioNet2012(path))


def test_stays_cannot_be_selected_by_what_is_no_descriptor(folder: Path) -> None:
    with pytest.raises(DataError, match="ICUType"):
        PhysioNet2012(folder, where={"Ward": 1})


def test_unit_types_are_offered_as_flags(folder: Path) -> None:
    flag = {"unit": "1", "low": 0.0, "high": 1.0, "center": 0.0, "spread": 1.0, "role": "static"}
    study = with_changes(STUDY, variables={"ICUType1": flag, "ICUType4": flag})
    first, second = read(PhysioNet2012(folder), study)
    assert [named(p.stays[0], study)["ICUType4"] for p in (first, second)] == [1, 0]
    assert [named(p.stays[0], study)["ICUType1"] for p in (first, second)] == [0, 1]


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="the challenge's files are not beside the repository")
def test_the_real_set_a_is_read_whole_in_bounded_time() -> None:
    source = PhysioNet2012(REAL)
    started = time.process_time()
    labels = [patient.stays[0].label for patient in source.read_patients(STUDY)]
    assert time.process_time() - started < 60  # of computing, whatever else the machine does
    assert len(labels) == 4000
    assert np.mean(labels) == pytest.approx(0.1385, abs=1e-4)
    assert source.report.skipped == ()


def survival(**task: object) -> Study:
    text = (ROOT / "studies" / "icu-survival-2012.toml").read_text()
    assert 'label = "Survival"' in text
    return with_changes(load_study(ROOT / "studies" / "icu-survival-2012.toml"), task=task)


def test_no_recorded_death_counts_as_survived_and_an_impossible_time_as_unknown(
    folder: Path,
) -> None:
    survivals = {"1": "-1", "2": "10", "4": "-23", "5": "0", "6": "2000"}
    lines = [f"{record},6,1,5,{days},0" for record, days in survivals.items()]
    header = OUTCOMES.splitlines()[0]
    (folder / "Outcomes-a.txt").write_text("\n".join([header, *lines]) + "\n")
    for record in survivals:
        (folder / "set-a" / f"{record}.txt").write_text(RECORD.format(id=record, icu=1))
    source = PhysioNet2012(folder)
    found = {patient.patient_id: patient.stays[0].label for patient in read(source, survival())}
    assert set(found) == {"1", "2", "5", "6"}
    assert found["1"].tolist() == found["6"].tolist() == [0] * 6
    assert np.nan_to_num(found["2"], nan=-1).tolist() == [0, 1, -1, -1, -1, -1]
    assert np.nan_to_num(found["5"], nan=-1).tolist() == [1, -1, -1, -1, -1, -1]


def test_survival_beyond_what_was_recorded_or_of_another_column_is_refused(folder: Path) -> None:
    later = survival(cuts=[30.0, 800.0], outputs=2)
    with pytest.raises(DataError, match="surely recorded for 365 days"):
        read(PhysioNet2012(folder), later)
    other = with_changes(survival(), data={"label": "In-hospital_death"})
    with pytest.raises(DataError, match="no time of survival"):
        read(PhysioNet2012(folder), other)
