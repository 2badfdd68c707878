"""Recordings in EDF, EDF+ and BDF, read by the ``edfio`` package: EEG, polysomnography and others.

The study's series variables are named like channels, or the settings name them; each channel has
its own rate. A discontinuous file (EDF+D) has gaps, and what lies in them is missing. The person is
the first part of the patient's identification in EDF+, all of it in plain EDF, unless a table
beside the files has a column of persons. Specifications: Kemp et al., Electroencephalogr Clin
Neurophysiol 1992;82:391-393; Kemp and Olivan, Clin Neurophysiol 2003;114:1755-1761.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.matrices import require_source
from consilium.client.sources.common.persons import named_person
from consilium.client.sources.common.source import Patient, Tally
from consilium.client.sources.common.tree import files_below, name_below, unpacked
from consilium.client.sources.recorded.prepared import Note
from consilium.client.sources.recorded.record_settings import EdfSettings
from consilium.client.sources.recorded.recordings import Channel, Recording, Recordings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

SUFFIXES = (".edf", ".bdf", ".rec")
LARGEST_FILE_BYTES, LARGEST_ARCHIVE_BYTES = 1 << 32, 1 << 34
LARGEST_BDF_BYTES = 1 << 29  # edfio reads all of it
MOST_CHANNELS = 4096
MOST_SAMPLES = 1 << 28  # from the first to the last of a channel, gaps included
CUT_SHORT = "recordings with fewer or more samples than their header says"
IN_PIECES = "recordings in pieces, with gaps between"
_ONSET = re.compile(rb"([+-]\d+(?:\.\d+)?)(?:\x15[^\x14]*)?\x14")


class Edf(Recordings):
    """The files of a folder or zip.

    Args:
        settings: see the module; of a path alone, with their defaults.
    """

    name = "edf"
    missing = "the patient's code in the file"
    _suffix = ".edf"

    def __init__(self, settings: EdfSettings | Path) -> None:
        if isinstance(settings, Path):
            settings = EdfSettings(source=self.name, path=settings)
        super().__init__(settings)

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield one patient per person, in the order of their first records.

        Raises:
            DataError: a file is damaged or lacks a channel or label; the files name no person; or
                the study asks for something that these data do not have.
        """
        require_source(study, self.name, clock="position", alike=("waveforms",))
        self._check(study)
        self._tally = Tally()
        return self._read(study)

    def _opened(self) -> AbstractContextManager[Path]:
        return unpacked(
            self._settings.path,
            suffixes=SUFFIXES,
            largest_bytes=LARGEST_FILE_BYTES,
            most_bytes=LARGEST_ARCHIVE_BYTES,
        )

    def _names(self, folder: Path) -> dict[str, Path]:
        """Return files by record, without those that have annotations alone."""
        self._folder = folder
        found: dict[str, Path] = {}
        for path in files_below(folder):
            if path.suffix.lower() in SUFFIXES and not _has_no_signals(path):
                name = name_below(path, folder)
                found[name if name not in found else path.relative_to(folder).as_posix()] = path
        return found

    def _load(self, name: str, path: Path) -> Recording:
        edf, header, told = _read(name, path)
        try:
            channels = tuple(
                Channel(
                    name=str(signal.label).strip(),
                    unit=str(signal.physical_dimension).strip(),
                    rate_hz=float(signal.sampling_frequency),
                    samples=int(signal.samples_per_data_record) * int(edf.num_data_records),
                )
                for signal in edf.signals
            )
            identification = str(edf.local_patient_identification)
        except Exception as error:  # edfio reads fields late, and may raise anything
            raise _unreadable(name) from error
        if not channels:
            raise DataError(f"record {name}: has annotations and no signal; leave it out")
        pieces = header.pieces(edf, path) if header.discontinuous else None
        return Recording(
            name=name,
            person=_person(identification, plus=header.plus),
            channels=channels,
            comments={},
            read=lambda number: self._samples(name, edf, number, pieces, told=bool(told)),
            notes=lambda other: self._notes(name, edf, other),
        )

    def _samples(
        self,
        name: str,
        edf: Any,
        number: int,
        pieces: NDArray[np.float64] | None,
        *,
        told: bool,
    ) -> NDArray[np.float64]:
        """Return a channel's samples in its unit, those in gaps NaN."""
        self._tally.note(CUT_SHORT, int(told and number == 0))
        signal = edf.signals[number]
        try:
            digital, physical = signal.digital_range, signal.physical_range
            flat = digital.min == digital.max or physical.min == physical.max
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                samples = np.asarray(signal.data, dtype=np.float64)
        except Exception as error:  # edfio reads fields late, and may raise anything
            raise _unreadable(name) from error
        if flat:
            raise DataError(
                f"record {name}: channel {signal.label!r} has no physical range, so its numbers "
                "have no unit; mend the header or choose another channel"
            )
        if pieces is None:
            return samples
        self._tally.note(IN_PIECES, int(number == 0))
        width, rate = int(signal.samples_per_data_record), float(signal.sampling_frequency)
        starts = np.round((pieces - pieces[0]) * rate).astype(np.int64)
        if (np.diff(starts) < width).any() or not starts[-1] + width <= MOST_SAMPLES:
            raise DataError(
                f"record {name}: its pieces overlap, or reach over {MOST_SAMPLES} samples; split it"
            )
        whole = np.full(int(starts[-1]) + width, np.nan)
        for start, piece in zip(starts, samples.reshape(-1, width), strict=True):
            whole[start : start + width] = piece
        return whole

    def _notes(self, name: str, edf: Any, other: str | None) -> tuple[Note, ...]:
        """Return the file's annotations, or those of another file that the table names."""
        shift = 0.0
        if other:
            path = (self._folder / other).resolve()
            if not path.is_relative_to(self._folder.resolve()) or not path.is_file():
                raise DataError(
                    f"record {name}: its file of annotations is not among the data; correct the "
                    "table"
                )
            beside, _, _ = _read(name, path)
        else:
            beside = edf
        try:
            if other:
                shift = _seconds_between(edf, beside)
            return tuple(
                Note(
                    onset_s=float(note.onset) + shift,
                    duration_s=float(note.duration or 0.0),
                    text=str(note.text),
                )
                for note in beside.annotations
            )
        except Exception as error:  # edfio reads annotations late, and may raise anything
            raise _unreadable(name) from error


class _Header:
    """The fields that edfio does not check before it uses them."""

    def __init__(self, path: Path, head: bytes) -> None:
        self.bdf = head[:1] == b"\xff"
        reserved = head[192:236].decode("latin-1")
        self.plus = reserved.startswith(("EDF+", "BDF+"))
        self.discontinuous = reserved.startswith(("EDF+D", "BDF+D"))
        self.bytes = _whole(head[184:192])
        self.records, self.channels = _whole(head[236:244]), _whole(head[252:256])
        duration = float(head[244:252].decode("latin-1"))
        size = path.stat().st_size
        if not (
            0 < self.channels <= MOST_CHANNELS
            and self.bytes == 256 * (self.channels + 1) <= size
            and 0 <= duration < 1e7
        ):
            raise ValueError
        with path.open("rb") as file:
            file.seek(256 + 216 * self.channels)
            widths = [_whole(file.read(8)) for _ in range(self.channels)]
            file.seek(256)
            labels = [file.read(16).decode("latin-1").strip() for _ in range(self.channels)]
        self.widths, self.labels = widths, labels
        self.stride = sum(widths) * (3 if self.bdf else 2)
        if min(widths) < 0 or not 0 < self.stride <= LARGEST_FILE_BYTES:
            raise ValueError
        self.only_notes = all(label.endswith("Annotations") for label in labels)
        if not duration and not self.only_notes:
            raise ValueError

    def pieces(self, edf: Any, path: Path) -> NDArray[np.float64]:
        """Return the begin of every data record in seconds."""
        wide = 3 if self.bdf else 2
        place = next(n for n, label in enumerate(self.labels) if label.endswith("Annotations"))
        before, width = wide * sum(self.widths[:place]), wide * self.widths[place]
        begins = []
        with path.open("rb") as file:
            for number in range(int(edf.num_data_records)):
                file.seek(self.bytes + number * self.stride + before)
                found = _ONSET.match(file.read(width))
                begins.append(float(found[1]) if found else np.nan)
        begin_at = np.array(begins)
        if not len(begin_at) or not np.isfinite(begin_at).all() or (np.diff(begin_at) <= 0).any():
            raise DataError(
                f"record {path.name}: is in pieces that do not say when each begins; export it anew"
            )
        return begin_at


def _read(name: str, path: Path) -> tuple[Any, _Header, list[str]]:
    """Read a file's header with edfio; return it, the fields checked, and what edfio warned of.

    Raises:
        DataError: the package edfio is missing, or the file cannot be read.
    """
    try:
        import edfio  # only needed here
    except ImportError as error:
        raise DataError(
            "EDF files need the package edfio, which is not installed; "
            "install 'consilium-fl[hospital]'"
        ) from error
    try:
        with path.open("rb") as file:
            header = _Header(path, file.read(256))
        if header.bdf and path.stat().st_size > LARGEST_BDF_BYTES:
            raise DataError(
                f"record {name}: is larger than {LARGEST_BDF_BYTES} bytes, and BDF is read whole; "
                "split it or export it as EDF"
            )
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            # A field of text may be in any encoding of eight bits; Latin-1 reads them all.
            edf: Any
            if header.bdf:
                edf = edfio.read_bdf(path, header_encoding="latin-1")
            else:
                edf = edfio.read_edf(path, lazy_load_data=True, header_encoding="latin-1")
        if int(edf.num_data_records) < 1:
            raise ValueError
    except DataError:
        raise
    except Exception as error:  # edfio's parsing may raise anything
        raise _unreadable(name) from error
    return edf, header, [str(one.message) for one in told]


def _has_no_signals(path: Path) -> bool:
    """Return whether a file has annotations alone, as a hypnogram has."""
    try:
        with path.open("rb") as file:
            return _Header(path, file.read(256)).only_notes
    except (ValueError, OSError):
        return False


def _unreadable(name: str) -> DataError:
    return DataError(f"record {name}: cannot be read as EDF; replace the file")


def _person(identification: str, *, plus: bool) -> str:
    """Return whom a file names: EDF+ has a code first and ``X`` for what is not known."""
    if plus:
        return named_person((identification.split() or [""])[0].replace("_", " "))
    return "" if set(identification.split()) <= {"X"} else named_person(identification)


def _seconds_between(first: Any, second: Any) -> float:
    """Return by how many seconds the second file begins later; on one day if a date was removed."""
    clocks = []
    for edf in (first, second):
        start = edf.starttime
        seconds = start.hour * 3600 + start.minute * 60 + start.second
        clocks.append(float(seconds) + start.microsecond / 1e6)
    try:
        days = (second.startdate - first.startdate).days
    except Exception:  # edfio has a class of its own for a date that was removed
        days = 0
    return float(days * 86400.0 + clocks[1] - clocks[0])


def _whole(field: bytes) -> int:
    text = field.decode("latin-1").strip()
    if not re.fullmatch(r"-?[0-9]{1,10}", text):
        raise ValueError
    return int(text)
