"""Reads volumes of DICOM and NIfTI files, one slice in memory at a time if the format allows."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BadFileError
from consilium.shared.errors import DataError

HOUNSFIELD, PLAIN = "[hnsf'U]", "1"
LARGEST_FILE_BYTES = 1 << 30
NIFTI_SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Volume:
    """One volume: its shape (slices, rows, columns), its unit, and a function for one slice."""

    shape: tuple[int, ...]
    unit: str
    slice: Callable[[int], NDArray[Any]]


def dicom_series(folder: Path) -> Iterator[tuple[str, Volume | BadFileError]]:
    """Yield name and volume of every folder of DICOM files, in the order of names.

    Slices are ordered by their position along the series' axis, or by instance number.

    Raises:
        DataError: the package pydicom is missing, or there is no series.
    """
    try:
        import pydicom  # needed for DICOM only
    except ImportError as error:
        raise DataError(
            "DICOM series need the package pydicom, which is not installed; "
            "install 'consilium-fl[hospital]'"
        ) from error
    series = sorted(path for path in folder.iterdir() if path.is_dir())
    if not series:
        raise DataError(f"data {folder} hold no folder of a series; make one for each patient")
    for path in series:
        try:
            yield path.name, _dicom(path, pydicom)
        except BadFileError as error:
            yield path.name, error


def _dicom(path: Path, pydicom: Any) -> Volume:
    """Return the volume of one series, its headers checked; pixels are read slice by slice."""
    files: list[tuple[float, Path]] = []
    shapes, units = set(), set()
    for file in sorted(p for p in path.iterdir() if p.is_file()):
        if file.stat().st_size > LARGEST_FILE_BYTES:
            raise BadFileError(f"{file.name} is larger than {LARGEST_FILE_BYTES} bytes")
        try:
            meta = pydicom.filereader.read_file_meta_info(file)
            deflated = meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian
            header = None if deflated else pydicom.dcmread(file, stop_before_pixels=True)
            order = 0.0 if header is None else _place(header)
            shape = () if header is None else (int(header.Rows), int(header.Columns))
            frames = 1 if header is None else int(header.get("NumberOfFrames") or 1)
        except Exception as error:  # pydicom's parsing may raise anything
            raise BadFileError(
                f"{file.name} is no DICOM image, or lacks rows, columns or a position"
            ) from error
        if header is None:  # a small file may unpack to more than fits into memory
            raise BadFileError(f"{file.name} is deflated; export the series uncompressed")
        if frames != 1:
            raise BadFileError(f"{file.name} has {frames} frames; export one slice a file")
        shapes.add(shape)
        units.add(HOUNSFIELD if header.get("Modality") == "CT" else PLAIN)
        files.append((order, file))
    if len(shapes) != 1 or len(units) != 1:
        raise BadFileError(f"has {len(files)} files, and slices of {len(shapes)} shapes")
    files.sort(key=lambda pair: pair[0])

    def pixels(number: int) -> NDArray[np.float64]:
        file = files[number][1]
        try:
            image = pydicom.dcmread(file)
            raw = np.asarray(image.pixel_array, dtype=np.float64)
            slope = float(image.get("RescaleSlope", 1))
            offset = float(image.get("RescaleIntercept", 0))
        except Exception as error:  # no pixels, or no decoder installed for their compression
            raise BadFileError(
                f"{file.name} has no pixels that can be read; export the series uncompressed"
            ) from error
        if raw.ndim != 2:
            raise BadFileError(f"{file.name} is not one grey slice")
        return raw * slope + offset

    return Volume((len(files), *shapes.pop()), units.pop(), pixels)


def _place(header: Any) -> float:
    """Return the position of a slice along the series' axis."""
    position, orientation = (
        header.get("ImagePositionPatient"),
        header.get("ImageOrientationPatient"),
    )
    if position is not None and orientation is not None:
        axis = np.cross(np.array(orientation[:3], float), np.array(orientation[3:], float))
        place = float(axis @ np.array(position, dtype=float))
    else:
        place = float(header.InstanceNumber)
    if not math.isfinite(place):
        raise ValueError
    return place


def nifti_volumes(folder: Path) -> Iterator[tuple[str, Volume | BadFileError]]:
    """Yield name and volume of every ``.nii`` and ``.nii.gz`` file, in the order of names.

    Slices are taken along the third axis.

    Raises:
        DataError: the package nibabel is missing.
    """
    try:
        import nibabel  # needed for NIfTI only
    except ImportError as error:
        raise DataError(
            "NIfTI volumes need the package nibabel, which is not installed; "
            "install 'consilium-fl[hospital]'"
        ) from error
    for path in sorted(p for p in folder.iterdir() if p.name.endswith(NIFTI_SUFFIXES)):
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        try:
            yield name, _nifti(path, nibabel)
        except BadFileError as error:
            yield name, error


def _nifti(path: Path, nibabel: Any) -> Volume:
    try:
        image = nibabel.load(path)
        shape = tuple(int(size) for size in image.shape)
        if len(shape) != 3 or not 0 < math.prod(shape) * 8 <= LARGEST_FILE_BYTES:
            raise BadFileError(
                f"has shape {shape}, and needs three axes and at most {LARGEST_FILE_BYTES} bytes "
                "in all"
            )
        if image.get_data_dtype().kind not in "iuf":
            raise BadFileError("has voxels that are no real numbers; export a grey volume")
        voxels = np.asarray(image.dataobj, dtype=np.float64)
    except BadFileError:
        raise
    except Exception as error:  # nibabel's parsing may raise anything
        raise BadFileError("cannot be read as NIfTI; replace the file") from error
    rows, columns, slices = shape
    return Volume((slices, rows, columns), PLAIN, lambda number: voxels[:, :, number])
