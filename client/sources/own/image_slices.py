"""Volumes as sequences of slices: DICOM series, NIfTI files, or arrays in MedMNIST's format.

Each slice is pooled to a short vector: variable ``cell-R-C-of-G`` is the mean over the cell in row
R and column C of a G by G grid. Slices are taken at even distances along the series, as many as the
study has steps. One volume is one patient.

``path`` is a folder of DICOM series (one folder per patient) or of NIfTI files (one ``.nii`` or
``.nii.gz`` per patient), in both cases with ``labels.csv`` (columns ``patient`` and the study's
label); or an ``.npz`` with ``{split}_images`` (N, slices, rows, columns) and ``{split}_labels``,
for which the study's label is ``label``. Values are in Hounsfield units (``[hnsf'U]``) for computed
tomography in DICOM, divided by 255 (``1``) in an ``.npz`` of bytes, otherwise as stored (``1``).
"""

import csv
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BROKEN_ZIP, BadFileError
from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.lines import bounded_lines, number
from consilium.client.sources.common.matrices import (
    require_source,
    require_task,
    require_tokens,
    stay_of,
)
from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.client.sources.own.volumes import (
    LARGEST_FILE_BYTES,
    NIFTI_SUFFIXES,
    PLAIN,
    Volume,
    dicom_series,
    nifti_volumes,
)
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

LABELS = "labels.csv"
MOST_SLICES, MOST_PIXELS, MOST_LABEL_BYTES = 4096, 1 << 24, 1 << 26
_CELL = re.compile(r"cell-(\d{1,2})-(\d{1,2})-of-(\d{1,2})")


class ImageSlices(Counted):
    """The volumes of a folder or file.

    Args:
        path: see the module.
        split: the split to read from an ``.npz``.
    """

    name = "image-slices"

    def __init__(self, path: Path, *, split: str = "train") -> None:
        self._path, self._split = Path(path), split
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield one patient per volume, in the order of names.

        Raises:
            DataError: a volume or label is missing or damaged, or the study asks for something that
                these data do not have.
        """
        require_source(study, self.name, clock="position")
        require_task(
            study,
            self.name,
            ("binary", "multiclass", "regression"),
            per_step=False,
            outputs=study.task.outputs,
        )
        require_tokens(study, self.name, ())
        cells = [_cell(name) for name in study.variables]
        self._tally = Tally()
        return self._read(study, cells)

    def _read(self, study: Study, cells: list[tuple[int, int, int]]) -> Iterator[Patient]:
        cleaner = Cleaner(study, self._tally)
        for name, volume, label in self._volumes(study):
            try:
                if isinstance(volume, BadFileError):
                    raise volume
                value_TV = pooled(volume, cells, study)
                label = _checked(label, study)
            except BadFileError as error:
                if study.data.on_bad_file == "refuse":
                    raise DataError(
                        f"volume {name}: {error}; mend or remove it, or set "
                        '[data] on_bad_file = "skip"'
                    ) from error
                self._tally.skipped.append((name, str(error)))
                continue
            self._tally.patients += 1
            self._tally.stays += 1
            stay = stay_of(value_TV, study, cleaner, stay_id=name, label=label)
            yield Patient(patient_id=name, stays=(stay,))

    def _volumes(self, study: Study) -> Iterator[tuple[str, Volume | BadFileError, float]]:
        if self._path.suffix == ".npz":
            yield from _of_npz(self._path, self._split, study)
            return
        if not self._path.is_dir():
            raise DataError(
                f"data {self._path} is neither an .npz file nor a folder of volumes; check the path"
            )
        label_of = _labels(self._path / LABELS, study)
        nifti = any(path.name.endswith(NIFTI_SUFFIXES) for path in self._path.iterdir())
        for name, volume in (nifti_volumes if nifti else dicom_series)(self._path):
            if name not in label_of:
                self._tally.unlabelled += 1
                continue
            yield name, volume, label_of[name]


def pooled(volume: Volume, cells: list[tuple[int, int, int]], study: Study) -> NDArray[np.float64]:
    """Return the means over grid cells (T, V) of slices at even distances along the volume.

    Raises:
        BadFileError: the volume is too large or empty, or its unit is not the study's.
    """
    slices, rows, columns = volume.shape
    largest = max(size for _, _, size in cells)
    if not (0 < slices <= MOST_SLICES and largest <= min(rows, columns)):
        raise BadFileError(
            f"has {slices} slices of {rows} x {columns}, and needs 1 to {MOST_SLICES} slices of at "
            f"least {largest} x {largest}"
        )
    if rows * columns > MOST_PIXELS:
        raise BadFileError(f"has slices of {rows} x {columns}, above {MOST_PIXELS} pixels")
    for name, spec in study.variables.items():
        if spec.unit != volume.unit:
            raise BadFileError(
                f"is in unit {volume.unit!r}, and the study wants {spec.unit!r} for {name}"
            )
    chosen_T = np.round(np.linspace(0, slices - 1, study.data.steps)).astype(np.int64)
    value_TV = np.empty((study.data.steps, len(cells)))
    for step, place in enumerate(chosen_T):
        image = np.asarray(volume.slice(int(place)), dtype=np.float64)
        if not np.isfinite(image).all():
            raise BadFileError("has a pixel that is not finite")
        for cell, (row, column, size) in enumerate(cells):
            part = image[
                row * rows // size : (row + 1) * rows // size,
                column * columns // size : (column + 1) * columns // size,
            ]
            value_TV[step, cell] = part.mean()
    return value_TV


def _cell(name: str) -> tuple[int, int, int]:
    found = _CELL.fullmatch(name)
    row, column, size = map(int, found.groups()) if found else (0, 0, 0)
    if not max(row, column) < size:
        raise DataError(
            f"image-slices has no variable {name!r}; write 'cell-R-C-of-G', R and C counted from 0 "
            "and below G, as in 'cell-0-3-of-4'"
        )
    return row, column, size


def _checked(label: float, study: Study) -> float:
    classes = max(2, study.task.outputs)
    if study.task.kind != "regression" and label not in range(classes):
        raise BadFileError(f"has a label that is not a class from 0 to {classes - 1}")
    return label


def _labels(path: Path, study: Study) -> Mapping[str, float]:
    """Return the label of each patient in ``labels.csv``."""
    labels: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(bounded_lines(file, path), strict=True)
            for row in rows:
                try:
                    patient, label = row["patient"], number(row[study.data.label])
                except (KeyError, TypeError, ValueError):
                    patient, label = "", math.nan
                if not math.isfinite(label) or patient in labels:
                    raise DataError(
                        f"labels {path} line {rows.line_num}: needs columns 'patient' and "
                        f"{study.data.label!r} with a finite number, and each patient once; "
                        "correct the line"
                    )
                labels[patient] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"labels {path} cannot be read as CSV in UTF-8; add the file") from error
    return labels


def _of_npz(
    path: Path, split: str, study: Study
) -> Iterator[tuple[str, Volume | BadFileError, float]]:
    """Yield the volumes of one split, read one at a time."""
    if study.data.label != "label":
        raise DataError(
            f"{path} has one label, called 'label', not {study.data.label!r}; set [data] label"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open(f"{split}_labels.npy") as file:
                shape, dtype = _header(file)
                labels = _read(file, shape, dtype, MOST_LABEL_BYTES).reshape(-1)
            with archive.open(f"{split}_images.npy") as file:
                shape, dtype = _header(file)
                if len(shape) != 4 or shape[0] != len(labels) or dtype != np.uint8:
                    raise DataError(
                        f"file {path}: {split}_images are not bytes of four axes, or not as many "
                        f"as {split}_labels; download it again"
                    )
                for place, label in enumerate(labels):
                    voxels = _read(file, shape[1:], dtype, LARGEST_FILE_BYTES)
                    yield f"{split}-{place}", _of_bytes(voxels), float(label)
    except (*BROKEN_ZIP, KeyError, ValueError) as error:
        raise DataError(
            f"file {path}: is damaged, or has no {split}_images of bytes and {split}_labels; "
            "download it again"
        ) from error


def _of_bytes(voxels: NDArray[np.uint8]) -> Volume:
    return Volume(voxels.shape, PLAIN, lambda place: voxels[place] / 255.0)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and type of an array of numbers in C order."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or dtype.kind not in "iufb":
        raise ValueError
    return shape, dtype


def _read(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], most: int) -> NDArray[Any]:
    """Read an array's next numbers; refused if longer than ``most`` bytes or not all there."""
    size = math.prod(shape) * dtype.itemsize
    if not 0 < size <= most:
        raise ValueError
    content = file.read(size)
    if len(content) < size:
        raise EOFError
    return np.frombuffer(content, dtype=dtype).reshape(shape)
