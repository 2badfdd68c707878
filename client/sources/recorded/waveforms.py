"""Recordings in WFDB format, read by the ``wfdb`` package.

A record is a header (``.hea``) with its signals; of a record of several segments the master header
is read, and samples that no segment has are missing. The study's series variables are named like
signals (``MLII``, in mV), or the settings name them. Labels ``aami`` and ``aami_present`` are found
by annotated beats (:mod:`consilium.client.sources.recorded.beats`); any other label is a record's,
from a table, the header's comments (``# Dx: 426783006``), or annotations.

No header of WFDB has a place for the person, so a table's column, a comment, or ``same_person``
says whose a record is.
"""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.matrices import require_source
from consilium.client.sources.common.source import Patient, Tally
from consilium.client.sources.common.tree import files_below, name_below, unpacked
from consilium.client.sources.recorded import beats
from consilium.client.sources.recorded.prepared import Note
from consilium.client.sources.recorded.record_settings import WaveformsSettings
from consilium.client.sources.recorded.recordings import (
    FASTEST_HZ,
    MOST_SAMPLES,
    SLOWEST_HZ,
    Channel,
    Recording,
    Recordings,
)
from consilium.client.sources.recorded.wfdb_headers import (
    comments_of,
    fault_of,
    samples_said,
    segments_of,
    signal_files,
)
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

CLASSES, CLASS_OF = beats.CLASSES, beats.CLASS_OF
LARGEST_FILE_BYTES, LARGEST_ARCHIVE_BYTES = 1 << 28, 1 << 32


class Waveforms(Recordings):
    """The records of a folder or zip.

    Args:
        settings: see the module; of a path alone, with their defaults.
        records: names of the records to read, by default all, if the settings are a path.
        same_person: records of one person, if the settings are a path.
        thin_normal: as of the settings, if these are a path.
    """

    name = "waveforms"
    _suffix = ".hea"

    def __init__(
        self,
        settings: WaveformsSettings | Path,
        *,
        records: Collection[str] = (),
        same_person: Collection[tuple[str, ...]] | None = None,
        thin_normal: int = 1,
    ) -> None:
        if isinstance(settings, Path):
            settings = WaveformsSettings(
                source=self.name,
                path=settings,
                records=tuple(records),
                same_person=None if same_person is None else tuple(same_person),
                thin_normal=thin_normal,
            )
        super().__init__(settings)
        self._annotator = settings.annotator

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield one patient per person, in the order of their first records.

        Raises:
            DataError: a record is missing or damaged, or lacks a signal or annotations; the records
                name no person; or the study asks for something that these data do not have.
        """
        require_source(study, self.name, clock="position", alike=("edf",))
        self._check(study)
        self._tally = Tally()
        return self._read(study)

    def _opened(self) -> AbstractContextManager[Path]:
        path = self._settings.path
        return unpacked(
            path,
            suffixes=(".hea", ".dat", ".mat", f".{self._annotator}", *signal_files(path)),
            largest_bytes=LARGEST_FILE_BYTES,
            most_bytes=LARGEST_ARCHIVE_BYTES,
        )

    def _names(self, folder: Path) -> dict[str, Path]:
        """Return headers by record, without those of segments of another record."""
        headers = {
            name_below(path, folder): path
            for path in files_below(folder)
            if path.suffix.lower() == ".hea"
        }
        segments: set[str] = set()
        for name, path in headers.items():
            segments |= {f"{name.rpartition('/')[0]}/{s}".lstrip("/") for s in segments_of(path)}
        asked = set(self._settings.records)
        return {name: path for name, path in headers.items() if name not in segments - asked}

    def _header(self, name: str, path: Path) -> tuple[Any, dict[str, str]]:
        """Return a record's header and its comments."""
        try:
            header = self._wfdb.rdheader(str(path.with_suffix("")))
            return header, comments_of(header)
        except Exception as error:  # wfdb's parsing may raise anything
            raise _unreadable(name, path) from error

    def _whose(self, name: str, path: Path) -> tuple[str, dict[str, str]]:
        return "", self._header(name, path)[1]

    def _load(self, name: str, path: Path) -> Recording:
        wfdb, base = self._wfdb, str(path.with_suffix(""))
        header, comments = self._header(name, path)
        try:
            fault = fault_of(header, path, wfdb.rdheader)
            rate, length = float(header.fs), 0 if fault else samples_said(header, path)
        except Exception as error:  # wfdb's parsing may raise anything
            raise _unreadable(name, path) from error
        if fault:
            raise DataError(f"record {name}: {fault}")
        if not SLOWEST_HZ <= rate <= FASTEST_HZ:
            raise DataError(
                f"record {name}: {name}.hea says a sampling rate outside {SLOWEST_HZ:g} to "
                f"{FASTEST_HZ:g} Hz; correct it"
            )
        if not 0 < length <= length * max(1.0, self._rate_hz / rate) <= MOST_SAMPLES:
            raise DataError(
                f"record {name}: {name}.hea says {length} samples in all, and there must be 1 to "
                f"{MOST_SAMPLES}, also at the study's rate_hz; correct it or split the record"
            )

        @lru_cache(maxsize=1)
        def record() -> tuple[list[NDArray[np.float64]], Any]:
            try:
                found = wfdb.rdrecord(base, smooth_frames=False)
                if found.e_p_signal is None:
                    found = wfdb.rdrecord(base)
                    signals = list(np.asarray(found.p_signal, dtype=np.float64).T)
                else:
                    signals = [np.asarray(one, dtype=np.float64) for one in found.e_p_signal]
            except Exception as error:  # wfdb's parsing may raise anything
                raise _unreadable(name, path) from error
            return signals, found

        signals, found = record()
        frames = found.samps_per_frame or [1] * len(signals)
        return Recording(
            name=name,
            person="",
            channels=tuple(
                Channel(
                    name=str(found.sig_name[number] or f"signal {number}"),
                    unit=str(found.units[number] or ""),
                    rate_hz=rate * frames[number],
                    samples=len(one),
                )
                for number, one in enumerate(signals)
            ),
            comments=comments,
            read=lambda number: signals[number],
            notes=lambda _: self._notes(name, base, rate),
        )

    def _notes(self, name: str, base: str, rate: float) -> tuple[Note, ...]:
        file = f"{name}.{self._annotator}"
        if not Path(f"{base}.{self._annotator}").is_file():
            raise DataError(
                f"record {name}: its annotations {file} are not there; add the file, which says "
                "what is at each R peak or place, or set [data] annotator to the suffix of those "
                "that are there"
            )
        try:
            notes = self._wfdb.rdann(base, self._annotator)
            samples = [int(sample) for sample in notes.sample]
            texts = [
                (text or "").strip("\0 ") or symbol
                for text, symbol in zip(notes.aux_note, notes.symbol, strict=True)
            ]
            symbols = list(notes.symbol)
        except Exception as error:  # wfdb's parsing may raise anything
            raise DataError(
                f"record {name}: its .hea, .dat and .{self._annotator} cannot be read as WFDB; "
                "replace the files"
            ) from error
        at_beats = not self._settings.annotations
        return tuple(
            Note(onset_s=sample / rate, duration_s=0.0, text=symbol if at_beats else text)
            for sample, symbol, text in zip(samples, symbols, texts, strict=True)
        )

    @cached_property
    def _wfdb(self) -> Any:
        try:
            import wfdb  # a large package, only needed here
        except ImportError as error:
            raise DataError(
                "waveforms need the package wfdb, which is not installed; "
                "install 'consilium-fl[hospital]'"
            ) from error
        return wfdb


def _unreadable(name: str, path: Path) -> DataError:
    return DataError(
        f"record {name}: its {path.name} and signals cannot be read as WFDB; compare the header's "
        "lines with https://wfdb.io/spec/header-files.html, or copy the files again"
    )
