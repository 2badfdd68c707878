"""EDF: the right channel, time, unit and person; what a file gets wrong is said."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.sources.common.source import Patient, ReadReport
from consilium.client.sources.recorded import edf
from consilium.client.sources.recorded.edf import Edf
from consilium.client.sources.recorded.record_settings import EdfSettings
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study, load_study, with_changes
from tests.client.sources.recorded.edf_maker import edfio, move, patch, ramp, write_edf

ROOT = Path(__file__).parents[4]
EXAMPLE = load_study(ROOT / "studies" / "eeg-alcoholism.toml")
DATA = ROOT.parent / "shared" / "data" / "eeg_smni"


def study(
    *names: str, unit: str = "mm[Hg]", window: int = 16, rate: float = 8.0, static: str = "",
    task: dict | None = None, recording: bool = False,
) -> Study:  # fmt: skip
    spec = {"unit": unit, "low": -1e5, "high": 1e5, "center": 0.0, "spread": 1.0}
    variables: dict = dict.fromkeys(names or ("C3",), spec)
    if static:
        variables[static] = spec | {"unit": "a", "role": "static"}
    return with_changes(
        EXAMPLE,
        data={"label": "label", "window_h": window, "rate_hz": rate},
        task={"prevalence": None} | (task or {}),
        study={"variables": variables},
        privacy={"unit": "recording" if recording else "patient"},
    )


def table(folder: Path, text: str = "file,label\na,0\nb,1\n", name: str = "labels.csv") -> dict:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return {"file": str(path)}


def read(
    folder: Path, asked: Study | None = None, **settings: object
) -> tuple[list[Patient], ReadReport]:
    chosen = read_data_settings(
        {"source": "edf", "path": str(folder)}
        | ({} if "labels" in settings else {"labels": table(folder)})
        | settings,
        where="site.toml", folder=folder,
    )  # fmt: skip
    source = open_source(chosen, asked or study())
    return list(source.read_patients(asked or study())), source.report


def first(patients: list[Patient], stay: int = 0) -> list[float]:
    return patients[0].stays[stay].value_E.tolist()


def close(values: list[float], right: list[float], within: float = 0.02) -> None:
    assert values == pytest.approx(right, abs=within)


def test_windows_of_fixed_length_have_the_records_label_and_time(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.edf")
    write_edf(tmp_path / "b.EDF", patient="P2")
    patients, report = read(tmp_path)
    assert [(p.patient_id, len(p.stays)) for p in patients] == [("p1", 4), ("p2", 4)]
    assert [stay.label for p in patients for stay in p.stays] == [0] * 4 + [1] * 4
    assert report.person_key == "the patient's code in the file"
    close(first(patients, 1)[1:-1], list(2 + np.arange(16)[1:-1] / 8), 0.1)


STAGES = {"values": {"Sleep stage W": 0, "Sleep stage 2": 1}}
NIGHT = [(0, 3, "Sleep stage W"), (3, 2.5, "sleep stage 2"), (7, 1, "Sleep stage ?")]


def test_annotations_label_every_step_and_gaps_between_them_are_unknown(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.edf", notes=NIGHT)
    asked = study(task={"per_step": True})
    patients, report = read(tmp_path, asked, annotations=STAGES)
    labels = np.concatenate([stay.label for stay in patients[0].stays])
    known = [0.0] * 24 + [1.0] * 20
    np.testing.assert_array_equal(labels, [*known, *[np.nan] * 4])
    assert (len(patients[0].stays), report.unlabelled) == (3, 1)  # the last two seconds: none
    grid = to_grid(iter(patients), asked)
    assert grid.y_N.shape == (3, 16)


def test_a_label_of_each_step_without_annotations_or_of_no_class_is_refused(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.edf", notes=NIGHT)
    asked = study(task={"per_step": True})
    with pytest.raises(DataError, match=r"label at every step.*say as \[data.annotations\] values"):
        read(tmp_path, asked)
    with pytest.raises(DataError, match="none of the task's 2 classes"):
        read(tmp_path, asked, annotations={"values": {"Sleep stage W": 5}})


def test_two_files_of_one_person_are_one_patient(tmp_path: Path) -> None:
    write_edf(tmp_path / "night1" / "a.edf")
    write_edf(tmp_path / "night2" / "b.edf", patient="p1")
    patients, _ = read(tmp_path)
    assert [(p.patient_id, len(p.stays)) for p in patients] == [("p1", 8)]


def test_a_file_that_names_nobody_is_refused_or_counts_as_a_recording(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.edf", patient="X")
    write_edf(tmp_path / "b.edf", patient="X")
    with pytest.raises(DataError, match=r"2 of 2 records name no person.*\"recording\""):
        read(tmp_path)
    patients, report = read(tmp_path, study(recording=True))
    assert [p.patient_id for p in patients] == ["a", "b"]
    assert report.person_key.startswith("nothing")
    for settings, people in (
        ({"same_person": [["a", "b"]]}, ["a"]),
        ({"same_person": []}, ["a", "b"]),
        ({"labels": table(tmp_path, "file,person,label\na.edf,y,0\nb,Y,1\n", "p.csv")}, ["y"]),
    ):
        assert [p.patient_id for p in read(tmp_path, **settings)[0]] == people


def test_the_identification_of_plain_edf_is_the_person(tmp_path: Path) -> None:
    for name, whose in (("a", b"Ward 3 bed 4"), ("b", b"X X X X")):
        patch(write_edf(tmp_path / f"{name}.edf", patient="X"), 8, whose.ljust(80))
        patch(tmp_path / f"{name}.edf", 192, b" " * 44)
    patients, report = read(tmp_path, study(recording=True))
    assert [p.patient_id for p in patients] == ["ward 3 bed 4", "b"]
    assert report.person_key == "the patient's code in the file, where there is one"


def test_units_are_converted_and_the_baseline_of_a_voltage_goes(tmp_path: Path) -> None:
    wave = np.tile([10.0, 30.0], 64)
    for unit in ("uV", "µV"):
        path = write_edf(tmp_path / "a.edf", {"C3": (wave, 16, "uV")})
        patch(path, path.read_bytes().index(b"uV      "), unit.encode("latin-1").ljust(8))
        patients, _ = read(tmp_path, study(unit="mV", rate=16.0))
        close(first(patients)[:2], [-0.01, 0.01], 1e-4)
        patients, _ = read(tmp_path, study(unit="uV", rate=16.0), baseline="none")
        close(first(patients)[:2], [10, 30])
    with pytest.raises(DataError, match=r"signal C3 is in .*, the study wants 'Cel'"):
        read(tmp_path, study(unit="Cel"))


def test_channels_of_other_rates_are_on_one_clock(tmp_path: Path) -> None:
    write_edf(
        tmp_path / "a.edf",
        {"fast": (ramp(rate=64), 64, "mmHg"), "C3": (ramp(rate=4), 4, "mmHg")},
    )
    patients, _ = read(tmp_path, study("fast", "C3"))
    values = patients[0].stays[1]
    for variable in (0, 1):
        close(values.value_E[values.variable_E == variable][2:14].tolist(),
              list(2 + np.arange(2, 14) / 8), 0.15)  # fmt: skip


def test_channels_are_found_by_name_and_others_are_told(tmp_path: Path) -> None:
    path = write_edf(
        tmp_path / "a.edf", {"EEG C3": (ramp(), 16, "mmHg"), "Fz": (ramp(), 16, "mmHg")}
    )
    with pytest.raises(DataError, match="record a: has no signal 'C3' but EEG C3, Fz"):
        read(tmp_path)
    asked = {"variables": {"C3": {"signal": ["C3", "eeg  c3"]}}}
    assert len(read(tmp_path, **asked)[0]) == 1
    patch(path, 256, "EEG Cé".encode("latin-1").ljust(16))
    assert len(read(tmp_path, variables={"C3": {"signal": ["EEG Cé"]}})[0]) == 1
    patch(path, 256, b"Fz".ljust(16))
    with pytest.raises(DataError, match="record a: has 2 signals 'Fz'"):
        read(tmp_path, study("Fz"))


def test_windows_begin_at_annotations_and_have_their_label(tmp_path: Path) -> None:
    notes = [(0.5, 0.0, "lights"), (1.0, 2.0, "Sleep stage W"), (3.0, 4.0, "Sleep stage 2")]
    write_edf(tmp_path / "a.edf", notes=[*notes, (7.0, 1.0, "Sleep stage ?")])
    stages = {"Sleep stage W": 0, "sleep stage 2": 1}
    patients, _ = read(tmp_path, study(window=8), annotations={"values": stages})
    assert [stay.label for stay in patients[0].stays] == [0, 0, 1, 1, 1, 1]
    close([stay.value_E[4] for stay in patients[0].stays], [1.5, 2.5, 3.5, 4.5, 5.5, 6.5], 0.1)
    patients, _ = read(
        tmp_path, study(window=8), annotations={"texts": ["lights"], "offset_s": 0.5}
    )
    assert [(stay.label, len(stay.hours_E)) for stay in patients[0].stays] == [(0, 8)]
    close([patients[0].stays[0].value_E[4]], [1.5], 0.1)


def test_annotations_may_lie_in_another_file(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.edf", patient="P1")
    edfio.Edf(
        [], annotations=[edfio.EdfAnnotation(2.0, 1.0, "W")], patient=edfio.Patient(code="P1")
    ).write(tmp_path / "hypnogram.edf")
    labels = table(tmp_path, "file,label,stages\na,1,hypnogram.edf\n") | {"annotations": "stages"}
    patients, _ = read(tmp_path, study(window=8), labels=labels, annotations={"values": {"W": 1}})
    assert [stay.label for stay in patients[0].stays] == [1]
    close([patients[0].stays[0].value_E[4]], [2.5], 0.1)
    labels = table(tmp_path, "file,label,stages\na,1,../a.edf\n") | {"annotations": "stages"}
    with pytest.raises(DataError, match="its file of annotations is not among the data"):
        read(tmp_path, labels=labels, annotations={"values": {"W": 1}})


def test_what_lies_between_the_pieces_of_a_file_is_missing(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", notes=[(0.0, 0.0, "x")])
    move(path, 7, "20")
    patients, report = read(tmp_path, study(window=168))
    hours = patients[0].stays[0].hours_E
    assert [hours.min(), hours.max()] == [0, 167]
    assert not ((hours > 57) & (hours < 159)).any()
    assert report.notes == {edf.IN_PIECES: 1}
    move(path, 6, "0")
    with pytest.raises(DataError, match="pieces that do not say when each begins"):
        read(tmp_path)


def test_bdf_reads_as_edf_does(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.bdf", bdf=True)
    close(first(read(tmp_path)[0], 1)[1:-1], list(2 + np.arange(16)[1:-1] / 8), 0.1)


def test_a_zip_keeps_its_folders_apart(tmp_path: Path) -> None:
    for name in ("u", "y"):
        write_edf(tmp_path / name / "a.edf", patient=name.upper())
    labels = table(tmp_path, "record,label\nu/a,0\ny/a.edf,1\n")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in tmp_path.rglob("*.edf"):
            archive.write(file, file.relative_to(tmp_path))
        archive.writestr("../outside.edf", b"x")
    chosen = EdfSettings.model_validate(
        {"source": "edf", "path": tmp_path / "all.zip", "labels": labels}
    )
    patients = list(Edf(chosen).read_patients(study()))
    assert [(p.patient_id, p.stays[0].label) for p in patients] == [("u", 0), ("y", 1)]


def test_a_file_cut_short_is_read_as_far_as_it_goes_and_said(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf")
    path.write_bytes(path.read_bytes()[:-40])
    patients, report = read(tmp_path)
    assert len(patients[0].stays) == 3
    assert report.notes == {edf.CUT_SHORT: 1}


@pytest.mark.parametrize(
    ("place", "text", "sentence"),
    [
        (252, b"9999", "cannot be read as EDF"),  # channels
        (244, b"0       ", "cannot be read as EDF"),  # seconds a data record
        (244, b"1e-9    ", "says a sampling rate outside"),
        (184, b"99999999", "cannot be read as EDF"),  # bytes of the header
        (256 + 104, b"100     ", "has no physical range"),  # physical minimum = maximum
        (256 + 216, b"0       ", "says a sampling rate outside"),  # samples a data record
    ],
)
def test_a_header_that_cannot_be_is_one_sentence(tmp_path, place, text, sentence) -> None:
    path = write_edf(tmp_path / "a.edf", notes=None)
    channels = 2  # with the channel of annotations
    if place >= 256:
        place = 256 + (place - 256) * channels
    patch(path, place, text)
    with pytest.raises(DataError, match=f"record a: .*{sentence}") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_filters_take_what_they_say_and_shift_nothing(tmp_path: Path) -> None:
    time = np.arange(64 * 32) / 64
    slow, fast = np.sin(2 * np.pi * 1 * time), np.sin(2 * np.pi * 20 * time)
    write_edf(tmp_path / "a.edf", {"C3": (10 * (slow + fast), 64, "uV")})
    asked = study(unit="uV", rate=64.0, window=640)
    for wanted, kept in (({"high_hz": 5.0}, slow), ({"low_hz": 8.0}, fast)):
        patients, _ = read(tmp_path, asked, filter=wanted)
        close(first(patients, 1), list(10 * kept[640:1280]), 0.1)
    patients, _ = read(tmp_path, asked, filter={"notch_hz": 20.0})
    close(first(patients, 1), list(10 * slow[640:1280]), 0.2)
    with pytest.raises(DataError, match="high_hz 40 is not below half the rate"):
        read(tmp_path, asked, filter={"high_hz": 40.0})


def test_static_variables_come_from_the_table(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.edf")
    labels = table(tmp_path, "file,label,age\na,1,33\n")
    asked = study(static="Age")
    variables = {"Age": {"column": "age"}}
    stay = read(tmp_path, asked, labels=labels, variables=variables)[0][0].stays[0]
    assert stay.value_E[stay.variable_E == 1].tolist() == [33]
    with pytest.raises(SettingsError, match=r"\[data.variables.Age\] must say the column or the"):
        read(tmp_path, asked, labels=labels)


def test_a_label_that_is_not_known_is_counted_and_a_word_needs_its_number(tmp_path: Path) -> None:
    for name in "ab":
        write_edf(tmp_path / f"{name}.edf", patient=name)
    labels = table(tmp_path, "file,label\na,\nb,yes\n") | {"values": {"yes": 1, "no": 0}}
    patients, report = read(tmp_path, labels=labels)
    assert [p.patient_id for p in patients] == ["b"]
    assert report.unlabelled == 1
    with pytest.raises(DataError, match=r"labels.csv line 3: needs columns 'file' and 'label'"):
        read(tmp_path, labels=table(tmp_path, "file,label\na,\nb,yes\n"))


def test_a_label_that_the_task_does_not_have_is_refused(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.edf")
    for text in ("file,label\na,2\n", "file,label\na,0.5\n"):
        with pytest.raises(DataError, match="record a: has a label that is none of the task's 2"):
            read(tmp_path, labels=table(tmp_path, text))


@pytest.mark.skipif(not DATA.exists(), reason="the recordings are not beside the repository")
def test_the_real_recordings_are_sixteen_people_with_every_trial(tmp_path: Path) -> None:
    chosen = read_data_settings(
        {
            "source": "edf",
            "path": str(DATA / "edf.zip"),
            "labels": {"file": str(DATA / "people.csv")},
            "annotations": {"texts": ["S1 obj"]},
        },
        where="site.toml",
        folder=tmp_path,
    )
    source = open_source(chosen, EXAMPLE)
    grid = to_grid(source.read_patients(EXAMPLE), EXAMPLE)
    assert (grid.patients, len(grid.y_N), grid.y_N.mean()) == (16, 160, 0.5)
    assert source.report.person_key == "the column 'person' of people.csv"
