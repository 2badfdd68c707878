"""The scans below a folder: what each is called, whose it is, and how its volume is read.

DICOM images are put together by examination and series, wherever they lie; every NIfTI file is one
scan, and so is every PNG or JPEG image, or the images of a folder that the table of labels names.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BadFileError
from consilium.client.sources.common.persons import spellings
from consilium.client.sources.common.source import Tally
from consilium.client.sources.common.tree import files_below, name_below
from consilium.client.sources.recorded import dicom_files, nifti_files
from consilium.client.sources.recorded.record_settings import ImageSlicesSettings
from consilium.client.sources.recorded.record_table import RecordTable, Row
from consilium.client.sources.recorded.volumes import LARGEST_BYTES, PLAIN, Volume
from consilium.shared.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg")
COPIES = "images that are copies of another, left out"
REPEATED = "images of a place that another image of the series has, left out"
BY_NUMBER = "series whose slices are in the order of their numbers, as they have no places"
GAPS = "series in which a slice seems to be missing"
NOT_READ = "series of an examination of which another was read"
SPELLINGS = "identifiers of persons that differ from another in blanks or case only"
NO_IMAGE = "files that are no image"


@dataclass(frozen=True, repr=False)
class Scan:
    """One volume to be read, and the row of the table that it belongs to.

    ``name`` identifies the scan, ``shown`` names it in errors. ``person`` is what the format itself
    says, empty if it says nothing, None if it has no place for it. ``examination`` and ``taken``
    tell scans of one row apart; ``slices`` is their number. ``said`` are the attributes of DICOM
    that the settings ask for; None for other formats.
    """

    name: str
    shown: str
    row: Row
    person: str | None
    examination: str
    taken: str
    slices: int
    unit: str
    read: Callable[[], Volume]
    said: Mapping[str, dicom_files.Said] | None = None

    def __repr__(self) -> str:
        return "Scan()"


@dataclass(frozen=True, repr=False)
class BadScan:
    """A file or series that cannot be read, by name."""

    name: str
    error: BadFileError

    def __repr__(self) -> str:
        return "BadScan()"


def scans_below(
    settings: ImageSlicesSettings, table: RecordTable, tally: Tally
) -> list[Scan | BadScan]:
    """Return the scans below the folder that the table has a row for; others are counted.

    Raises:
        DataError: a package is missing, or the folder holds no images.
    """
    folder = settings.path
    files = [file for file in files_below(folder) if file.resolve() != table.path.resolve()]
    nifti = [file for file in files if file.name.lower().endswith(nifti_files.SUFFIXES)]
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    found: list[Scan | BadScan]
    if nifti:
        found = list(_nifti(settings, nifti, table, tally))
    else:
        others = [file for file in files if file not in set(pictures)]
        found = list(_dicom(settings, others, table, tally))
        if not found and not tally.unlabelled and pictures:
            tally.notes.pop(NO_IMAGE, None)
            found = list(_pictures(settings, pictures, table, tally))
    if not found and not tally.unlabelled:
        raise DataError(f"data {folder} hold no DICOM, NIfTI, PNG or JPEG image; check the path")
    return found


def chosen(scans: Sequence[Scan], settings: ImageSlicesSettings, unit: str) -> list[Scan]:
    """Return which of a row's scans are read: one an examination, or as the settings say."""
    fitting = [scan for scan in scans if scan.unit == unit] or list(scans)
    of: dict[str, list[Scan]] = defaultdict(list)
    for scan in fitting:
        of[scan.examination].append(scan)
    if settings.series == "all":
        return fitting
    kept = []
    for several in of.values():
        several.sort(key=lambda scan: (scan.taken, scan.name))
        if settings.series == "largest":
            kept.append(max(several, key=lambda scan: scan.slices))
        else:
            kept.append(several[0 if settings.series == "first" else -1])
    return kept


def _keys(path: Path, folder: Path, table: RecordTable) -> list[str]:
    """Return the names by which a table may call a file: its own, and those of its folders.

    In a column of folders a folder comes first: slice ``3.dcm`` of folder ``7`` is not folder 3's.
    """
    relative, stem = path.relative_to(folder), name_below(path, folder)
    own = [relative.as_posix(), stem, path.name, stem.rpartition("/")[2]]
    above = [n for one in relative.parents if one.name for n in (one.as_posix(), one.name)]
    return [*above, *own] if table.record.strip().casefold() == "folder" else [*own, *above]


def _nifti(
    settings: ImageSlicesSettings, files: list[Path], table: RecordTable, tally: Tally
) -> Iterator[Scan]:
    for path in files:
        if not fnmatch(path.name, settings.description):
            tally.filtered += 1
            continue
        if (row := table.find(*_keys(path, settings.path, table))) is None:
            tally.unlabelled += 1
            continue
        name = name_below(path, settings.path)
        read = partial(nifti_files.nifti_volume, path, settings.plane)
        yield Scan(name, name, row, None, name, name, 0, PLAIN, read)


def _dicom(
    settings: ImageSlicesSettings, files: list[Path], table: RecordTable, tally: Tally
) -> Iterator[Scan | BadScan]:
    of: dict[tuple[str, ...], list[dicom_files.Image]] = defaultdict(list)
    rows: dict[tuple[str, ...], Row] = {}
    unlabelled: set[tuple[str, ...]] = set()
    written: set[str] = set()
    asked = {one.attribute for one in settings.variables.values() if one.attribute}
    for path in files:
        try:
            images = dicom_files.images_of(path, asked)
        except BadFileError as error:
            yield BadScan(path.relative_to(settings.path).parent.as_posix(), error)
            continue
        tally.note(NO_IMAGE, int(not images))
        for image in images or ():
            if not fnmatch(image.description, settings.description):
                tally.filtered += 1
                continue
            own = [image.series[0], image.study, image.accession]
            names = [*filter(None, own), *_keys(path, settings.path, table)]
            of_person = [image.written] if image.person else []
            order = [*of_person, *names] if table.names_persons else [*names, *of_person]
            row = table.find(*order)
            series = (image.person, image.study, *image.series)
            if row is None:
                unlabelled.add(series)
                continue
            written.update(of_person)
            rows[(row.record, *series)] = row
            of[(row.record, *series)].append(image)
    tally.unlabelled += len(unlabelled)
    tally.note(SPELLINGS, spellings(written))
    for key, several in of.items():
        yield from _volumes(settings, rows[key], several, tally)


def _volumes(
    settings: ImageSlicesSettings, row: Row, images: list[dicom_files.Image], tally: Tally
) -> Iterator[Scan | BadScan]:
    folder = images[0].path.parent.relative_to(settings.path).as_posix()
    try:
        for number, series in enumerate(dicom_files.series_of(images)):
            tally.note(COPIES, series.copies)
            tally.note(REPEATED, series.repeated)
            tally.note(BY_NUMBER, int(series.by_number))
            tally.note(GAPS, int(dicom_files.gaps_in(series)))
            first = series.images[0]
            windowed = settings.window == "voi"
            read = partial(dicom_files.volume_of, series, settings.plane, windowed=windowed)
            name = f"{row.record} {first.series[0]} {first.series[1]} {number}"
            yield Scan(
                name, folder, row, first.person, f"{first.person} {first.study}", first.taken,
                len(series.images),
                first.unit, read, first.said,
            )  # fmt: skip
    except BadFileError as error:
        yield BadScan(folder, error)


def _pictures(
    settings: ImageSlicesSettings, files: list[Path], table: RecordTable, tally: Tally
) -> Iterator[Scan]:
    """Yield a scan for each image that the table names, or for the images of a folder it names."""
    of: dict[str, list[Path]] = defaultdict(list)
    rows: dict[str, Row] = {}
    for path in files:
        if (row := table.find(*_keys(path, settings.path, table))) is None:
            tally.unlabelled += 1
            continue
        rows[row.record] = row
        of[row.record].append(path)
    for record, several in of.items():
        several.sort(key=_natural)
        read = partial(_picture_volume, tuple(several))
        yield Scan(record, record, rows[record], None, record, "", len(several), PLAIN, read)


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Return a key that sorts slice2 before slice10."""
    parts = re.split(r"([0-9]+)", path.as_posix())
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _picture_volume(files: tuple[Path, ...]) -> Volume:
    def one(number: int) -> NDArray[np.float64]:
        return _picture(files[number])

    rows, columns = _picture(files[0]).shape
    return Volume((len(files), rows, columns), PLAIN, one)


def _picture(path: Path) -> NDArray[np.float64]:
    """Return a picture's brightness (rows, columns), 0 black to 1 white."""
    from PIL import Image  # installed with matplotlib

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height * 8 > LARGEST_BYTES:
                raise BadFileError(f"{path.name} has {picture.width} x {picture.height} pixels")
            deep = picture.mode.startswith("I")
            grey = picture if deep else picture.convert("L")
            return np.asarray(grey, dtype=np.float64) / (65535.0 if deep else 255.0)
    except BadFileError:
        raise
    except Exception as error:  # a decoder may raise anything
        raise BadFileError(f"{path.name} cannot be read as PNG or JPEG; replace it") from error
