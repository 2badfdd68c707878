"""Waveforms: the right window, class and intervals of every beat; plain refusals."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.sources.recorded.waveforms import CLASSES, Waveforms
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, load_study, with_changes

wfdb = pytest.importorskip("wfdb")

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data" / "mitdb" / "mitdb-ds1.zip"
STUDY = load_study(ROOT / "studies" / "arrhythmia-mitdb.toml")
RATE = 180
BEATS = (200, 380, 560, 650, 920, 1100, 1280)
SYMBOLS = ["N", "N", "A", "V", "+", "/", "N"]  # "+" is a change of rhythm, no beat


def study(**tables: dict) -> Study:
    return with_changes(STUDY, **tables)


def write(folder: Path, name: str = "100", signal: str = "MLII") -> Path:
    """A record of ten seconds with a spike of 1 mV at every annotation."""
    folder.mkdir(parents=True, exist_ok=True)
    wave = np.zeros((10 * RATE, 1))
    for beat in BEATS:
        wave[beat - 2 : beat + 3, 0] = 1.0
    wfdb.wrsamp(
        name, fs=RATE, units=["mV"], sig_name=[signal], p_signal=wave, fmt=["16"],
        write_dir=str(folder),
    )  # fmt: skip
    wfdb.wrann(name, "atr", np.array(BEATS), symbol=SYMBOLS, write_dir=str(folder))
    return folder


def grid_of(folder: Path, asked: Study = STUDY, **options: object):
    options = {"same_person": ()} | options
    return to_grid(Waveforms(folder, **options).read_patients(asked), asked)


def test_every_beat_has_its_window_class_and_intervals(tmp_path: Path) -> None:
    grid = grid_of(write(tmp_path))
    assert grid.patients == 1
    assert [CLASSES[int(label)] for label in grid.y_N] == ["N", "S", "V", "Q"]
    names = list(STUDY.variables)
    wave_NT = grid.value_NTV[:, :, names.index("MLII")]
    assert set(np.argmax(wave_NT, axis=1)) <= {25, 26, 27}  # two fifths of 64 samples
    before = grid.value_NTV[:, 0, names.index("rr_before_ratio")]
    after = grid.value_NTV[:, 0, names.index("rr_after_ratio")]
    assert before[:2] == pytest.approx([1.0, 1.0], abs=0.02)
    assert (before[2] < 0.7, after[1] < 0.7, after[2] > 2) == (True, True, True)


def test_normal_beats_are_thinned_and_others_are_not(tmp_path: Path) -> None:
    grid = grid_of(write(tmp_path), thin_normal=9)
    assert [CLASSES[int(label)] for label in grid.y_N] == ["S", "V", "Q"]


def test_stretches_of_fixed_length_say_which_classes_occur(tmp_path: Path) -> None:
    asked = study(
        data={"label": "aami_present", "window_h": 300},
        task={"kind": "multilabel", "outputs": 4},
        study={"variables": {"MLII": STUDY.variables["MLII"].model_dump()}},
    )
    grid = grid_of(write(tmp_path), asked)
    assert grid.y_N.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]] or (
        grid.y_N.astype(int).tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    )


def test_a_zip_reads_as_a_folder_does(tmp_path: Path) -> None:
    folder = write(tmp_path / "records")
    with zipfile.ZipFile(tmp_path / "records.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"some/where/{file.name}")
    plain, zipped = grid_of(folder), grid_of(tmp_path / "records.zip")
    assert np.array_equal(plain.value_NTV, zipped.value_NTV, equal_nan=True)


def test_a_damaged_record_is_refused_or_skipped(tmp_path: Path) -> None:
    write(tmp_path, "100")
    write(tmp_path, "101")
    (tmp_path / "100.dat").write_bytes((tmp_path / "100.dat").read_bytes()[:700])
    with pytest.raises(DataError, match=r"record 100: its file 100\.dat is shorter than 100\.hea"):
        grid_of(tmp_path)
    source = Waveforms(tmp_path, same_person=())
    kept = list(source.read_patients(study(data={"on_bad_file": "skip"})))
    assert [patient.patient_id for patient in kept] == ["101"]
    assert source.report.skipped[0][0] == "100"


def test_what_a_record_does_not_have_is_refused(tmp_path: Path) -> None:
    write(tmp_path, signal="V1")
    with pytest.raises(DataError, match="record 100: has no signal 'MLII' but V1"):
        grid_of(tmp_path)
    with pytest.raises(DataError, match=r"record 7: 7\.hea is not among the data"):
        grid_of(tmp_path, records=["7"])
    with pytest.raises(DataError, match="need \\[data\\] rate_hz"):
        grid_of(tmp_path, study(data={"rate_hz": None}))
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match="is not a readable zip"):
        grid_of(tmp_path / "no.zip")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the database is not beside the repository")
def test_real_records_have_the_beats_that_were_counted() -> None:
    grid = grid_of(DATA, records=["119", "209"])
    counted = np.bincount(grid.y_N.astype(int), minlength=5)  # without a record's first and last
    assert counted.tolist() == [4160, 383, 445, 0, 0]
