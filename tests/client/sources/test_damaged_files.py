"""Damaged and hostile files in every format of the built-in sources: a sentence, or clean values.

Each format's tiny records are cut, flipped, re-encoded and salted with odd numbers, always in the
same way. Whatever comes of it, reading ends: with a ``DataError`` that quotes no value, or with
values inside the study's ranges.
"""

import gzip
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.sources.common.source import Source
from consilium.client.sources.public.diagnosis_codes import DiagnosisCodes
from consilium.client.sources.public.heart_disease import HeartDisease
from consilium.client.sources.public.parkinsons import Parkinsons
from consilium.client.sources.public.physionet2012 import PhysioNet2012
from consilium.client.sources.public.physionet2019 import PhysioNet2019
from consilium.client.sources.recorded.edf import Edf
from consilium.client.sources.recorded.image_slices import ImageSlices
from consilium.client.sources.recorded.molecules import Molecules
from consilium.client.sources.recorded.record_settings import EdfSettings, WaveformsSettings
from consilium.client.sources.recorded.waveforms import Waveforms
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, load_study, with_changes
from tests.client.sources.public.test_diagnosis_codes import HEADER, LINES
from tests.client.sources.public.test_physionet2012 import OUTCOMES, RECORD
from tests.client.sources.recorded.test_image_slices import (
    HOUNSFIELD,
    recordings,
    write_labels,
    write_series,
)
from tests.client.sources.recorded.test_image_slices import study as slices_study
from tests.client.sources.tiny_records import (
    HEART,
    parkinsons_csv,
    psv,
    write_eicu,
    write_molecules,
    write_volumes,
)

STUDIES = Path(__file__).parents[3] / "studies"
DAMAGES = 60
SLOWEST_S = 20.0  # of computing, for one reading of a tiny file; a bomb takes minutes
SECRET = 77.7125  # stands in the records as a patient's value, and in no error
ODD = ("nan", "inf", "-inf", "1e999", "1_000", "-1", "", "9" * 400, "²", "0x10", "'", '"', "\0")
SKIP = {"on_bad_file": "skip"}


@dataclass(frozen=True)
class Format:
    """How tiny records are written, and opened; a study that reads them."""

    study: Study
    write: Callable[[Path], None]
    open: Callable[[Path], Source]


def named(name: str, **data: object) -> Study:
    return with_changes(load_study(STUDIES / f"{name}.toml"), data=data)


EEG = named("eeg-alcoholism")


def record_study() -> Study:
    spec = {"unit": "mV", "low": -1e4, "high": 1e4, "center": 0.0, "spread": 1.0}
    age = spec | {"unit": "a", "role": "static"}
    return with_changes(
        load_study(STUDIES / "arrhythmia-mitdb.toml"),
        data={"label": "label", "rate_hz": 25.0, "window_h": 50},
        task={"kind": "binary", "outputs": 1},
        study={"variables": {"II": spec, "Age": age}},
    )


def wide_slices() -> Study:
    return slices_study("1", -1e6, 1e6)


def write_2012(folder: Path) -> None:
    (folder / "set-a").mkdir()
    (folder / "Outcomes-a.txt").write_text(OUTCOMES)
    for identity in (1, 2):
        text = RECORD.format(id=identity, icu=4) + f"20:00,HR,{SECRET}\n"
        (folder / "set-a" / f"{identity}.txt").write_text(text)


def write_2019(folder: Path) -> None:
    for number in range(2):
        text = psv(6, septic_from=4 if number else None, heart_rate=SECRET - 3)
        (folder / f"p{number}.psv").write_text(text)


def write_codes(folder: Path) -> None:
    content = "\n".join([HEADER, *LINES]).encode()
    (folder / "diabetic_data.csv.gz").write_bytes(gzip.compress(content, mtime=0))


def write_nifti(folder: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for name, ending in (("anna", "nii"), ("ben", "nii.gz")):
        image = nibabel.Nifti1Image(np.full((4, 4, 3), 0.5, dtype=np.float32), np.eye(4))
        nibabel.save(image, folder / f"{name}.{ending}")
    write_labels(folder, anna=0, ben=1)


def write_dicom(folder: Path) -> None:
    for name in ("anna", "ben"):
        write_series(folder / name)
    write_labels(folder, anna=0, ben=1)


def write_wfdb(folder: Path) -> None:
    pytest.importorskip("wfdb")
    from tests.client.sources.recorded.test_waveforms import write

    write(folder)


def write_edf_files(folder: Path) -> None:
    pytest.importorskip("edfio")
    from tests.client.sources.recorded.edf_maker import ramp, write_edf

    notes = [(0.0, 1.0, "W"), (2.0, 1.0, "R")]
    channels = {name: (ramp(scale=0.5), 16, "uV") for name in EEG.variables}
    for name in ("anna", "ben"):
        write_edf(folder / f"{name}.edf", channels, patient=name, notes=notes)
    write_edf(folder / "cleo.bdf", channels, patient="cleo", notes=notes, bdf=True)
    (folder / "labels.csv").write_text("file,alcoholic\nanna,0\nben,1\ncleo.bdf,1\n")


def edf_files(folder: Path) -> Source:
    labels = {"file": folder / "labels.csv"}
    table = {"source": "edf", "path": folder, "labels": labels, "annotations": {"texts": ["W"]}}
    return Edf(EdfSettings.model_validate(table))


def write_records(folder: Path) -> None:
    pytest.importorskip("wfdb")
    from tests.client.sources.recorded.test_recordings import challenge

    challenge(folder)


def records(folder: Path) -> Source:
    table = {
        "source": "waveforms", "path": folder, "same_person": [],
        "comments": {"label": "Dx", "codes": [["59118001"]]},
        "variables": {"Age": {"comment": "Age"}},
    }  # fmt: skip
    return Waveforms(WaveformsSettings.model_validate(table))


def write_pictures(folder: Path) -> None:
    from PIL import Image

    for name, ending in (("anna", "png"), ("ben", "jpg")):
        Image.new("L", (8, 8), 90).save(folder / f"{name}.{ending}")
    write_labels(folder, anna=0, ben=1)


def write_many_frames(folder: Path) -> None:
    pytest.importorskip("pydicom")
    from tests.client.sources.recorded import dicom_maker

    frames = np.stack([dicom_maker.flat(100 * z) for z in range(3)])
    dicom_maker.write_slice(folder / "a" / "1.dcm", frames, photometric="MONOCHROME1", signed=True)
    dicom_maker.write_ramp(folder / "b" / "c", patient="P2", PixelPaddingValue=200)
    write_labels(folder, a=0, P2=1)


def eicu(folder: Path) -> Source:
    pytest.importorskip("polars")
    from consilium.client.sources.public.eicu_demo import EicuDemo

    return EicuDemo(folder)


FORMATS = {
    "physionet2012": Format(named("icu-mortality-2012"), write_2012, PhysioNet2012),
    "physionet2019": Format(named("sepsis-2019"), write_2019, PhysioNet2019),
    "heart-disease": Format(
        named("heart-disease"),
        lambda folder: (folder / "h.data").write_text(HEART.replace("2.3", str(SECRET))) and None,
        lambda folder: HeartDisease(folder / "h.data"),
    ),
    "parkinsons": Format(
        named("parkinsons-progression"),
        lambda folder: (folder / "p.data").write_text(parkinsons_csv(2)) and None,
        lambda folder: Parkinsons(folder / "p.data"),
    ),
    "diagnosis-codes": Format(named("readmission-fusion"), write_codes, DiagnosisCodes),
    "molecules": Format(
        named("tox21", label="NR-AR+SR-p53"),
        lambda folder: write_molecules(folder, 20) and None,
        lambda folder: Molecules(folder / "tox21.csv"),
    ),
    "npz": Format(
        recordings(slices_study()),
        lambda folder: write_volumes(folder / "v.npz", classes=2, volumes=2) and None,
        lambda folder: ImageSlices(folder / "v.npz"),
    ),
    "nifti": Format(slices_study(), write_nifti, ImageSlices),
    "dicom": Format(HOUNSFIELD, write_dicom, ImageSlices),
    "wfdb": Format(
        named("arrhythmia-mitdb"), write_wfdb, lambda folder: Waveforms(folder, same_person=())
    ),
    "wfdb-labels": Format(record_study(), write_records, records),
    "edf": Format(EEG, write_edf_files, edf_files),
    "pictures": Format(slices_study(), write_pictures, ImageSlices),
    "dicom-frames": Format(wide_slices(), write_many_frames, ImageSlices),
    "eicu-demo": Format(named("eicu-aki-regions"), lambda f: write_eicu(f) and None, eicu),
}
LONG = {"dicom", "dicom-frames"}  # to read
FORMATS["molecules"] = Format(
    with_changes(FORMATS["molecules"].study, task={"outputs": 2}),
    FORMATS["molecules"].write,
    FORMATS["molecules"].open,
)


def damaged(content: bytes, stream: np.random.Generator) -> bytes:
    """The content with one thing wrong."""
    place = int(stream.integers(0, max(1, len(content))))
    kind = stream.integers(0, 7)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + stream.bytes(8) + content[place + 8 :]
    if kind == 2:
        return content[:place] + content[place // 2 :]
    if kind == 3:
        return content[:place] + b"\xff" * 4 + content[place + 4 :]
    if kind == 4:
        return content.decode("latin-1").encode("utf-16")
    if kind == 5:
        bits = bytearray(content or b"\0")
        bits[place] ^= 1 << int(stream.integers(0, 8))
        return bytes(bits)
    odd = ODD[int(stream.integers(0, len(ODD)))].encode()
    for separator in (b",", b"|", b" "):
        if separator in content:
            cells = content.split(separator)
            cells[int(stream.integers(0, len(cells)))] = odd
            return separator.join(cells)
    return odd


def outcome_of(source: Source, study: Study) -> str:
    """Read everything; return the refusal, or check every value and return nothing."""
    began = time.process_time()
    told = ""
    try:
        grid = to_grid(source.read_patients(study), study)
    except DataError as error:
        told = str(error)
        assert "\n" not in told
        assert len(told) < 600
        assert str(SECRET) not in told
    else:
        for index, spec in enumerate(study.variables.values()):
            value_NT = grid.value_NTV[:, :, index]
            known_NT = value_NT[~np.isnan(value_NT)]
            assert ((known_NT >= np.float32(spec.low)) & (known_NT <= np.float32(spec.high))).all()
        assert not np.isinf(grid.y_N).any()
    assert time.process_time() - began < SLOWEST_S
    return told


def refusals(form: Format, folder: Path, name: str) -> list[str]:
    """Read damaged records again and again; what was told each time."""
    form.write(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    whole = {path: path.read_bytes() for path in files}
    assert outcome_of(form.open(folder), form.study) == ""
    stream = np.random.default_rng(crc32(name.encode()))
    told = []
    for number in range(DAMAGES):
        path = files[int(stream.integers(0, len(files)))]
        path.write_bytes(damaged(whole[path], stream))
        study = with_changes(form.study, data=SKIP) if number % 2 else form.study
        told.append(outcome_of(form.open(folder), study))
        path.write_bytes(whole[path])
    return told


@pytest.mark.sampled(1)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in FORMATS]
)
def test_a_damaged_file_ends_in_one_sentence_or_in_values_in_range(
    name: str, tmp_path: Path
) -> None:
    assert sum(map(bool, refusals(FORMATS[name], tmp_path, name))) > DAMAGES // 10


@pytest.mark.slow
def test_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    zeros = bytes(1 << 20)
    with gzip.open(tmp_path / "bomb.csv.gz", "wb") as file:
        for _ in range(64):
            file.write(zeros)
    with pytest.raises(DataError, match=r"bomb\.csv\.gz line 1: longer than 65536 characters"):
        list(DiagnosisCodes(tmp_path / "bomb.csv.gz").read_patients(named("readmission-fusion")))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.dat", "w", force_zip64=True) as member:
            for _ in range(257):
                member.write(zeros)
        archive.writestr("a.hea", "a 1 360 10\na.dat 16 200 16 0 0 0 0 MLII\n")
        archive.writestr("p.psv", zeros * 2)
    pytest.importorskip("wfdb")
    with pytest.raises(DataError, match=r"unpacks to \d+ bytes, the largest file to 269484032"):
        list(
            Waveforms(tmp_path / "bomb.zip", same_person=()).read_patients(
                named("arrhythmia-mitdb")
            )
        )
    with pytest.raises(DataError, match=r"record p\.psv: is larger than 1048576 bytes; mend"):
        list(PhysioNet2019(tmp_path / "bomb.zip").read_patients(named("sepsis-2019")))


def test_a_deflated_dicom_and_one_of_many_frames_are_refused_unread(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    write_series(tmp_path / "anna")
    write_labels(tmp_path, anna=0)
    path = tmp_path / "anna" / "1.dcm"
    image = pydicom.dcmread(path)
    image.NumberOfFrames = 1 << 20
    image.save_as(path)
    with pytest.raises(
        DataError, match=r"volume anna: 1\.dcm has 1048576 frames of 4 x 4, and may"
    ):
        list(ImageSlices(tmp_path).read_patients(HOUNSFIELD))
    del image.NumberOfFrames
    image.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    image.save_as(path)
    with pytest.raises(DataError, match=r"volume anna: 1\.dcm is deflated; export the series"):
        list(ImageSlices(tmp_path).read_patients(HOUNSFIELD))


@pytest.mark.parametrize("size", [(1 << 32, 1 << 32, 1), (40_000, 40_000, 40_000), (4, 4, 0)])
def test_a_nifti_header_of_absurd_size_is_refused_unread(size: tuple, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti2Image(np.zeros((4, 4, 3), dtype=np.uint8), np.eye(4))
    nibabel.save(image, tmp_path / "anna.nii")
    header = nibabel.Nifti2Header()
    header["dim"] = [3, *size, 1, 1, 1, 1]
    header["magic"], header["datatype"], header["bitpix"] = b"n+2", 2, 8
    header["vox_offset"] = 544
    content = header.binaryblock + bytes(4 + 48)
    (tmp_path / "anna.nii").write_bytes(content)
    write_labels(tmp_path, anna=0)
    with pytest.raises(DataError, match=r"volume anna: (has shape .* at most|cannot be read)"):
        list(ImageSlices(tmp_path).read_patients(slices_study()))


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("100 1 360 999999999999", r"its file 100\.dat is shorter than 100\.hea says"),
        ("100 1 0 1800", "says a sampling rate outside 0.0001 to 1e"),
        ("100 1 0.00001 1800", "says a sampling rate outside 0.0001 to 1e"),
        ("100 1 1e300 1800", r"cannot be read as WFDB: its first line '100 1 1e300 1800' is not"),
        ("100 1 0.0002 1800", r"says 1800 samples in all, .* also at the study's rate_hz"),
        ("100 0 360 1800", r"100\.hea names no signal; leave it out"),
        ("100 1 360 5000", r"its file 100\.dat is shorter than 100\.hea says"),
    ],
)
def test_a_waveform_header_of_absurd_size_is_refused_unread(
    header: str, sentence: str, tmp_path: Path
) -> None:
    write_wfdb(tmp_path)
    path = tmp_path / "100.hea"
    path.write_text("\n".join([header, *path.read_text().splitlines()[1:]]))
    with pytest.raises(DataError, match=f"record 100: .*({sentence})"):
        list(Waveforms(tmp_path, same_person=()).read_patients(named("arrhythmia-mitdb")))


def test_labels_that_occur_twice_or_are_no_numbers_name_their_line(tmp_path: Path) -> None:
    for lines, line in (("anna,0\nanna,1\n", 3), ("anna,0\nben,high\n", 3), ("anna,1_0\n", 2)):
        (tmp_path / "labels.csv").write_text("patient,label\n" + lines)
        with pytest.raises(DataError, match=rf"labels.csv line {line}: needs columns 'patient'"):
            list(ImageSlices(tmp_path).read_patients(slices_study()))


def test_what_is_no_number_or_outside_its_time_is_counted(tmp_path: Path) -> None:
    doubled = [LINES[0].replace(",2,2", ",2,two", 1), LINES[0], LINES[1].replace("[70-80)", "old")]
    (tmp_path / "v.csv").write_text("\n".join([HEADER, *doubled]))
    source = DiagnosisCodes(tmp_path / "v.csv")
    study = named("readmission-fusion")
    assert to_grid(source.read_patients(study), study).patients == 2
    assert source.report.duplicates == 1
    assert source.report.set_aside == {"values that are no number": 1}
    late = parkinsons_csv(1).splitlines()
    late.append(late[-1].replace(f",{7 * 25 + 1},", ",9999,"))
    (tmp_path / "p.data").write_text("\n".join(late))
    people = Parkinsons(tmp_path / "p.data")
    list(people.read_patients(named("parkinsons-progression")))
    assert people.report.outside_window == 1
