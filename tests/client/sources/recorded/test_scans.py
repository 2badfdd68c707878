"""Scans: whose each is, which belong together, and the values that are right; one thing a test."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.sources.common.source import Patient, ReadReport
from consilium.client.sources.recorded import scans
from consilium.client.sources.recorded.image_slices import ImageSlices
from consilium.client.sources.recorded.record_settings import ImageSlicesSettings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, load_study, with_changes
from tests.client.sources.recorded.dicom_maker import (
    flat,
    pydicom,
    write_ramp,
    write_slice,
    write_table,
)

STUDY = load_study(Path(__file__).parents[4] / "studies" / "adrenal-slices.toml")
RAMP = [100.0, 200.0, 300.0, 400.0]


def study(unit: str = "1", recording: bool = False, cells: int = 1, **data: object) -> Study:
    spec = {"unit": unit, "low": -1e6, "high": 1e6, "center": 0.0, "spread": 1.0}
    names = [f"cell-{r}-{c}-of-{cells}" for r in range(cells) for c in range(cells)]
    return with_changes(
        STUDY,
        data={"window_h": 4, **data},
        study={"variables": dict.fromkeys(names, spec)},
        privacy={"unit": "recording" if recording else "patient"},
    )


def read(
    folder: Path, asked: Study | None = None, **settings: object
) -> tuple[list[Patient], ReadReport]:
    source = ImageSlices(ImageSlicesSettings(source="image-slices", path=folder, **settings))
    return list(source.read_patients(asked or study())), source.report


def values(patients: list[Patient]) -> dict[str, list[list[float]]]:
    return {p.patient_id: [stay.value_E.tolist() for stay in p.stays] for p in patients}


def test_one_person_in_two_folders_is_one_patient_with_two_stays(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a")
    write_ramp(tmp_path / "b")
    write_table(tmp_path, {"a": 0, "b": 1})
    patients, report = read(tmp_path)
    assert values(patients) == {"p1": [RAMP, RAMP]}
    assert [stay.label for stay in patients[0].stays] == [0, 1]
    assert (report.person_key, report.patients, report.stays) == ("PatientID", 1, 2)


def test_four_people_in_one_folder_are_four_patients(tmp_path: Path) -> None:
    for z in range(4):
        write_slice(tmp_path / "a" / f"{z}.dcm", flat(100 * (z + 1)), patient=f"P{z}")
    write_table(tmp_path, {"a": 0})
    patients, _ = read(tmp_path)
    assert values(patients) == {f"p{z}": [[100.0 * (z + 1)] * 4] for z in range(4)}


@pytest.mark.parametrize("written", [" P1 ", "p1", "P1\u00a0", "Ｐ１"])
def test_an_identifier_in_other_blanks_or_case_is_the_same_person(tmp_path, written: str) -> None:
    write_ramp(tmp_path / "a")
    write_ramp(tmp_path / "b", patient=written, SpecificCharacterSet="ISO_IR 192")
    write_table(tmp_path, {"a": 0, "b": 0})
    patients, report = read(tmp_path)
    assert len(patients) == 1
    assert report.notes == {scans.SPELLINGS: 1}


@pytest.mark.parametrize("nobody", [None, "", "ANON", "Anonymized", "XXXX", "unknown"])
def test_a_series_without_a_person_is_refused_or_counts_as_a_recording(tmp_path, nobody) -> None:
    write_ramp(tmp_path / "a", patient=nobody)
    write_ramp(tmp_path / "b", patient=nobody, series="9")
    write_table(tmp_path, {"a": 0, "b": 1})
    with pytest.raises(DataError, match=r"2 of 2 DICOM series have no PatientID.*\"recording\""):
        read(tmp_path)
    patients, report = read(tmp_path, study(recording=True))
    assert len(patients) == 2
    assert report.person_key == "nothing: each scan counts as a patient of its own"
    patients, report = read(tmp_path, person="labels")
    assert set(values(patients)) == {"a", "b"}
    assert report.person_key == "the column 'patient' of labels.csv"


def test_a_column_beside_the_folders_names_their_people(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c")):
        write_ramp(tmp_path / name, patient="ANON", series=f"1.{number}")
    write_table(
        tmp_path, {"a": ("anna", 0), "b": ("ben", 1), "c": ("Anna ", 0)},
        "folder", "patient", "label",
    )  # fmt: skip
    patients, report = read(tmp_path)
    assert {p.patient_id: len(p.stays) for p in patients} == {"anna": 2, "ben": 1}
    assert report.person_key == "the column 'patient' of labels.csv"


def test_in_a_column_of_folders_a_slice_is_not_taken_for_a_folder_of_its_name(
    tmp_path: Path,
) -> None:
    for number in (0, 1, 2):
        for place in (0, 1, 2):
            write_slice(tmp_path / f"{number}" / f"{place}.dcm", flat(number), patient=f"P{number}",
                        series=f"1.{number}", position=(0, 0, float(place)))  # fmt: skip
    write_table(tmp_path, {"0": 0, "1": 1, "2": 1}, "folder", "label")
    patients, _ = read(tmp_path)
    assert {p.patient_id: [s.label for s in p.stays] for p in patients} == {
        "p0": [0], "p1": [1], "p2": [1],
    }  # fmt: skip  # reads as one


def test_labels_by_person_by_series_and_by_examination_find_the_same_scan(tmp_path: Path) -> None:
    write_ramp(tmp_path / "deep" / "er" / "IM0", AccessionNumber="A7")
    for key, column in (("P1", "patient"), ("1.2.3", "series"), ("1.2", "study"), ("A7", "record")):
        write_table(tmp_path, {key: 1}, column, "label")
        patients, _ = read(tmp_path)
        assert values(patients) == {"p1": [RAMP]}


def test_two_series_of_a_folder_do_not_interleave_and_one_is_chosen(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a", SeriesTime="080000", SeriesDescription="AX T1")
    for z in range(3):
        write_slice(
            tmp_path / "a" / f"b{z}.dcm", flat(5000), series="1.2.4", position=(0, 0, z + 0.5),
            number=z + 1, SeriesTime="070000", SeriesDescription="AX T2",
        )  # fmt: skip
    write_table(tmp_path, {"a": 0})
    other = [5000.0] * 4
    for settings, right in (
        ({}, [RAMP]),
        ({"series": "first"}, [other]),
        ({"series": "last"}, [RAMP]),
        ({"series": "all"}, [RAMP, other]),
        ({"description": "*T2*"}, [other]),
    ):
        patients, _ = read(tmp_path, **settings)
        assert values(patients) == {"p1": right}
    assert read(tmp_path)[1].notes == {scans.NOT_READ: 1}


def test_a_scout_in_the_series_is_another_volume(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a")
    write_slice(tmp_path / "a" / "s.dcm", flat(7), orientation=(0, 1, 0, 0, 0, -1))
    write_slice(tmp_path / "a" / "t.dcm", flat(8, size=8), position=(0, 0, 9))
    write_table(tmp_path, {"a": 0})
    assert values(read(tmp_path)[0]) == {"p1": [RAMP]}


def test_each_examination_of_a_person_is_a_stay(tmp_path: Path) -> None:
    write_ramp(tmp_path / "x", study="1", series="11")
    write_ramp(tmp_path / "y", study="2", series="22")
    write_table(tmp_path, {"P1": 1})
    assert values(read(tmp_path)[0]) == {"p1": [RAMP, RAMP]}


def test_slices_go_by_place_else_by_number_and_never_by_both(tmp_path: Path) -> None:
    for z in range(4):
        value = flat(100 * (z + 1))
        write_slice(tmp_path / "back" / f"{z}.dcm", value, position=(0, 0, -z), number=z)
        write_slice(tmp_path / "none" / f"{z}.dcm", value, position=None, number=4 - z)
        half = (0, 0, z) if z % 2 else None
        write_slice(tmp_path / "half" / f"{z}.dcm", value, position=half, number=100 - z)
        write_slice(tmp_path / "same" / f"{z}.dcm", value, number=4 - z)
    write_table(tmp_path, dict.fromkeys(("back", "none", "half", "same"), 0))
    patients, report = read(tmp_path)
    assert values(patients) == {"p1": [RAMP[::-1]] * 4}
    assert report.notes[scans.BY_NUMBER] == 3


def test_slices_in_no_order_at_all_are_refused(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a", position=None, number="")
    write_table(tmp_path, {"a": 0})
    with pytest.raises(DataError, match="volume a: has slices without a position or a number"):
        read(tmp_path)


def test_of_several_images_of_a_place_the_first_is_taken(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a", EchoNumbers=1)
    for z in range(4):
        write_slice(
            tmp_path / "a" / f"e{z}.dcm", flat(9000), position=(0, 0, z), number=z + 1,
            EchoNumbers=2,
        )  # fmt: skip
    write_table(tmp_path, {"a": 0})
    patients, report = read(tmp_path)
    assert values(patients) == {"p1": [RAMP]}
    assert report.notes == {scans.REPEATED: 4}


def test_a_missing_slice_is_said_and_does_not_shift_the_others(tmp_path: Path) -> None:
    for z in (0, 1, 2, 8, 9):
        write_slice(tmp_path / "a" / f"{z}.dcm", flat(100 * z), position=(0, 0, z), number=z + 1)
    write_table(tmp_path, {"a": 0})
    patients, report = read(tmp_path, study(window_h=10))
    assert values(patients) == {
        "p1": [[0, 100, 200, 200, 200, 200, 800, 800, 800, 900]]
    }  # the slice that is nearest to each millimetre
    assert report.notes == {scans.GAPS: 1}


@pytest.mark.parametrize(("bits", "signed"), [(16, False), (12, False), (12, True), (16, True)])
def test_monochrome1_is_turned_over_in_its_stored_range(tmp_path, bits: int, signed: bool) -> None:
    ends = -1 if signed else (1 << bits) - 1
    for z in range(4):
        write_slice(
            tmp_path / "a" / f"{z}.dcm", flat(ends - 100 * (z + 1)), position=(0, 0, z),
            photometric="MONOCHROME1", bits=bits, signed=signed,
        )  # fmt: skip
    write_table(tmp_path, {"a": 0})
    assert values(read(tmp_path)[0]) == {"p1": [RAMP]}


def test_hounsfield_units_mean_the_same_in_monochrome1(tmp_path: Path) -> None:
    for name in ("MONOCHROME1", "MONOCHROME2"):
        write_ramp(
            tmp_path / name, modality="CT", photometric=name, RescaleSlope=2,
            RescaleIntercept=-1000,
        )  # fmt: skip
    write_table(tmp_path, {"MONOCHROME1": 0, "MONOCHROME2": 0})
    right = [-800.0, -600.0, -400.0, -200.0]
    assert values(read(tmp_path, study("[hnsf'U]"))[0]) == {"p1": [right, right]}


def test_computed_tomography_without_a_rescale_has_no_hounsfield_units(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a", modality="CT")
    write_table(tmp_path, {"a": 0})
    with pytest.raises(DataError, match=r"volume a: is in unit '1', and the study wants"):
        read(tmp_path, study("[hnsf'U]"))


def test_padding_is_no_measurement(tmp_path: Path) -> None:
    padded = flat(100)
    padded[0] = 63536
    write_slice(tmp_path / "a" / "1.dcm", padded, PixelPaddingValue=63536)
    write_table(tmp_path, {"a": 0})
    assert values(read(tmp_path)[0]) == {"p1": [[100.0] * 4]}


def test_a_window_is_applied_only_where_it_is_asked_for(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a", WindowCenter=250, WindowWidth=100)
    write_table(tmp_path, {"a": 0})
    assert values(read(tmp_path)[0]) == {"p1": [RAMP]}
    shown = values(read(tmp_path, window="voi")[0])["p1"][0]
    assert shown[0] == shown[1] == 0
    assert shown[2] == shown[3] == 65535


def palette(folder: Path, indexes: np.ndarray) -> None:
    levels = np.arange(256, dtype="<u2")[::-1]  # the palette runs from white to black
    colours = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", levels.tobytes()))
    }
    write_slice(folder / "1.dcm", indexes, photometric="PALETTE COLOR", bits=8, **colours)


def test_a_palettes_indexes_are_not_brightness(tmp_path: Path) -> None:
    palette(tmp_path / "a", flat(55))
    write_table(tmp_path, {"a": 0})
    assert values(read(tmp_path)[0])["p1"][0] == pytest.approx([200.0] * 4)


def test_colours_become_luminance(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a" / "1.dcm", flat(0))
    image = pydicom.dcmread(path)
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelData = bytes([255, 0, 0] * 16)
    image.save_as(path)
    write_table(tmp_path, {"a": 0})
    assert values(read(tmp_path)[0])["p1"][0] == pytest.approx([0.299 * 255] * 4)


def test_the_frames_of_one_file_are_slices(tmp_path: Path) -> None:
    frames = np.stack([flat(value) for value in RAMP])
    write_slice(tmp_path / "a" / "1.dcm", frames, position=None, orientation=None)
    path = write_slice(tmp_path / "b" / "1.dcm", frames, position=None, orientation=None)
    enhanced, groups = pydicom.dcmread(path), []
    for z in range(4):  # the frames lie in the file from head to feet
        place = pydicom.dataset.Dataset()
        place.ImagePositionPatient = [0, 0, -z]
        scale = pydicom.dataset.Dataset()
        scale.RescaleSlope, scale.RescaleIntercept = 2, z
        group = pydicom.dataset.Dataset()
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [place], [scale]
        groups.append(group)
    plane = pydicom.dataset.Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared = pydicom.dataset.Dataset()
    shared.PlaneOrientationSequence = [plane]
    enhanced.PerFrameFunctionalGroupsSequence = groups
    enhanced.SharedFunctionalGroupsSequence = [shared]
    enhanced.save_as(path)
    write_table(tmp_path, {"a": 0, "b": 0})
    assert values(read(tmp_path)[0]) == {"p1": [RAMP, [803.0, 602.0, 401.0, 200.0]]}


def test_what_lies_beside_the_images_is_left_alone(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a" / "SER1")
    for name in ("Thumbs.db", ".DS_Store", "DICOMDIR", "README", "notes.txt", "thumb.jpg"):
        (tmp_path / "a" / name).write_bytes(b"x" * 200)
    report = write_slice(tmp_path / "a" / "report.dcm", flat(1))
    text = pydicom.dcmread(report)
    for name in ("Rows", "Columns", "PixelData"):
        delattr(text, name)
    text.save_as(report)
    bare = report.with_name(
        "bare.dcm"
    )  # the same without preamble and header, as old programs write
    text.file_meta = pydicom.dataset.FileMetaDataset()
    pydicom.dcmwrite(bare, text, implicit_vr=True, little_endian=True)
    write_table(tmp_path, {"a": 0})
    patients, report = read(tmp_path)
    assert values(patients) == {"p1": [RAMP]}
    assert report.notes[scans.NO_IMAGE] >= 4


def test_files_without_a_suffix_with_another_and_behind_links_are_read_once(tmp_path) -> None:
    away, here = tmp_path / "away", tmp_path / "here"
    write_ramp(away)
    for number, path in enumerate(sorted(away.iterdir())):
        path.rename(away / (f"IM{number}" if number % 2 else f"{number}.DCM"))
    here.mkdir()
    (here / "a").symlink_to(away)
    (away / "loop").symlink_to(here)
    (here / "a" / "copy.dcm").write_bytes((away / "IM1").read_bytes())
    write_table(here, {"a": 0})
    patients, report = read(here)
    assert values(patients) == {"p1": [RAMP]}
    assert report.notes == {scans.COPIES: 1}


def test_a_compression_without_a_decoder_is_named(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a" / "1.dcm", flat(1))
    image = pydicom.dcmread(path)
    image.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    image.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7" + bytes(60)])
    image["PixelData"].is_undefined_length = True
    image.save_as(path)
    write_table(tmp_path, {"a": 0})
    if pydicom.pixels.get_decoder(pydicom.uid.JPEGLSLossless).is_available:
        pytest.skip("a decoder of JPEG-LS is installed here")
    with pytest.raises(DataError, match=r"1\.dcm is compressed as JPEG-LS .*, which nothing"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_have_their_people_from_a_table(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    for name, level in (("x1", 51), ("x2", 102), ("y1", 0)):
        Image.new("L", (8, 8), level).save(tmp_path / f"{name}.{suffix}")
    write_table(
        tmp_path, {f"x1.{suffix}": ("anna", 1), "x2": ("ANNA", 1), "y1": ("ben", 0)},
        "file", "person", "label",
    )  # fmt: skip
    patients, _ = read(tmp_path)
    assert {p.patient_id: len(p.stays) for p in patients} == {"anna": 2, "ben": 1}
    assert [s.value_E[0] for s in patients[0].stays] == pytest.approx([0.2, 0.4], abs=0.01)


def test_pictures_of_a_folder_are_slices_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "anna").mkdir()
    for number in (1, 2, 10, 11):
        Image.new("L", (8, 8), number * 5).save(tmp_path / "anna" / f"s{number}.png")
    write_table(tmp_path, {"anna": 1})
    right = [number * 5 / 255 for number in (1, 2, 10, 11)]
    assert values(read(tmp_path)[0])["anna"][0] == pytest.approx(right)


def test_arrays_that_name_no_person_are_refused_for_a_study_of_persons(tmp_path: Path) -> None:
    from tests.client.sources.tiny_records import write_volumes

    path = write_volumes(tmp_path / "v.npz", classes=2)
    with pytest.raises(DataError, match=r"are arrays, which name no person.*\"recording\""):
        read(path)
    assert read(path, study(recording=True))[1].patients == 60
