"""Waveforms with beat annotations in WFDB format, read by the ``wfdb`` package.

A record (``.hea``, ``.dat``, ``.atr``) is one person; its beats, or its segments of fixed length,
are that person's stays. Signals are resampled to the study's ``rate_hz``; the study's series
variables are named like signals (``MLII``, in mV). The median over the record is subtracted from
each signal, because the baseline of an electrocardiogram has no meaning.

Labels:
    ``aami``: one window per beat; the label is the beat's class N, S, V, F or Q (0 to 4) of
        ANSI/AAMI EC57, as in table 1 of de Chazal et al. (IEEE Trans Biomed Eng
        2004;51:1196-1206). Two fifths of the window lie before the beat. Static variables
        ``rr_before``, ``rr_after`` and ``rr_mean`` (s) are the intervals before and after the beat
        and the mean of the last ten; ``rr_before_ratio`` and ``rr_after_ratio`` are the first two
        divided by that mean.
    ``aami_present``: consecutive segments of fixed length; the labels say which of S, V, F, Q occur
        in a segment (multilabel).
"""

import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from consilium.client.sources.common.archives import BROKEN_ZIP
from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.matrices import (
    require_label,
    require_source,
    require_task,
    require_tokens,
    stay_of,
)
from consilium.client.sources.common.source import Counted, Patient, Stay, Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import series_names

CLASSES = ("N", "S", "V", "F", "Q")
_SYMBOLS = {"N": "NLRejn", "S": "AaJS", "V": "VE", "F": "F", "Q": "/fQ"}
CLASS_OF: Mapping[str, int] = MappingProxyType(
    {symbol: CLASSES.index(name) for name, symbols in _SYMBOLS.items() for symbol in symbols}
)
"""AAMI class of each beat annotation; other annotations are not beats."""
INTERVALS = ("rr_before", "rr_after", "rr_mean", "rr_before_ratio", "rr_after_ratio")
BEFORE = 0.4  # share of a beat's window that lies before the beat
LARGEST_FILE_BYTES, LARGEST_ARCHIVE_BYTES = 1 << 28, 1 << 32
MOST_SAMPLES = 1 << 27  # of all signals of a record together, before and after resampling
SLOWEST_HZ, FASTEST_HZ = 1.0, 1e5
NO_BEAT = "records without a whole window"
_SUFFIXES = (".hea", ".dat", ".atr")
_BEATS_OF_MEAN = 10


Window = tuple[NDArray[np.float64], float | NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class _Recording:
    """One record at the study's rate: its signals in the study's columns, and its beats."""

    signals: NDArray[np.float64]
    beats: NDArray[np.int64]
    classes: NDArray[np.int64]


class Waveforms(Counted):
    """The records of a folder or zip.

    Args:
        path: the folder or zip, with ``NAME.hea``, ``NAME.dat`` and ``NAME.atr`` of each record.
        records: names of the records to read, by default all.
        thin_normal: of normal beats, keep only every n-th; 1 keeps all.
    """

    name = "waveforms"

    def __init__(self, path: Path, *, records: Collection[str] = (), thin_normal: int = 1) -> None:
        self._path, self._records = Path(path), tuple(records)
        self._thin = thin_normal
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield one patient per record, in the order given or else of names.

        Raises:
            DataError: a record is missing or damaged, or lacks a signal or annotations; or the
                study asks for something that these data do not have.
        """
        require_source(study, self.name, clock="position")
        require_label(study, self.name, ("aami", "aami_present"))
        beats = study.data.label == "aami"
        kind, outputs = ("multiclass", len(CLASSES)) if beats else ("multilabel", len(CLASSES) - 1)
        require_task(study, self.name, (kind,), per_step=False, outputs=outputs)
        require_tokens(study, self.name, ())
        if study.data.rate_hz is None:
            raise DataError(
                f"study {study.name}: {self.name} need [data] rate_hz, the samples a second that "
                "signals are resampled to; add it"
            )
        static = [name for name in study.variables if name not in series_names(study)]
        if unknown := [name for name in static if not beats or name not in INTERVALS]:
            raise DataError(
                f"{self.name} have no static variable {unknown[0]!r} for label "
                f"{study.data.label!r}; use {', '.join(INTERVALS)} with label 'aami', or remove it"
            )
        self._tally = Tally()
        return self._read(study)

    def _read(self, study: Study) -> Iterator[Patient]:
        cleaner = Cleaner(study, self._tally)
        cut: Callable[[_Recording, Study, int], Iterator[Window]]
        cut = _beats if study.data.label == "aami" else _stretches
        with _folder(self._path) as folder:
            names = self._records or sorted(path.stem for path in folder.rglob("*.hea"))
            if not names:
                raise DataError(f"data {self._path} hold no .hea file; point at WFDB records")
            for name in names:
                try:
                    windows = list(cut(_load(folder, name, study), study, self._thin))
                except DataError as error:
                    if study.data.on_bad_file == "refuse":
                        raise
                    self._tally.skipped.append((name, str(error)))
                    continue
                stays: list[Stay] = []
                for value_TV, label in windows:
                    stay_id = f"{name}-{len(stays)}"
                    stays.append(stay_of(value_TV, study, cleaner, stay_id=stay_id, label=label))
                if not stays:
                    aside = self._tally.set_aside
                    aside[NO_BEAT] = aside.get(NO_BEAT, 0) + 1
                    continue
                self._tally.patients += 1
                self._tally.stays += len(stays)
                yield Patient(patient_id=name, stays=tuple(stays))


def _beats(recording: _Recording, study: Study, thin_normal: int) -> Iterator[Window]:
    """Yield window (T, V) and class of every beat whose window lies inside the record."""
    steps, rate = study.data.steps, float(study.data.rate_hz or 1.0)
    before = round(BEFORE * steps)
    names, series = list(study.variables), series_names(study)
    gaps = np.diff(recording.beats) / rate
    normal = 0
    for number in range(1, len(recording.beats) - 1):
        start, label = recording.beats[number] - before, recording.classes[number]
        if start < 0 or start + steps > len(recording.signals):
            continue
        normal += int(label == 0)
        if label == 0 and normal % thin_normal:
            continue
        value_TV = np.full((steps, len(names)), np.nan)
        value_TV[:, [names.index(name) for name in series]] = recording.signals[
            start : start + steps
        ]
        recent = gaps[max(0, number - _BEATS_OF_MEAN) : number].mean()
        before_s, after_s = gaps[number - 1], gaps[number]
        intervals = (before_s, after_s, recent, before_s / recent, after_s / recent)
        for name, value in zip(INTERVALS, intervals, strict=True):
            if name in names:
                value_TV[0, names.index(name)] = value
        yield value_TV, float(label)


def _stretches(recording: _Recording, study: Study, thin_normal: int) -> Iterator[Window]:
    """Yield consecutive segments (T, V), and which classes other than N occur in each."""
    del thin_normal
    steps = study.data.steps
    for start in range(0, len(recording.signals) - steps + 1, steps):
        inside = (recording.beats >= start) & (recording.beats < start + steps)
        present = np.isin(np.arange(1, len(CLASSES)), recording.classes[inside])
        yield recording.signals[start : start + steps], present.astype(np.float32)


def _load(folder: Path, name: str, study: Study) -> _Recording:
    """Read and resample one record."""
    try:
        import wfdb  # a large package, only needed here
    except ImportError as error:
        raise DataError(
            "waveforms need the package wfdb, which is not installed; "
            "install 'consilium-fl[hospital]'"
        ) from error
    found = sorted(folder.rglob(f"{name}.hea"))
    if not found:
        raise DataError(f"record {name}: {name}.hea is not among the data; correct the name")
    base, series = str(found[0].with_suffix("")), series_names(study)
    try:
        header = wfdb.rdheader(base)
        rate, length = float(header.fs), int(header.sig_len) * int(header.n_sig)
        _require_size(name, rate, length, study)
        record = wfdb.rdrecord(base)
        notes = wfdb.rdann(base, "atr")
        signals = np.asarray(record.p_signal, dtype=np.float64)
        names, units = list(map(str, record.sig_name)), list(map(str, record.units))
        samples, symbols = np.asarray(notes.sample, dtype=np.int64), list(notes.symbol)
    except DataError:
        raise
    except Exception as error:  # wfdb's parsing may raise anything
        raise DataError(
            f"record {name}: its .hea, .dat and .atr cannot be read as WFDB; replace the files"
        ) from error
    signals = signals[:, [_column(name, names, units, signal, study) for signal in series]]
    if not len(signals) or not np.isfinite(signals).all():
        raise DataError(f"record {name}: a sample is missing or not finite; repair the record")
    beat = np.array([symbol in CLASS_OF for symbol in symbols], dtype=np.bool_)
    beats = samples[beat]
    if len(beats) and not (
        (np.diff(beats) > 0).all() and 0 <= beats[0] <= beats[-1] < len(signals)
    ):
        raise DataError(
            f"record {name}: its beats are not in the order of time, or lie outside the signal; "
            "replace the .atr file"
        )
    ratio = Fraction(float(study.data.rate_hz or rate) / rate).limit_denominator(1000)
    return _Recording(
        signals=resample_poly(
            signals - np.median(signals, axis=0), ratio.numerator, ratio.denominator
        ),
        beats=np.round(beats * float(ratio)).astype(np.int64),
        classes=np.array([CLASS_OF[s] for s in symbols if s in CLASS_OF], dtype=np.int64),
    )


def _require_size(name: str, rate: float, length: int, study: Study) -> None:
    """Refuse a header that claims too large a size, before memory is allocated."""
    if not SLOWEST_HZ <= rate <= FASTEST_HZ:
        raise DataError(
            f"record {name}: {name}.hea says a sampling rate outside {SLOWEST_HZ:g} to "
            f"{FASTEST_HZ:g} Hz; correct it"
        )
    grown = length * max(1.0, float(study.data.rate_hz or rate) / rate)
    if not 0 < length <= grown <= MOST_SAMPLES:
        raise DataError(
            f"record {name}: {name}.hea says {length} samples in all, and there must be 1 to "
            f"{MOST_SAMPLES}, also at the study's rate_hz; correct it or split the record"
        )


def _column(name: str, names: list[str], units: list[str], signal: str, study: Study) -> int:
    """Return which column of the record has the signal, in the study's unit."""
    if names.count(signal) != 1:
        raise DataError(
            f"record {name}: has {names.count(signal) or 'no'} signal {signal!r} but "
            f"{', '.join(names)}; leave the record out or choose another signal"
        )
    unit, wanted = units[names.index(signal)], study.variables[signal].unit
    if unit != wanted:
        raise DataError(
            f"record {name}: signal {signal} is in {unit!r}, the study wants {wanted!r}; "
            "correct the study's unit and range"
        )
    return names.index(signal)


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Yield the folder of the records: the path, or a temporary one with a zip's records."""
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise DataError(f"data {path} does not exist; check the path")
    with tempfile.TemporaryDirectory(prefix="consilium-") as made:
        folder = Path(made)
        try:
            with zipfile.ZipFile(path) as archive:
                members = [m for m in archive.infolist() if m.filename.endswith(_SUFFIXES)]
                largest = max((member.file_size for member in members), default=0)
                total = sum(member.file_size for member in members)
                if largest > LARGEST_FILE_BYTES or total > LARGEST_ARCHIVE_BYTES:
                    raise DataError(
                        f"data {path}: unpacks to {total} bytes, the largest file to {largest}, "
                        f"above {LARGEST_ARCHIVE_BYTES} or {LARGEST_FILE_BYTES}; unpack it into a "
                        "folder yourself"
                    )
                for member in members:  # folders inside the zip are ignored
                    (folder / Path(member.filename).name).write_bytes(archive.read(member))
        except BROKEN_ZIP as error:
            raise DataError(f"data {path} is not a readable zip; download it again") from error
        yield folder
