"""Reads DICOM images: whose each is, which series it belongs to, and its values.

Values go the way of the standard (PS3.3, C.11.1 and C.7.6.3) through pydicom's own functions: a
modality's table or rescale, then, if asked for, the window; colours become luminance. MONOCHROME1,
where small values are bright, is turned over in its stored range, but not where values are
Hounsfield units, which mean the same either way. Padding is no measurement and counts as missing.
"""

import logging
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BadFileError
from consilium.client.sources.common.persons import named_person
from consilium.client.sources.recorded.volumes import (
    HOUNSFIELD,
    LARGEST_BYTES,
    PLAIN,
    Volume,
    oriented,
)
from consilium.shared.errors import DataError, SettingsError

SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
UNITS = {"PatientSize": "m", "PatientWeight": "kg"}  # by the standard (PS3.3, C.7.2.2)
LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green and blue: ITU-R BT.601
MOST_FRAMES = 4096
SAME_PLACE_MM, SAME_DIRECTION = 1e-3, 1e-2
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
    "AccessionNumber", "SeriesDescription", "Modality", "StudyDate", "SeriesDate", "SeriesTime",
    "AcquisitionDate", "AcquisitionTime", "InstanceNumber", "AcquisitionNumber", "EchoNumbers",
    "TemporalPositionIdentifier", "ImagePositionPatient", "ImageOrientationPatient", "Rows",
    "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
]  # fmt: skip  # of an index; pixels and their tables are read with a slice
_PIXEL_TAGS = [
    "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "PaletteColorLookupTableUID",
    "PixelRepresentation", "BitsStored", "PhotometricInterpretation", "Modality",
]  # fmt: skip

_VALUES = frozenset({"AS", "CS", "DS", "FD", "FL", "IS", "LO", "SH", "SL", "SS", "UL", "US"})
_AGE = re.compile(r"([0-9]{3})([DWMY])")
_AGE_UNITS = {"D": "d", "W": "wk", "M": "mo", "Y": "a"}

Numbers = tuple[float, ...]


@dataclass(frozen=True, repr=False)
class Said:
    """An attribute as written, empty if it is not there, and the UCUM unit that stands in it."""

    text: str
    unit: str | None

    def __repr__(self) -> str:
        return "Said()"


@dataclass(frozen=True, repr=False)
class Image:
    """One image, a file or a frame of one: what a header says, without pixels.

    ``series`` is its examination, series, shape and unit. ``position`` and ``orientation`` are
    empty where the file has none. ``order`` sorts images of one place, its end all of them.
    ``said`` are the attributes that were asked for, by keyword.
    """

    path: Path
    frame: int | None
    sop: str
    person: str
    written: str
    study: str
    series: tuple[str, ...]
    accession: str
    description: str
    taken: str
    shape: tuple[int, int]
    unit: str
    position: Numbers
    orientation: Numbers
    order: Numbers
    rescale: tuple[float, float] | None
    said: Mapping[str, Said]

    def __repr__(self) -> str:
        return "Image()"


@dataclass(frozen=True, repr=False)
class Series:
    """Images that make one volume, in their order, and what was set aside for it."""

    images: tuple[Image, ...]
    axes: NDArray[np.float64] | None
    places: NDArray[np.float64]
    copies: int
    repeated: int
    by_number: bool

    def __repr__(self) -> str:
        return f"Series({len(self.images)} images)"


def pydicom_or_refusal() -> Any:
    """Return the package pydicom.

    Raises:
        DataError: it is not installed.
    """
    try:
        import pydicom  # needed for DICOM only
        import pydicom.pixels
    except ImportError as error:
        raise DataError(
            "DICOM series need the package pydicom, which is not installed; "
            "install 'consilium-fl[hospital]'"
        ) from error
    return pydicom


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings from terminal and log: they quote what is in a file."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def images_of(path: Path, asked: Collection[str] = ()) -> tuple[Image, ...] | None:
    """Return a file's images; none for a DICOM object without pixels, None if it is no DICOM.

    Args:
        path: the file.
        asked: keywords of further attributes to read.

    Raises:
        DataError: the package pydicom is missing.
        BadFileError: the file is DICOM, or is named as such, and cannot be read.
    """
    with path.open("rb") as file:
        marked = file.read(132)[128:] == b"DICM"
    if path.name.upper() == "DICOMDIR" or not (marked or path.suffix.lower() in SUFFIXES):
        return () if path.name.upper() == "DICOMDIR" else None
    if path.stat().st_size > LARGEST_BYTES:
        raise BadFileError(f"{path.name} is larger than {LARGEST_BYTES} bytes")
    pydicom = pydicom_or_refusal()
    try:
        with quiet():
            return _images_of(pydicom, path, asked, marked=marked)
    except BadFileError:
        raise
    except Exception as error:  # pydicom's parsing may raise anything
        raise BadFileError(
            f"{path.name} is no DICOM image, or lacks rows, columns or a number"
        ) from error


def _images_of(
    pydicom: Any, path: Path, asked: Collection[str], *, marked: bool
) -> tuple[Image, ...]:
    meta = pydicom.filereader.read_file_meta_info(path) if marked else {}
    if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
        raise BadFileError(f"{path.name} is deflated; export the series uncompressed")
    header = pydicom.dcmread(
        path, stop_before_pixels=True, force=not marked, specific_tags=[*_TAGS, *asked]
    )
    if not marked and "SOPClassUID" not in header:
        raise ValueError
    if meta.get("MediaStorageSOPClassUID") == pydicom.uid.MediaStorageDirectoryStorage:
        return ()
    return tuple(_images(header, path, asked)) if "Rows" in header else ()


def require_attributes(keywords: Collection[str]) -> None:
    """Check that these are keywords of attributes that hold one text or number.

    Raises:
        SettingsError: one is not in DICOM's dictionary, or holds something else.
        DataError: the package pydicom is missing.
    """
    known = pydicom_or_refusal().datadict
    for keyword in keywords:
        if known.tag_for_keyword(keyword) is None or known.dictionary_VR(keyword) not in _VALUES:
            raise SettingsError(
                f"[data.variables] attribute {keyword!r} is no keyword of a DICOM attribute with a "
                "number or a word; write it as in the standard, such as 'PatientAge'"
            )


def _said(header: Any, keyword: str) -> Said:
    """Return an attribute; an age has its own unit (PS3.5, 6.2: ``062Y``)."""
    value = header.get(keyword)
    text = "" if value is None else str(value).strip()
    if (age := _AGE.fullmatch(text)) is not None:
        return Said(str(int(age[1])), _AGE_UNITS[age[2]])
    return Said(text, None)


def _images(header: Any, path: Path, asked: Collection[str]) -> Iterator[Image]:
    rows, columns = int(header.Rows), int(header.Columns)
    frames = int(header.get("NumberOfFrames") or 1)
    size = rows * columns * frames * int(header.get("SamplesPerPixel") or 1)
    if not 0 < frames <= MOST_FRAMES or not 0 < size <= LARGEST_BYTES:
        raise BadFileError(
            f"{path.name} has {frames} frames of {rows} x {columns}, and may have {MOST_FRAMES} "
            f"frames and {LARGEST_BYTES} values in all; export a part of it"
        )
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    written = str(header.get("PatientID") or "")
    said = {keyword: _said(header, keyword) for keyword in asked}
    for frame in range(frames):
        own = groups[frame] if frame < len(groups) else None
        rescale = _rescale(header, own, shared)
        hounsfield = header.get("Modality") == "CT" and rescale is not None and _is_hu(header)
        unit = HOUNSFIELD if hounsfield else PLAIN
        yield Image(
            path=path,
            frame=frame if frames > 1 else None,
            sop=f"{header.get('SOPInstanceUID') or path}/{frame}",
            person=named_person(written),
            written=written,
            study=str(header.get("StudyInstanceUID") or ""),
            series=(str(header.get("SeriesInstanceUID") or path.parent), f"{rows}x{columns}", unit),
            accession=str(header.get("AccessionNumber") or ""),
            description=str(header.get("SeriesDescription") or ""),
            taken=" ".join(
                str(header.get(name) or "")
                for name in (
                    "StudyDate",
                    "SeriesDate",
                    "AcquisitionDate",
                    "SeriesTime",
                    "AcquisitionTime",
                )
            ),
            shape=(rows, columns),
            unit=unit,
            position=_numbers(header, own, shared, "PlanePositionSequence", "ImagePositionPatient"),
            orientation=_numbers(
                header, own, shared, "PlaneOrientationSequence", "ImageOrientationPatient"
            ),
            order=(
                _number(header.get("TemporalPositionIdentifier")),
                _number(header.get("AcquisitionNumber")),
                _number(_first(header.get("EchoNumbers"))),
                _number(header.get("InstanceNumber")),
                float(frame),
            ),
            rescale=rescale,
            said=said,
        )


def series_of(images: Sequence[Image]) -> Iterator[Series]:
    """Yield the volumes of the images of one series, each sorted along the normal of its slices.

    Images of other directions are another volume, such as a scout's. Where a slice lacks position
    or direction all are sorted by their numbers. Of several images of one place, such as the echoes
    of one slice, the first is taken; if all have one place they are a course of time.

    Raises:
        BadFileError: the images have neither positions nor numbers.
    """
    distinct = {image.sop: image for image in reversed(images)}
    copies = len(images) - len(distinct)
    known = all(image.position and image.orientation for image in distinct.values())
    bundles: dict[Numbers, list[Image]] = defaultdict(list)
    for image in distinct.values():
        near = next(
            (
                direction
                for direction in bundles
                if not known or np.allclose(direction, image.orientation, atol=SAME_DIRECTION)
            ),
            image.orientation if known else (),
        )
        bundles[near].append(image)
    for direction, bundle in bundles.items():
        yield _sorted(bundle, direction if known else (), copies)
        copies = 0


def _sorted(bundle: list[Image], direction: Numbers, copies: int) -> Series:
    bundle.sort(key=lambda image: image.order[-2:])
    nowhere = np.empty(0)
    numbered = len({image.order[-2:] for image in bundle}) == len(bundle)
    if not direction and not numbered:
        raise BadFileError("has slices without a position or a number of their own, in no order")
    if not direction:
        return Series(tuple(bundle), None, nowhere, copies, 0, len(bundle) > 1)
    along, down = np.array(direction[:3]), np.array(direction[3:])
    normal = np.cross(along, down)
    axes = np.stack([normal, down, along])
    place_of = {image.sop: float(normal @ np.array(image.position)) for image in bundle}
    apart = max(place_of.values()) - min(place_of.values())
    if apart < SAME_PLACE_MM:
        axes[0] *= np.sign(normal[np.abs(normal).argmax()])  # time is never turned back
        return Series(tuple(bundle), axes, nowhere, copies, 0, len(bundle) > 1)
    kept: list[Image] = []
    for image in sorted(bundle, key=lambda one: (place_of[one.sop], one.order)):
        if kept and place_of[image.sop] - place_of[kept[-1].sop] < SAME_PLACE_MM:
            continue
        kept.append(image)
    places = np.array([place_of[image.sop] for image in kept])
    return Series(tuple(kept), axes, places, copies, len(bundle) - len(kept), by_number=False)


def gaps_in(series: Series) -> bool:
    """Return whether a slice seems to be missing: a step twice as wide as the usual one."""
    steps = np.diff(series.places)
    return bool(len(steps) > 1 and steps.max() > 1.5 * np.median(steps))


def volume_of(series: Series, plane: str, *, windowed: bool) -> Volume:
    """Return the series as a volume; its slices are read one at a time.

    Raises:
        BadFileError: as :func:`volumes.oriented`.
    """
    images = series.images
    uneven = np.ptp(np.diff(series.places)) > SAME_PLACE_MM if len(series.places) > 2 else False
    stored = Volume(
        (len(images), *images[0].shape),
        images[0].unit,
        lambda number: values_of(images[number], windowed=windowed),
        series.places if uneven else np.empty(0),
    )
    return stored if series.axes is None else oriented(stored, series.axes, plane)


def values_of(image: Image, *, windowed: bool = False) -> NDArray[np.float64]:
    """Return an image's values (rows, columns) as its file means them; NaN where it is padded.

    Raises:
        BadFileError: it has no pixels, or no decoder for their compression is installed.
    """
    pydicom = pydicom_or_refusal()
    name = image.path.name
    try:
        header = pydicom.dataset.Dataset()
        with quiet():
            stored = pydicom.pixels.pixel_array(
                image.path, ds_out=header, index=image.frame, specific_tags=_PIXEL_TAGS
            )
            values = _values(pydicom.pixels, stored, header, image, windowed=windowed)
    except Exception as error:  # no pixels, or no decoder installed for their compression
        told = _undecoded(pydicom, image.path) or "has no pixels that can be read"
        raise BadFileError(f"{name} {told}; export the series uncompressed") from error
    if values.shape != image.shape:
        raise BadFileError(f"{name} is not one slice")
    return values


def _values(
    pixels: Any, stored: NDArray[Any], header: Any, image: Image, *, windowed: bool
) -> NDArray[np.float64]:
    kind = str(header.get("PhotometricInterpretation") or "")
    if kind == "PALETTE COLOR":
        stored = pixels.apply_color_lut(stored, header)
    if stored.ndim == 3:
        return np.asarray(stored[..., :3] @ LUMINANCE, dtype=np.float64)
    rescale = header
    if image.rescale is not None and "ModalityLUTSequence" not in header:
        rescale = type(header)()
        rescale.RescaleSlope, rescale.RescaleIntercept = image.rescale
    values = np.asarray(pixels.apply_modality_lut(stored, rescale), dtype=np.float64)
    bits, signed = int(header.BitsStored), int(header.PixelRepresentation) == 1
    span = np.array([-(1 << bits - 1), (1 << bits - 1) - 1] if signed else [0, (1 << bits) - 1])
    ends = span * image.rescale[0] + image.rescale[1] if image.rescale else span
    if "ModalityLUTSequence" in header:
        ends = np.array([0, (1 << int(header.ModalityLUTSequence[0].LUTDescriptor[2])) - 1])
    if windowed:
        shown = pixels.apply_voi_lut(stored if image.rescale is None else values, header)
        values = np.asarray(shown, dtype=np.float64)
        if "VOILUTSequence" in header:
            ends = np.array([0, (1 << int(header.VOILUTSequence[0].LUTDescriptor[2])) - 1])
    if kind == "MONOCHROME1" and image.unit != HOUNSFIELD:
        values = ends.sum() - values
    return np.where(_padded(stored, header), np.nan, values)


def _padded(stored: NDArray[Any], header: Any) -> NDArray[np.bool_]:
    pad = header.get("PixelPaddingValue")
    if pad is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = header.get("PixelPaddingRangeLimit", pad)
    low, high = sorted((int(pad), int(limit)))
    return (stored >= low) & (stored <= high)


def _undecoded(pydicom: Any, path: Path) -> str:
    """Return which compression has no decoder here; empty if that is not the reason."""
    try:
        syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
        available = not syntax.is_compressed or pydicom.pixels.get_decoder(syntax).is_available
    except Exception:  # what is no syntax has no decoder either
        return ""
    return "" if available else f"is compressed as {syntax.name}, which nothing installed decodes"


def _first(sequence: Any) -> Any:
    if sequence is None or isinstance(sequence, (str, int, float)):
        return sequence
    return next(iter(sequence), None)


def _of_group(own: Any, shared: Any, group: str) -> Any:
    for groups in (own, shared):
        if groups is not None and (found := _first(groups.get(group))) is not None:
            return found
    return None


def _numbers(header: Any, own: Any, shared: Any, group: str, name: str) -> Numbers:
    """Return position or direction of a frame; empty if the file has none."""
    place = _of_group(own, shared, group)
    found = header.get(name) if place is None else place.get(name)
    if not found:
        return ()
    numbers = tuple(float(number) for number in found)
    length = 3 if name == "ImagePositionPatient" else 6
    if len(numbers) != length or not all(map(math.isfinite, numbers)):
        raise ValueError
    if length == 6 and abs(np.linalg.norm(np.cross(numbers[:3], numbers[3:])) - 1) > 0.1:
        raise ValueError
    return numbers


def _rescale(header: Any, own: Any, shared: Any) -> tuple[float, float] | None:
    of = _of_group(own, shared, "PixelValueTransformationSequence")
    of = header if of is None else of
    if of.get("RescaleSlope") is None or of.get("RescaleIntercept") is None:
        return None
    slope, offset = float(of.RescaleSlope), float(of.RescaleIntercept)
    if not (math.isfinite(slope) and math.isfinite(offset) and slope):
        raise ValueError
    return slope, offset


def _is_hu(header: Any) -> bool:
    return str(header.get("RescaleType") or "HU").upper() in ("HU", "US", "")


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.inf
    return number if math.isfinite(number) else math.inf
