"""Volumes as sequences of slices: DICOM, NIfTI, PNG and JPEG, or arrays in MedMNIST's format.

Each slice is pooled to a short vector: variable ``cell-R-C-of-G`` is the mean over the cell in row
R and column C of a G by G grid. Slices are taken at even distances along the volume, as many as the
study has steps; their orientation is that of :mod:`consilium.client.sources.recorded.volumes`.

``path`` is a folder with DICOM files at any depth, or with NIfTI files, or with PNG or JPEG images,
and a table of labels (``labels.csv``); or an ``.npz`` with ``{split}_images`` (N, slices, rows,
columns) and ``{split}_labels``, for which the study's label is ``label``. Values are in Hounsfield
units (``[hnsf'U]``) for computed tomography in DICOM, in the share of white (``1``) for an ``.npz``
of bytes, PNG and JPEG, otherwise as stored (``1``).

Static variables stand in columns of the table, or in attributes of DICOM such as PatientAge.

A patient is a person: in DICOM by PatientID, elsewhere by the table's column. A person's scans are
that person's stays. An ``.npz`` names no persons.
"""

import math
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BROKEN_ZIP, BadFileError
from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.matrices import (
    require_source,
    require_task,
    require_tokens,
    stay_of,
)
from consilium.client.sources.common.persons import require_person, same_person
from consilium.client.sources.common.source import Counted, Patient, Stay, Tally
from consilium.client.sources.recorded import dicom_files
from consilium.client.sources.recorded.pooling import Cell, named_cell, pooled
from consilium.client.sources.recorded.record_settings import ImageSlicesSettings, LabelsFile
from consilium.client.sources.recorded.record_table import Label, RecordTable, read_table
from consilium.client.sources.recorded.scans import NOT_READ, BadScan, Scan, chosen, scans_below
from consilium.client.sources.recorded.static_values import (
    require_columns,
    require_places,
    static_value,
)
from consilium.client.sources.recorded.volumes import LARGEST_BYTES, PLAIN, Volume
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import series_names, static_names

LABELS = "labels.csv"
MOST_LABEL_BYTES = 1 << 26
NO_KEY = "nothing: each scan counts as a patient of its own"


class ImageSlices(Counted):
    """The volumes of a folder or file.

    Args:
        settings: see the module; of a path alone, with their defaults.
        split: the split to read from an ``.npz``, if the settings are a path.
    """

    name = "image-slices"

    def __init__(self, settings: ImageSlicesSettings | Path, *, split: str = "train") -> None:
        if isinstance(settings, Path):
            settings = ImageSlicesSettings(source=self.name, path=settings, split=split)
        self._settings, self._path = settings, settings.path
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield one patient per person, in the order of persons, their scans as stays.

        Raises:
            DataError: a volume or label is missing or damaged, the records name no person, or the
                study asks for something that these data do not have.
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
        columns = {name: column for column, name in enumerate(study.variables)}
        cells = {columns[name]: named_cell(name) for name in series_names(study)}
        if not cells:
            raise DataError(
                f"study {study.name} has no variable of the slices; add cells, such as "
                "'cell-0-0-of-4'"
            )
        self._check_static(study)
        self._tally = Tally()
        return self._read(study, cells)

    def _check_static(self, study: Study) -> None:
        """Check that the settings say where each static variable is, and of nothing else."""
        said, names = self._settings.variables, static_names(study)
        if names and self._path.suffix == ".npz":
            raise DataError(
                f"data {self._path} are arrays, which have no static variable {names[0]!r}; take "
                "records with a table of labels, or remove it from the study"
            )
        require_places(names, said, "attribute", study)
        for name in said:
            if name not in names:
                raise SettingsError(
                    f"[data.variables.{name}] is not a static variable of study {study.name}; "
                    "remove it"
                )
        if keywords := [one.attribute for one in said.values() if one.attribute]:
            dicom_files.require_attributes(keywords)

    def _read(self, study: Study, cells: Mapping[int, Cell]) -> Iterator[Patient]:
        cleaner = Cleaner(study, self._tally)
        persons = self._npz(study) if self._path.suffix == ".npz" else self._persons(study)
        for person, scans in persons:
            stays: list[Stay] = []
            for scan, volume, label in scans:
                name, shown = (scan, scan) if isinstance(scan, str) else (scan.name, scan.shown)
                try:
                    if isinstance(volume, BadFileError):
                        raise volume
                    value_TV = pooled(volume, cells, study)
                    if isinstance(scan, Scan):
                        self._fill_static(value_TV, scan, study)
                    stays.append(
                        stay_of(
                            value_TV, study, cleaner, stay_id=name, label=_checked(label, study)
                        )
                    )
                except BadFileError as error:
                    self._leave_out(shown, error, study)
            if stays:
                self._tally.patients += 1
                self._tally.stays += len(stays)
                yield Patient(patient_id=person, stays=tuple(stays))

    def _fill_static(self, value_TV: NDArray[np.float64], scan: Scan, study: Study) -> None:
        """Put the static variables of a scan into its first step."""
        columns = list(study.variables)
        for name, said in self._settings.variables.items():
            if said.attribute is None:
                cell, unit = scan.row.cells[said.column or ""], said.unit
            elif scan.said is None:
                raise DataError(
                    f"[data.variables.{name}] names an attribute of DICOM, and {scan.shown} is of "
                    "another format; name a column of the table of labels"
                )
            else:
                found = scan.said[said.attribute]
                cell = found.text
                unit = found.unit or said.unit or dicom_files.UNITS.get(said.attribute)
            value = static_value(cell, said, name, study, self._tally, unit=unit)
            value_TV[0, columns.index(name)] = value

    def _leave_out(self, name: str, error: BadFileError, study: Study) -> None:
        if study.data.on_bad_file == "refuse":
            raise DataError(
                f'volume {name}: {error}; mend or remove it, or set [data] on_bad_file = "skip"'
            ) from error
        self._tally.skipped.append((name, str(error)))

    def _persons(self, study: Study) -> Iterator[tuple[str, Iterator["_Read"]]]:
        """Yield every person with the scans that are to be read."""
        settings, tally = self._settings, self._tally
        if not self._path.is_dir():
            raise DataError(
                f"data {self._path} is neither an .npz file nor a folder of volumes; check the path"
            )
        labels = settings.labels or LabelsFile(file=self._path / LABELS)
        table = read_table(labels, study)
        require_columns(settings.variables, table)
        of_row: dict[str, list[Scan]] = defaultdict(list)
        for found in scans_below(settings, table, tally):
            if isinstance(found, BadScan):
                self._leave_out(found.name, found.error, study)
            elif found.row.label is None:
                tally.unlabelled += 1
            else:
                of_row[found.row.record].append(found)
        unit = study.variables[series_names(study)[0]].unit
        scans = [scan for several in of_row.values() for scan in chosen(several, settings, unit)]
        tally.note(NOT_READ, sum(map(len, of_row.values())) - len(scans))
        person_of = self._person_key(scans, table, study)
        held: dict[str, list[Scan]] = defaultdict(list)
        written: dict[str, str] = {}
        for scan in sorted(scans, key=lambda scan: scan.name):
            person = person_of(scan)
            held[same_person(person)].append(scan)
            written.setdefault(same_person(person), person)
        for person in sorted(held):
            yield written[person], map(_volume, held[person])

    def _person_key(
        self, scans: list[Scan], table: RecordTable, study: Study
    ) -> Callable[[Scan], str]:
        """Return what says whose a scan is, and note it.

        Raises:
            DataError: nothing does, and the study's unit is a patient.
        """
        named = [scan for scan in scans if scan.person]
        column = f"the column {table.person!r} of {table.path.name}"
        if scans and len(named) == len(scans) and self._settings.person == "PatientID":
            self._tally.person_key = "PatientID"
            return lambda scan: scan.person or ""
        dicom = any(scan.person is not None for scan in scans)
        given = table.person is not None and all(scan.row.person for scan in scans)
        if given and (not dicom or not table.names_persons or self._settings.person == "labels"):
            self._tally.person_key = column
            return lambda scan: scan.row.person
        if dicom and self._settings.person == "PatientID":
            what = f"{len(scans) - len(named)} of {len(scans)} DICOM series have no PatientID"
            remedy = (
                f"name each one's person in a column 'patient' of {table.path.name} beside one "
                'that names its folder, or, if it has that column, set [data] person = "labels"'
            )
        else:
            what = f"labels {table.path} have no column that names a person for each row"
            remedy = "add a column 'patient', or name it as [data.labels] person"
        require_person(study, what, remedy)
        self._tally.person_key = NO_KEY if not named else "PatientID, where there is one"
        return lambda scan: scan.person or f"scan {scan.name}"

    def _npz(self, study: Study) -> Iterator[tuple[str, Iterator["_Read"]]]:
        require_person(
            study,
            f"data {self._path} are arrays, which name no person",
            "take records that name theirs",
        )
        self._tally.person_key = NO_KEY
        for name, volume, label in of_npz(self._path, self._settings.split, study):
            yield name, iter([(name, volume, label)])


_Read = tuple[Scan | str, Volume | BadFileError, Label | None]


def _volume(scan: Scan) -> _Read:
    try:
        return scan, scan.read(), scan.row.label
    except BadFileError as error:
        return scan, error, scan.row.label


def _checked(label: Label | None, study: Study) -> float:
    classes = max(2, study.task.outputs)
    if not isinstance(label, float):
        raise BadFileError("has no single label")
    if study.task.kind != "regression" and label not in range(classes):
        raise BadFileError(f"has a label that is not a class from 0 to {classes - 1}")
    return label


def of_npz(path: Path, split: str, study: Study) -> Iterator[tuple[str, Volume, float]]:
    """Yield the volumes of one split, read one at a time.

    Raises:
        DataError: the file is damaged, or has no such split.
    """
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
                    voxels = _read(file, shape[1:], dtype, LARGEST_BYTES)
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
