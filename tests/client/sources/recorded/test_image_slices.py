"""Slices: pooled values, the order of slices, units, and plain refusals."""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.sources.recorded.image_slices import ImageSlices
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, load_study, with_changes
from tests.client.sources.tiny_records import write_volumes

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data" / "medmnist_adrenal3d" / "adrenalmnist3d_64.npz"
STUDY = load_study(ROOT / "studies" / "adrenal-slices.toml")


def study(unit: str = "1", low: float = 0, high: float = 1, steps: int = 3) -> Study:
    spec = {"unit": unit, "low": low, "high": high, "center": low, "spread": 1.0}
    cells = {f"cell-{r}-{c}-of-2": spec for r in range(2) for c in range(2)}
    return with_changes(
        STUDY, data={"window_h": steps}, study={"variables": cells}, privacy={"unit": "patient"}
    )


def recordings(asked: Study) -> Study:
    return with_changes(asked, privacy={"unit": "recording"})


HOUNSFIELD = study("[hnsf'U]", -1100, 3000)


def write_labels(folder: Path, **labels: int) -> None:
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["patient", "label"])
        rows.writerows(labels.items())


def write_series(folder: Path, *, pixels: bool = True, slices: int = 3) -> Path:
    """A CT series whose slice z has value 100 z - 1000 HU; files lie in the opposite order."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True)
    for z in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
            CTImageStorage,
            generate_uid(entropy_srcs=[str(z)]),  # the same file each time, as damages are
        )
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
        image.PatientID = folder.name
        image.Modality, image.Rows, image.Columns, image.InstanceNumber = "CT", 4, 4, z
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 0
        image.RescaleSlope, image.RescaleIntercept = 1, -1000
        if pixels:
            image.PixelData = np.full((4, 4), 100 * z, dtype=np.uint16).tobytes()
        pydicom.dcmwrite(folder / f"{slices - z}.dcm", image, enforce_file_format=True)
    return folder


def test_slices_of_an_npz_are_pooled_to_a_grid(tmp_path: Path) -> None:
    path = write_volumes(tmp_path / "v.npz", classes=2)
    asked = recordings(study(steps=6))
    grid = to_grid(ImageSlices(path, split="test").read_patients(asked), asked)
    assert grid.value_NTV.shape == (60, 6, 4)
    assert grid.y_N.tolist() == [0, 1] * 30
    with np.load(path) as arrays:
        first = arrays["test_images"][1, 5, :2, :2].mean() / 255
    assert grid.value_NTV[1, 5, 0] == pytest.approx(first)


def test_a_dicom_series_is_ordered_by_position_and_read_in_hounsfield_units(tmp_path) -> None:
    write_series(tmp_path / "anna")
    write_labels(tmp_path, anna=1)
    grid = to_grid(ImageSlices(tmp_path).read_patients(HOUNSFIELD), HOUNSFIELD)
    assert grid.value_NTV[0, :, 0].tolist() == [-1000, -900, -800]
    assert grid.patient_ids == ("anna",)


def test_a_nifti_volume_is_cut_along_its_third_axis(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.zeros((4, 4, 3), dtype=np.float32)
    voxels[:, :, 2] = 0.5
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "ben.nii.gz")
    write_labels(tmp_path, ben=0)
    grid = to_grid(ImageSlices(tmp_path).read_patients(study()), study())
    assert grid.value_NTV[0, :, 3].tolist() == [0, 0, 0.5]


def test_a_dicom_without_pixels_is_refused_or_skipped(tmp_path: Path) -> None:
    write_series(tmp_path / "anna", pixels=False)
    write_series(tmp_path / "ben")
    write_labels(tmp_path, anna=1, ben=0)
    with pytest.raises(DataError, match=r"volume anna: .*\.dcm has no pixels that can be read"):
        list(ImageSlices(tmp_path).read_patients(HOUNSFIELD))
    source = ImageSlices(tmp_path)
    kept = list(source.read_patients(with_changes(HOUNSFIELD, data={"on_bad_file": "skip"})))
    assert [patient.patient_id for patient in kept] == ["ben"]
    assert source.report.skipped[0][0] == "anna"


def test_files_that_are_no_volumes_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    (tmp_path / "dicom" / "anna").mkdir(parents=True)
    (tmp_path / "dicom" / "anna" / "1.dcm").write_bytes(b"hello" * 50)
    (tmp_path / "nifti").mkdir()
    (tmp_path / "nifti" / "anna.nii").write_bytes(b"hello" * 50)
    for kind, sentence in (("dicom", "1.dcm is no DICOM image"), ("nifti", "be read as NIfTI")):
        write_labels(tmp_path / kind, anna=1)
        with pytest.raises(DataError, match=f"volume anna: .*{sentence}"):
            list(ImageSlices(tmp_path / kind).read_patients(study()))


def test_a_volume_in_another_unit_than_the_studys_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "anna")
    write_labels(tmp_path, anna=1)
    with pytest.raises(DataError, match=r"is in unit \"\[hnsf'U\]\", and the study wants '1'"):
        list(ImageSlices(tmp_path).read_patients(study()))


def test_a_damaged_or_hostile_npz_is_refused(tmp_path: Path) -> None:
    path = write_volumes(tmp_path / "v.npz")
    with pytest.raises(DataError, match="no val_images of bytes and val_labels"):
        list(ImageSlices(path, split="val").read_patients(recordings(study())))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="is damaged"):
        list(ImageSlices(path).read_patients(recordings(study())))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_labels.npy", b"\0" * (1 << 27))
    with pytest.raises(DataError, match="is damaged"):
        list(ImageSlices(tmp_path / "bomb.npz").read_patients(recordings(study())))
    np.savez(tmp_path / "pickle.npz", train_labels=np.array([{}]), train_images=np.zeros(1))
    with pytest.raises(DataError, match="is damaged"):
        list(ImageSlices(tmp_path / "pickle.npz").read_patients(recordings(study())))


def test_variables_that_are_no_cells_and_missing_labels_are_refused(tmp_path: Path) -> None:
    spec = next(iter(study().variables.values())).model_dump()
    for name in ("cell-2-0-of-2", "brightness"):
        asked = with_changes(study(), study={"variables": {name: spec}})
        with pytest.raises(DataError, match=f"has no variable '{name}'"):
            list(ImageSlices(tmp_path).read_patients(asked))
    with pytest.raises(DataError, match=r"labels .*labels.csv cannot be read"):
        list(ImageSlices(tmp_path).read_patients(study()))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the volumes are not beside the repository")
def test_real_volumes_read_whole() -> None:
    grid = to_grid(ImageSlices(DATA, split="test").read_patients(STUDY), STUDY)
    assert (grid.patients, int(grid.y_N.sum())) == (298, 69)
