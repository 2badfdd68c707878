"""Recordings of signals as a source: whose each is, its channels at the study's rate, its windows.

What a format's reader has to give is a :class:`Recording`. Channels are chosen by name, converted
to the study's units, filtered and resampled; a gap stays one (NaN). Labels ``aami`` and
``aami_present`` are found by annotated beats (:mod:`consilium.client.sources.recorded.beats`); a
study of any other label has it from a table beside the records, from the headers' comments, or from
annotations.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.matrices import require_task, require_tokens, stay_of
from consilium.client.sources.common.persons import (
    named_person,
    require_person,
    same_person,
    spellings,
)
from consilium.client.sources.common.source import Counted, Patient, Stay, Tally
from consilium.client.sources.recorded import beats
from consilium.client.sources.recorded.prepared import Note, Prepared
from consilium.client.sources.recorded.record_settings import (
    RecordingsSettings,
    RecordVariable,
)
from consilium.client.sources.recorded.record_table import (
    Label,
    RecordTable,
    Row,
    label_of,
    read_table,
)
from consilium.client.sources.recorded.record_windows import windows_of
from consilium.client.sources.recorded.recording_units import channel_unit, is_voltage
from consilium.client.sources.recorded.samples import filtered, resampled
from consilium.client.sources.recorded.scans import SPELLINGS
from consilium.client.sources.recorded.static_values import (
    require_columns,
    require_places,
    static_value,
)
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study
from consilium.shared.study.derived import HIGHEST_SHARE, BandPower, Derived, channel_units
from consilium.shared.study.input_names import static_names
from consilium.shared.study.units import UnitError, conversion

MOST_SAMPLES = 1 << 27  # of the channels of a record that a study reads, before and after
SLOWEST_HZ, FASTEST_HZ = 1e-4, 1e6
NO_WINDOW = "records without a whole window"
NO_SIGNAL = "windows without a single sample"
NO_KEY = "nothing: each recording counts as a patient of its own"


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A channel: name, unit as the file writes it, rate, and number of samples."""

    name: str
    unit: str
    rate_hz: float
    samples: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Recording:
    """One record, its header read; ``read`` gives a channel's samples, ``notes`` its annotations.

    ``person`` is whom the header names, empty if nobody.
    """

    name: str
    person: str
    channels: tuple[Channel, ...]
    comments: Mapping[str, str]
    read: Callable[[int], NDArray[np.float64]]
    notes: Callable[[str | None], tuple[Note, ...]]

    def __repr__(self) -> str:
        return f"Recording({len(self.channels)} channels)"


@dataclass(frozen=True, repr=False)
class Listed:
    """A record to be read: its name, and the row of the table about it."""

    name: str
    path: Path
    row: Row | None = None

    def __repr__(self) -> str:
        return "Listed()"


class Recordings(Counted):
    """A source of recordings: what WFDB and EDF have in common."""

    name: str
    missing = "a person"  # what a header of this format has no place for

    def __init__(self, settings: RecordingsSettings) -> None:
        self._settings = settings
        self._rate_hz = 1.0
        self._tally = Tally()

    # What a format gives.

    def _opened(self) -> AbstractContextManager[Path]:
        """Return the folder of the records for as long as they are read."""
        raise NotImplementedError

    def _names(self, folder: Path) -> dict[str, Path]:
        """Return the records' headers by name, in order."""
        raise NotImplementedError

    def _load(self, name: str, path: Path) -> Recording:
        """Read a record's header."""
        raise NotImplementedError

    def _whose(self, name: str, path: Path) -> tuple[str, Mapping[str, str]]:
        """Return whom a header names, and its comments."""
        recording = self._load(name, path)
        return recording.person, recording.comments

    # What they have in common.

    def first_records(self, most: int) -> Iterator[tuple[str, Recording | DataError]]:
        """Yield the first records by name, or why one cannot be read, for a look without a study.

        Raises:
            DataError: the folder or zip cannot be read.
        """
        with self._opened() as folder:
            for name, path in list(self._names(folder).items())[:most]:
                try:
                    yield name, self._load(name, path)
                except DataError as error:
                    yield name, error

    def _check(self, study: Study) -> None:
        """Refuse a study whose task or variables no record of this kind has.

        Raises:
            DataError: the sentence says what does not fit.
        """
        at = self._settings.annotations
        if study.data.label in beats.LABELS:
            self._check_beats(study)
        else:
            require_task(
                study,
                self.name,
                ("binary", "multiclass", "multilabel", "regression"),
                per_step=study.task.per_step,
                outputs=study.task.outputs,
            )
        if study.task.per_step and (at is None or not at.values):
            raise DataError(
                f"study {study.name}: asks for a label at every step, which {self.name} have from "
                "annotations alone; say as [data.annotations] values what their texts mean, or set "
                "[task] per_step = false for a label of each window"
            )
        require_tokens(study, self.name, ())
        if study.data.rate_hz is None:
            raise DataError(
                f"study {study.name}: {self.name} need [data] rate_hz, the samples a second that "
                "signals are resampled to; add it"
            )
        self._rate_hz = float(study.data.rate_hz)
        chosen = self._settings.variables
        require_places(self._static_of_records(study), chosen, "comment", study)
        if computed := sorted(set(chosen) & set(study.data.derived)):
            raise SettingsError(
                f"[data.variables.{computed[0]}] is computed from channel "
                f"{study.data.derived[computed[0]].of!r}; say where that is instead"
            )
        if unknown := sorted(set(chosen) - set(study.variables) - set(_channels(study))):
            raise SettingsError(
                f"[data.variables.{unknown[0]}] is not a variable of study {study.name}; remove it"
            )

    def _check_beats(self, study: Study) -> None:
        """Refuse a study of beats whose task or variables beats do not have.

        Raises:
            DataError: the sentence says what does not fit.
        """
        of_beats = study.data.label == "aami"
        kind, outputs = ("multiclass", 5) if of_beats else ("multilabel", 4)
        require_task(study, self.name, (kind,), per_step=False, outputs=outputs)
        for name in self._static_of_records(study):
            if name not in self._settings.variables:
                raise DataError(
                    f"{self.name} have no static variable {name!r} for label "
                    f"{study.data.label!r}; use {', '.join(beats.INTERVALS)} with label 'aami', "
                    "name its column or comment as [data.variables], or remove it"
                )

    def _read(self, study: Study) -> Iterator[Patient]:
        cleaner = Cleaner(study, self._tally)
        with self._opened() as folder:
            table = self._table(study)
            listed = self._listed(folder, table)
            for person, records in self._persons(listed, table, study).items():
                stays: list[Stay] = []
                for record in records:
                    try:
                        prepared = self._prepared(record, study)
                        if prepared is None:
                            continue
                        windows = windows_of(prepared, study, self._settings, self._tally)
                    except DataError as error:
                        self._skip(record.name, error, study)
                        continue
                    if not windows:
                        self._tally.count(NO_WINDOW, 1)
                    for window in windows:
                        if np.isnan(window.value_TV).all():
                            self._tally.count(NO_SIGNAL, 1)
                            continue
                        stays.append(
                            stay_of(
                                window.value_TV[: study.data.steps],
                                study,
                                cleaner,
                                stay_id=f"{record.name}-{len(stays)}",
                                label=window.label,
                                end_h=float(min(len(window.value_TV), study.data.steps)),
                            )
                        )
                if stays:
                    self._tally.patients += 1
                    self._tally.stays += len(stays)
                    yield Patient(patient_id=person, stays=tuple(stays))

    def _skip(self, name: str, error: DataError, study: Study) -> None:
        if study.data.on_bad_file == "refuse":
            raise error
        self._tally.skipped.append((name, str(error)))

    def _table(self, study: Study) -> RecordTable | None:
        settings = self._settings
        if settings.labels is None:
            require_columns(settings.variables, None)
            return None
        elsewhere = settings.comments.label is not None or (
            settings.annotations is not None and bool(settings.annotations.values)
        )
        labelled = self._labels_records(study) and not elsewhere
        table = read_table(settings.labels, study, labelled=labelled)
        require_columns(settings.variables, table)
        return table

    def _listed(self, folder: Path, table: RecordTable | None) -> list[Listed]:
        """Return the records to read, each with its row; those without a row are counted."""
        found = self._names(folder)
        if not found:
            raise DataError(
                f"data {self._settings.path} hold no {self._suffixes} file; point at the records"
            )
        ends: dict[str, list[str]] = defaultdict(list)
        for name in found:
            ends[name.rpartition("/")[2]].append(name)
        for asked in self._settings.records:
            if asked not in found and len(ends[asked]) != 1:
                raise DataError(
                    f"record {asked}: {asked}{self._suffix} is not among the data, or more than "
                    "once; correct the name"
                )
        names = [n if n in found else ends[n][0] for n in self._settings.records] or list(found)
        listed = []
        for name in names:
            row = None
            if table is not None:
                short = name.rpartition("/")[2]
                own = [short] if len(ends[short]) == 1 else []
                row = table.find(name, *own, *(f"{one}{self._suffix}" for one in (name, *own)))
                if row is None:
                    self._tally.unlabelled += 1
                    continue
            listed.append(Listed(name, found[name], row))
        return listed

    _suffix = ""

    @property
    def _suffixes(self) -> str:
        return self._suffix

    def _persons(
        self, listed: Sequence[Listed], table: RecordTable | None, study: Study
    ) -> dict[str, list[Listed]]:
        """Return the records by person, and note what tells persons apart.

        Raises:
            DataError: nothing does, and the study's unit is a patient.
        """
        groups, comment = self._settings.same_person, self._settings.comments.person
        written: list[str]
        if table is not None and table.person is not None:
            key = f"the column {table.person!r} of {table.path.name}"
            written = [one.row.person if one.row else "" for one in listed]
        elif groups is not None:
            first = {name: group[0] for group in groups for name in group}
            key = "[data] same_person, all other records of other people"
            written = [
                first.get(one.name, first.get(one.name.rpartition("/")[2], one.name))
                for one in listed
            ]
        else:
            key = f"the comment {comment!r}" if comment else self.missing
            written = [self._named(one, comment, study) for one in listed]
        if not all(written):
            require_person(
                study,
                f"{written.count('')} of {len(written)} records name no person",
                "name a table with a column of persons as [data.labels], or say with [data] "
                "same_person which records are of one person",
            )
            key = f"{key}, where there is one" if any(written) else NO_KEY
        self._tally.person_key = key
        self._tally.note(SPELLINGS, spellings(filter(None, written)))
        known = {same_person(person): person for person in reversed(written)}
        held: dict[str, list[Listed]] = defaultdict(list)
        for one, person in zip(listed, written, strict=True):
            alone = f"recording {one.name}" if same_person(one.name) in known else one.name
            held[known[same_person(person)] if person else alone].append(one)
        return held

    def _named(self, one: Listed, comment: str | None, study: Study) -> str:
        """Return whom a record's header names; empty if nobody, or if it cannot be read."""
        try:
            person, comments = self._whose(one.name, one.path)
        except DataError:
            if study.data.on_bad_file == "refuse":
                raise
            return f"unreadable {one.name}"  # counted when it is read
        if comment is None:
            return person
        return named_person(comments.get(same_person(comment), ""))

    def _prepared(self, record: Listed, study: Study) -> Prepared | None:
        """Return a record at the study's rate; None if its outcome is not known.

        Raises:
            DataError: it cannot be read, or lacks a channel or label.
        """
        recording = self._load(record.name, record.path)
        label = self._label(recording, record, study)
        settings = self._settings
        at_notes = settings.annotations is not None and bool(settings.annotations.values)
        if label is None and not at_notes and self._labels_records(study):
            self._tally.unlabelled += 1
            return None
        units = _channels(study)
        columns = [self._channel(recording, name, unit) for name, unit in units.items()]
        rate = float(study.data.rate_hz or 1.0)
        for column, _ in columns:
            if not SLOWEST_HZ <= recording.channels[column].rate_hz <= FASTEST_HZ:
                raise DataError(
                    f"record {record.name}: {record.name}{self._suffix} says a sampling rate "
                    f"outside {SLOWEST_HZ:g} to {FASTEST_HZ:g} Hz; correct it"
                )
        for one in study.data.derived.values():
            column, _ = columns[list(units).index(one.of)]
            _check_spectrum(recording, recording.channels[column], one, rate)
        size = sum(recording.channels[column].samples for column, _ in columns)
        grown = sum(
            recording.channels[c].samples * max(1.0, rate / recording.channels[c].rate_hz)
            for c, _ in columns
        )
        if not 0 < size <= grown <= MOST_SAMPLES:
            raise DataError(
                f"record {record.name}: {record.name}{self._suffix} says {size} samples in all, "
                f"and there must be 1 to {MOST_SAMPLES}, also at the study's rate_hz; correct it "
                "or split the record"
            )
        signals = [
            self._signal(recording, column, unit, factor, study)
            for (column, factor), unit in zip(columns, units.values(), strict=True)
        ]
        shortest = min(map(len, signals), default=0)
        wanted = settings.annotations is not None or not self._labels_records(study)
        own = (
            None
            if record.row is None or settings.labels is None
            else (record.row.cells.get(settings.labels.annotations or ""))
        )
        return Prepared(
            name=record.name,
            channels=tuple(units),
            signals=np.stack([signal[:shortest] for signal in signals], axis=1),
            static={name: self._value(recording, record, name, study)
                    for name in self._static_of_records(study)},
            notes=recording.notes(own) if wanted else (),
            label=label,
        )  # fmt: skip

    def _labels_records(self, study: Study) -> bool:
        """Return whether the label is a record's, and not found by its beats."""
        return study.data.label not in beats.LABELS

    def _static_of_records(self, study: Study) -> list[str]:
        """Return the static variables that stand in a table or a header, and are not computed."""
        computed = {*study.data.derived, *(beats.INTERVALS if study.data.label == "aami" else ())}
        return [name for name in static_names(study) if name not in computed]

    def _label(self, recording: Recording, record: Listed, study: Study) -> Label | None:
        comments = self._settings.comments
        if comments.label is None:
            return None if record.row is None else record.row.label
        cell = recording.comments.get(same_person(comments.label))
        if cell is None:
            return None
        try:
            label = label_of([cell], comments, study)
        except ValueError as error:
            raise DataError(
                f"record {record.name}: its comment {comments.label!r} is no number and no word of "
                "[data.comments] values; add the word"
            ) from error
        return label

    def _channel(self, recording: Recording, name: str, wanted: str) -> tuple[int, float]:
        """Return which channel has a variable, and the factor to the study's unit of it."""
        said = self._settings.variables.get(name, RecordVariable())
        names = [channel.name for channel in recording.channels]
        for asked in said.signal or (name,):
            exact = [number for number, one in enumerate(names) if one == asked]
            like = [n for n, one in enumerate(names) if same_person(one) == same_person(asked)]
            if len(found := exact or like) == 1:
                break
            if len(found) > 1:
                raise DataError(
                    f"record {recording.name}: has {len(found)} signals {asked!r}; leave the "
                    "record out or choose another signal"
                )
        else:
            raise DataError(
                f"record {recording.name}: has no signal {(said.signal or (name,))[0]!r} but "
                f"{', '.join(names)[:300]}; leave the record out or choose another signal"
            )
        unit = recording.channels[found[0]].unit
        try:
            factor = conversion(said.unit or channel_unit(unit), wanted)
        except UnitError:
            factor = None
        if factor is None or factor.offset:
            raise DataError(
                f"record {recording.name}: signal {names[found[0]]} is in {unit!r}, the study "
                f"wants {wanted!r}; correct the study's unit and range, or say [data.variables."
                f"{name}] unit"
            )
        return found[0], factor.factor

    def _signal(
        self, recording: Recording, column: int, unit: str, factor: float, study: Study
    ) -> NDArray[np.float64]:
        """Return a channel's samples at the study's rate, in its unit."""
        rate = recording.channels[column].rate_hz
        samples = recording.read(column) * factor
        if np.isinf(samples).any() or not len(samples):
            raise DataError(
                f"record {recording.name}: a sample is not finite, or there is none; repair it"
            )
        known = ~np.isnan(samples)
        if not known.any():
            length = len(resampled(np.zeros(len(samples)), rate, study))
            return np.full(length, np.nan)
        baseline = self._settings.baseline or ("median" if is_voltage(unit) else "none")
        if baseline == "median":
            samples = samples - np.median(samples[known])
        places = np.arange(len(samples))
        filled = np.interp(places, places[known], samples[known])
        try:
            signal = resampled(filtered(filled, rate, self._settings.filter), rate, study)
        except ValueError as error:
            raise DataError(
                f"record {recording.name}: cannot be filtered or resampled from {rate:g} Hz "
                f"({error}); correct [data.filter]"
            ) from error
        if not known.all():
            wanted_hz = float(study.data.rate_hz or rate)
            at = np.round(np.arange(len(signal)) * (rate / wanted_hz)).astype(np.int64)
            signal[~known[np.minimum(at, len(known) - 1)]] = np.nan
        return signal

    def _value(self, recording: Recording, record: Listed, name: str, study: Study) -> float:
        """Return a static variable's value; NaN if it is not known or no number."""
        said = self._settings.variables[name]
        if said.column is not None:
            cell = "" if record.row is None else record.row.cells.get(said.column, "")
        else:
            cell = recording.comments.get(same_person(said.comment or ""), "")
        return static_value(cell, said, name, study, self._tally, unit=said.unit)


def _channels(study: Study) -> dict[str, str]:
    """Return the unit of each channel that the study reads, by name."""
    return channel_units(study.data.derived, study.variables)


def _check_spectrum(
    recording: Recording, channel: Channel, derived: Derived, rate_hz: float
) -> None:
    """Refuse a band of frequencies that a channel cannot have.

    Raises:
        DataError: it was sampled too slowly.
    """
    if not isinstance(derived, BandPower):
        return
    highest = HIGHEST_SHARE * rate_hz if derived.relative else derived.high_hz
    if highest > HIGHEST_SHARE * channel.rate_hz * (1 + 1e-9):
        raise DataError(
            f"record {recording.name}: signal {channel.name} has {channel.rate_hz:g} samples a "
            f"second, which show nothing above {HIGHEST_SHARE * channel.rate_hz:g} Hz, and the "
            f"study reads its power up to {highest:g} Hz; leave the record out"
        )
