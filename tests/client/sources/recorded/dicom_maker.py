"""Small DICOM files with one thing each that a reader can get wrong; made up, nobody's."""

import csv
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")


def write_slice(
    path: Path,
    values: np.ndarray,
    *,
    number: int = 1,
    patient: str | None = "P1",
    series: str = "1.2.3",
    study: str = "1.2",
    position: tuple[float, ...] | None = (0, 0, 0),
    orientation: tuple[float, ...] | None = (1, 0, 0, 0, 1, 0),
    photometric: str = "MONOCHROME2",
    modality: str = "MR",
    signed: bool = False,
    bits: int = 16,
    **others: object,
) -> Path:
    """Write one image (rows, columns), or one of many frames (frames, rows, columns)."""
    image = pydicom.dataset.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = pydicom.uid.MRImageStorage
    image.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[str(path)])
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    if patient is not None:
        image.PatientID = patient
    image.SeriesInstanceUID, image.StudyInstanceUID = series, study
    image.Modality, image.InstanceNumber = modality, number
    *frames, image.Rows, image.Columns = values.shape
    if frames:
        image.NumberOfFrames = frames[0]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, photometric
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, bits, bits - 1
    image.PixelRepresentation = int(signed)
    if position is not None:
        image.ImagePositionPatient = list(position)
    if orientation is not None:
        image.ImageOrientationPatient = list(orientation)
    for name, value in others.items():
        setattr(image, name, value)
    image.PixelData = values.astype("<i2" if signed else "<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def flat(value: float, size: int = 4) -> np.ndarray:
    return np.full((size, size), value)


def write_ramp(folder: Path, *, slices: int = 4, **options: object) -> Path:
    """Write slices of 100, 200, ... from the feet to the head."""
    for z in range(slices):
        write_slice(
            folder / f"{z}.dcm", flat(100 * (z + 1)),
            **{"number": z + 1, "position": (0, 0, z), **options},
        )  # fmt: skip
    return folder


def write_table(folder: Path, rows: dict[str, object], *columns: str) -> Path:
    """Write labels.csv with these columns, by default patient and label."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns or ("patient", "label"))
        for name, cells in rows.items():
            writer.writerow([name, *(cells if isinstance(cells, tuple) else (cells,))])
    return folder / "labels.csv"
