"""WFDB records as hospitals have them: labels, people, annotators, gaps, segments."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.sources.common.persons import named_person, same_person, spellings
from consilium.client.sources.common.source import Patient, ReadReport
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, load_study, with_changes

wfdb = pytest.importorskip("wfdb")

STUDY = load_study(Path(__file__).parents[4] / "studies" / "arrhythmia-mitdb.toml")
RATE = 50


def study(*names: str, unit: str = "mV", rate: float = 25.0, **task: object) -> Study:
    spec = {"unit": unit, "low": -1e4, "high": 1e4, "center": 0.0, "spread": 1.0}
    variables: dict = dict.fromkeys(names or ("II",), spec)
    variables["Age"] = spec | {"unit": "a", "role": "static"}
    return with_changes(
        STUDY,
        data={"label": "label", "rate_hz": rate, "window_h": 50},
        task={"kind": "binary", "outputs": 1} | task,
        study={"variables": variables},
    )


def write(
    folder: Path, name: str, comments: list[str], wave: np.ndarray | None = None,
    signal: str = "II", unit: str = "mV",
) -> None:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    wave = np.tile([1.0, -1.0], 4 * RATE)[:, None] if wave is None else wave
    wfdb.wrsamp(
        name, fs=RATE, units=[unit], sig_name=[signal], p_signal=wave, fmt=["16"],
        write_dir=str(folder), comments=comments,
    )  # fmt: skip


def read(
    folder: Path, asked: Study | None = None, **settings: object
) -> tuple[list[Patient], ReadReport]:
    age = {"variables": {"Age": {"comment": "Age"}}}
    chosen = read_data_settings(
        {"source": "waveforms", "path": str(folder), **age, **settings},
        where="site.toml", folder=folder,
    )  # fmt: skip
    source = open_source(chosen, asked or study())
    return list(source.read_patients(asked or study())), source.report


def challenge(folder: Path) -> dict:
    """Two records whose headers say what those of the challenge of 2020 say."""
    write(folder / "g1", "A0001", ["Age: 74", "Sex: Male", "Dx: 59118001"])
    write(folder / "g2", "A0002", ["Age: NaN", "Sex: Female", "Dx: 426783006,164889003"])
    return {"comments": {"label": "Dx", "codes": [["164889003", "164890007"]]}, "same_person": []}


def test_headers_comments_are_labels_and_static_values(tmp_path: Path) -> None:
    patients, report = read(tmp_path, **challenge(tmp_path))
    assert [(p.patient_id, [s.label for s in p.stays]) for p in patients] == [
        ("g1/A0001", [0, 0, 0, 0]),
        ("g2/A0002", [1, 1, 1, 1]),
    ]
    first, other = patients[0].stays[0], patients[1].stays[0]
    assert first.value_E[first.variable_E == 1].tolist() == [74]
    assert not (other.variable_E == 1).any()
    assert report.person_key == "[data] same_person, all other records of other people"


def test_several_codes_are_several_labels(tmp_path: Path) -> None:
    settings = challenge(tmp_path)
    settings["comments"]["codes"] = [["426783006"], ["164889003"], ["59118001"]]
    asked = study(kind="multilabel", outputs=3)
    patients, _ = read(tmp_path, asked, **settings)
    assert [p.stays[0].label.tolist() for p in patients] == [[0, 0, 1], [1, 1, 0]]


def test_a_table_names_people_labels_and_files_as_ptb_xl_does(tmp_path: Path) -> None:
    challenge(tmp_path)
    (tmp_path / "db.csv").write_text(
        "ecg_id,patient_id,age,filename_lr,scp_codes\n"
        "1,15709.0,56,g1/A0001,\"{'NORM': 100.0, 'SR': 0.0}\"\n"
        "2,15709.0,57,g2/A0002,\"{'AFIB': 0.0}\"\n"
    )
    labels = {
        "file": str(tmp_path / "db.csv"), "record": "filename_lr", "person": "patient_id",
        "label": "scp_codes", "codes": [["AFIB", "AFLT"]],
    }  # fmt: skip
    patients, report = read(tmp_path, labels=labels, variables={"Age": {"column": "age"}})
    assert [(p.patient_id, len(p.stays)) for p in patients] == [("15709.0", 8)]
    assert [s.label for s in patients[0].stays] == [0] * 4 + [1] * 4
    assert report.person_key == "the column 'patient_id' of db.csv"
    ages = {float(s.value_E[s.variable_E == 1][0]) for s in patients[0].stays}
    assert ages == {56, 57}


def test_records_that_name_nobody_are_refused_and_a_comment_may_name_them(tmp_path: Path) -> None:
    settings = challenge(tmp_path)
    del settings["same_person"]
    with pytest.raises(DataError, match=r"2 of 2 records name no person.*same_person"):
        read(tmp_path, **settings)
    for folder, name in (("g1", "A0001"), ("g2", "A0002")):
        with (tmp_path / folder / f"{name}.hea").open("a") as file:
            file.write("#<Subject>: S7\n")
    settings["comments"]["person"] = "subject"
    patients, report = read(tmp_path, **settings)
    assert [(p.patient_id, len(p.stays)) for p in patients] == [("s7", 8)]
    assert report.person_key == "the comment 'subject'"


def test_records_of_one_person_are_put_together_by_what_the_hospital_says(tmp_path) -> None:
    settings = challenge(tmp_path) | {"same_person": [["A0001", "A0002"]]}
    patients, _ = read(tmp_path, **settings)
    assert [(p.patient_id, len(p.stays)) for p in patients] == [("A0001", 8)]


def test_a_gap_stays_missing_and_the_rest_is_read(tmp_path: Path) -> None:
    wave = np.tile([1.0, -1.0], 4 * RATE)[:, None]
    wave[RATE : 3 * RATE] = np.nan
    write(tmp_path, "a", ["Age: 1", "L: 1"], wave)
    patients, _ = read(tmp_path, comments={"label": "L"}, same_person=[])
    first, second = patients[0].stays[:2]
    assert 24 <= int((first.variable_E == 0).sum()) <= 26
    assert first.hours_E[first.variable_E == 0].max() <= 26
    assert 24 <= int((second.variable_E == 0).sum()) <= 26


def test_numerics_keep_their_level_and_a_voltage_loses_its_baseline(tmp_path: Path) -> None:
    for name, unit in (("n", "bpm"), ("m", "uV")):
        wave = np.full((8 * RATE, 1), 80.0)
        write(tmp_path / name, name, ["Age: 1", "L: 1"], wave, signal=name, unit=unit)
    level = {
        name: read(tmp_path / name, study(name, unit=unit), comments={"label": "L"}, same_person=[])
        for name, unit in (("n", "/min"), ("m", "uV"))
    }
    for name, right in (("n", 80.0), ("m", 0.0)):
        stay = level[name][0][0].stays[0]
        inner = stay.value_E[(stay.variable_E == 0) & (stay.hours_E > 4) & (stay.hours_E < 45)]
        assert inner.tolist() == pytest.approx([right] * len(inner), abs=1.0)


def test_windows_at_annotations_of_another_annotator(tmp_path: Path) -> None:
    write(tmp_path, "a", ["Age: 1"])
    wfdb.wrann(
        "a", "apn", np.array([0, 2 * RATE, 4 * RATE]), symbol=["N", "A", "N"],
        write_dir=str(tmp_path),
    )  # fmt: skip
    asked = {"annotations": {"values": {"N": 0, "A": 1}}, "same_person": []}
    with pytest.raises(DataError, match=r"record a: its annotations a\.atr are not there; add"):
        read(tmp_path, **asked)
    patients, _ = read(tmp_path, annotator="apn", **asked)
    labels = [s.label for s in patients[0].stays]
    assert set(labels) <= {0, 1}
    assert len(labels) == 3


def test_a_record_of_segments_is_one_record_and_its_gaps_are_missing(tmp_path: Path) -> None:
    for name in ("a_1", "a_2"):
        write(tmp_path, name, [])
    (tmp_path / "a_layout.hea").write_text(f"a_layout 1 {RATE} 0\n~ 0 200 16 0 0 0 0 II\n")
    (tmp_path / "a.hea").write_text(
        f"a/4 1 {RATE} {20 * RATE}\na_layout 0\na_1 {8 * RATE}\n~ {4 * RATE}\na_2 {8 * RATE}\n"
        "# Age: 3\n# L: 1\n"
    )
    patients, _ = read(tmp_path, comments={"label": "L"}, same_person=[])
    assert [p.patient_id for p in patients] == ["a"]
    seen = [int((s.variable_E == 0).sum()) for s in patients[0].stays]
    assert seen[:4] == [50] * 4
    assert sum(seen) in range(395, 406)


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("A0001.dat", r"record g1/A0001: its file A0001\.dat is not there; add it beside"),
        ("A0001.hea", r"needs columns|hold no|names no"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, gone: str, sentence: str) -> None:
    settings = challenge(tmp_path)
    (tmp_path / "g1" / gone).unlink()
    if gone.endswith(".hea"):
        assert [p.patient_id for p in read(tmp_path, **settings)[0]] == ["g2/A0002"]
        return
    with pytest.raises(DataError, match=sentence):
        read(tmp_path, **settings)


def test_a_study_of_waveforms_is_served_by_edf_and_the_other_way_round(tmp_path: Path) -> None:
    asked = with_changes(study(), data={"source": "edf"})
    assert len(read(tmp_path, asked, **challenge(tmp_path))[0]) == 2


def test_identifiers_are_the_same_person_or_nobody() -> None:
    assert same_person(" A\u00a0 1\0") == same_person("a 1") == "a 1"
    assert [named_person(text) for text in ("ANON", "x", "N/A", None, "0", "Anonova")] == [
        "", "", "", "", "0", "anonova",
    ]  # fmt: skip
    assert spellings(["P1", "p1 ", "P2", "P2"]) == 1
