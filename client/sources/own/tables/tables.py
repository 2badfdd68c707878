"""A hospital's own tables, CSV or Parquet, long or wide, as described in ``site.toml``.

::

    [data]
    source = "tables"

    [data.stays]                      # one row per stay
    file = "stays.parquet"
    patient = "person"
    stay = "admission"
    start = "admitted"
    end = "discharged"
    birth = "born"
    label = "died"

    [[data.events]]                   # as many files as there are
    file = "laboratory/*.csv.gz"
    stay = "admission"
    time = "taken"
    variable = "item"
    value = "result"
    unit = "unit"

    [data.variables.Glucose]
    codes = ["GLU", "GLU-POC"]
    [data.variables.Gender]
    column = "sex"                    # of the table of stays
    values = { m = 1, f = 0 }
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from consilium.client.sources.common.reasons import (
    BAD_LINE,
    BEYOND_LIMIT,
    BLANKS,
    NO_TIME,
    SKIPPED,
    STAGE_NO_TIME,
    VAGUE_EVENT,
)
from consilium.client.sources.common.source import CountedWithoutLabels, Patient, Tally
from consilium.client.sources.own.patients.assembly import Assembler
from consilium.client.sources.own.patients.clues import normal, note_changes, note_hours
from consilium.client.sources.own.patients.event_times import event_times, time_columns, vague
from consilium.client.sources.own.patients.stay_frames import check_labels, stay_table
from consilium.client.sources.own.patients.stay_table import StayTable
from consilium.client.sources.own.patients.translation import Translation
from consilium.client.sources.own.settings.tables import (
    EventsColumns,
    MappedTables,
    StaysColumns,
    TimeColumn,
    TimeFormat,
)
from consilium.client.sources.own.settings.tables import time_columns as columns_of
from consilium.client.sources.own.tables.keys import Keys
from consilium.client.sources.own.tables.labels import label_columns, label_of, labels_of
from consilium.client.sources.own.tables.table_files import (
    Piece,
    cells,
    hours,
    identifiers,
    read_pieces,
    times,
)
from consilium.client.sources.own.times import spans
from consilium.client.sources.own.times.axis import Axis
from consilium.client.sources.own.times.clock import clock_of
from consilium.client.sources.own.times.reading import Spans, Written, births, spans_of
from consilium.client.sources.own.times.spans import US_PER_HOUR
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study

Read = Callable[[Any, Sequence[str]], Iterator[Piece]]  # by the settings of one table


class Tables(CountedWithoutLabels):
    """A hospital's tables.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
    """

    name = "tables"
    person_key = "the column of [data.stays] patient"

    def __init__(self, settings: MappedTables) -> None:
        self._settings = settings
        self._read: Read = read_pieces
        self._tally = Tally()
        self._axis = Axis(clock_of(settings.time_zone))

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every patient in the table of stays, in the order of their identifiers.

        Raises:
            DataError: a file, column or unit is missing or unusable.
            SettingsError: the settings contradict themselves.
        """
        self._tally = Tally()
        self._axis = Axis(clock_of(self._settings.time_zone))
        translation = Translation(study, self._settings, default_codes=lambda name: (name,))
        frame = self._stay_frame(study, translation)
        stays = stay_table(frame, study, self._tally, where=self._settings.stays.place)
        assembler = Assembler(study, stays, self._tally)
        if study.task.per_step and self._labelled:
            stays = self._with_step_labels(stays, study)
            assembler = Assembler(study, stays, self._tally)
        keys = Keys(stays, self._tally)
        for events in self._settings.events:
            self._read_events(events, translation, keys, assembler)
        return assembler.patients()

    def stay_column(self, column: str) -> Mapping[str, str]:
        """Return a column of the table of stays; see :class:`.WithColumns`."""
        settings, found = self._settings.stays, dict[str, str]()
        key = settings.stay or settings.patient
        for piece in self._read(settings, [key, column]):
            stays = identifiers(piece, key).cast(pl.String)
            texts = identifiers(piece, column).cast(pl.String).fill_null("").str.strip_chars()
            found.update(
                (stay, text) for stay, text in zip(stays, texts, strict=True) if stay is not None
            )
        return found

    def _stay_frame(self, study: Study, translation: Translation) -> pl.DataFrame:
        """Return one row per stay, as :mod:`..patients.stay_frames` needs it."""
        settings = self._settings.stays
        labels = label_columns(settings, study) if self._labelled else ()
        static = translation.static_columns()
        optional = (settings.stay, settings.end_hours, settings.outcome_hours)
        columns = [
            settings.patient,
            *labels,
            *(name for name in optional if name),
            *columns_of(settings.start, settings.end, settings.birth, settings.outcome_time),
            *static.values(),
        ]
        pieces = []
        for piece in self._pieces(settings, [*columns, *self._settings.where]):
            piece = self._selected(piece)
            frame = piece.frame.select(
                self._identifiers(piece, settings.patient).alias("patient"),
                self._identifiers(piece, settings.stay or settings.patient).alias("stay"),
            )
            frame = frame.with_columns(
                *self._stay_times(piece, settings),
                labels_of(piece, labels, study, settings.values).alias("label"),
            )
            for index, column in static.items():
                found = cells(piece, column, decimal_comma=settings.decimal_comma)
                value = translation.column(
                    index, found.number, found.word, self._tally, where=str(piece.path)
                )
                frame = frame.with_columns(value.alias(str(index)))
            pieces.append(frame)
        frame = pl.concat(pieces)
        if settings.repeated == "first":
            frame = _first_rows(frame, settings.place)
        if settings.outcome_time is not None:
            frame = frame.with_columns(spans.as_days("outcome"))
        written = tuple(name for name in ("start", "end") if getattr(settings, name) is not None)
        return self._axis.stays_read(frame, self._settings.midnight, self._tally, written=written)

    def _pieces(self, settings: Any, columns: Sequence[str]) -> Iterator[Piece]:
        """Read one table in pieces, and count its lines that cannot be read."""
        for piece in self._read(settings, columns):
            self._tally.count(BAD_LINE, piece.bad_lines)
            yield piece

    def _identifiers(self, piece: Piece, column: str) -> pl.Series:
        """Return a column of identifiers in their normal form, as text."""
        text = identifiers(piece, column).cast(pl.String)
        bare = normal(text)
        note_changes(text, bare, self._tally)
        return bare.set(bare.str.len_bytes() == 0, None)

    def _stay_times(self, piece: Piece, settings: StaysColumns) -> list[pl.Series]:
        found: dict[str, pl.Series] = {}
        for name, column in (
            ("start", settings.start),
            ("end", settings.end),
            ("birth", settings.birth),
            ("outcome", settings.outcome_time),
        ):
            if column is not None:
                written = times(piece, column, settings.time_format)
                if name == "birth":
                    written = births(written)
                else:
                    self._axis.check(written, f"{piece.path}: column {_shown(column)}")
                found[name] = self._spans(written).struct().alias(name)
        if "start" not in found:
            zero = pl.Series("start", [0], dtype=pl.Int64).new_from_index(0, len(piece.frame))
            found["start"] = pl.select(spans.instants(pl.lit(zero)).alias("start")).to_series()
        for name, column in (("end", settings.end_hours), ("outcome", settings.outcome_hours)):
            if column is not None:
                number = hours(
                    piece, column, settings.hours_unit, decimal_comma=settings.decimal_comma
                )
                found[name] = _since(found["start"], number).alias(name)
        lacking = [name for name in ("end", "birth", "outcome") if name not in found]
        return [
            *found.values(),
            *(pl.select(spans.missing().alias(name)).to_series().new_from_index(0, len(piece.frame))
              for name in lacking),
        ]  # fmt: skip  # one series a time

    def _spans(self, written: Written) -> Spans:
        """Return times as spans, and count those that the hospital's clock skipped."""
        found = spans_of(written, self._axis.clock)
        self._tally.decide(SKIPPED, found.skipped)
        return found

    def _selected(self, piece: Piece) -> Piece:
        """Return only the rows that ``where`` selects."""
        frame = piece.frame
        for column, value in self._settings.where.items():
            if frame[column].dtype.is_numeric() or isinstance(value, float | int):
                same = cells(piece, column).number == _as_number(column, value)
            else:
                same = frame[column].cast(pl.String) == value
            frame = frame.filter(same)
            self._tally.filtered += len(piece.frame) - len(frame)
            piece = Piece(frame, piece.path, piece.first_row)
        return piece

    def _with_step_labels(self, stays: StayTable, study: Study) -> StayTable:
        """Give every stay its label at each step, NaN where the table has none."""
        settings = self._settings.labels
        if settings is None:
            raise DataError(
                f"study {study.name} wants a label at every step; name the table that has it in "
                "[data.labels] of site.toml"
            )
        steps, step_h = -(-study.data.window_h // study.data.step_h), study.data.step_h
        label_NT = np.full((len(stays), steps), np.nan, dtype=np.float32)
        keys = Keys(stays, self._tally)
        when = columns_of(settings.hours, settings.time)
        for piece in self._pieces(settings, [settings.stay, *when, settings.label]):
            stay_E = keys.index_of(identifiers(piece, settings.stay), "stay")
            value = label_of(piece, settings.label, settings.values)
            check_labels(value, study, str(piece.path))
            if settings.hours is not None:
                number = hours(
                    piece,
                    settings.hours,
                    settings.hours_unit,
                    decimal_comma=settings.decimal_comma,
                )
                hours_E = number.fill_null(np.nan).to_numpy()
            else:
                time = self._times(piece, settings.time or "", settings.time_format).first
                hours_E = stays.hours(stay_E, time.fill_null(0).to_numpy()).astype(np.float64)
                hours_E[time.is_null().to_numpy()] = np.nan
            inside = (stay_E >= 0) & (hours_E >= 0) & (hours_E < steps * step_h)
            step_E = (hours_E[inside] / step_h).astype(np.int64)
            label_NT[stay_E[inside], step_E] = value.fill_null(np.nan).to_numpy()[inside]
        return replace(stays, label_N=label_NT)

    def _read_events(
        self, events: EventsColumns, translation: Translation, keys: Keys, assembler: Assembler
    ) -> None:
        wide = translation.wide_columns() if events.layout == "wide" else {}
        if events.variables is not None:
            wide = {c: i for c, i in wide.items() if translation.names[i] in events.variables}
        key = events.stay or events.patient or ""
        when = columns_of(events.hours, events.time)
        long = [events.variable, events.value, events.unit] if events.layout == "long" else wide
        columns = [key, *when, *(name for name in long if name)]
        for piece in self._pieces(events, columns):
            if events.layout == "long":
                piece = self._of_codes(piece, events.variable or "", translation)
            placed = self._placed(piece, events, keys)
            if events.layout == "wide":
                self._tally.count(NO_TIME, placed["time"].null_count())
                self._tally.count(VAGUE_EVENT, int(vague(placed).sum()))
                for column, variable in wide.items():
                    rows = self._column(piece, column, variable, placed, translation, events)
                    self._add(rows, events, assembler)
                continue
            found = cells(piece, events.value or "", decimal_comma=events.decimal_comma)
            self._tally.count(BEYOND_LIMIT, found.at_limit)
            empty = pl.Series([None], dtype=pl.String).new_from_index(0, len(placed))
            unit = piece.frame[events.unit] if events.unit else empty
            rows = placed.with_columns(
                piece.frame[events.variable or ""].cast(pl.String).alias("code"),
                found.number.alias("value"),
                unit.cast(pl.String).alias("unit"),
                found.word.alias("word"),
            )
            rows = self._without_vague(rows, translation)
            done = translation.translate(rows, self._tally, where=str(piece.path), when="time")
            self._add(done, events, assembler)

    def _of_codes(self, piece: Piece, column: str, translation: Translation) -> Piece:
        """Return the rows of the study's codes, the codes as text without blanks around them."""
        frame = piece.frame.with_columns(pl.col(column).cast(pl.String))
        fits = frame[column].is_in(translation.codes)
        if not fits.all():
            bare = normal(frame[column])
            changed = (bare != frame[column]) & bare.is_in(translation.codes) & ~fits
            if changed.any():
                self._tally.clue(BLANKS, int(changed.sum()))
                frame, fits = frame.with_columns(bare.alias(column)), fits | changed
        return Piece(frame.filter(fits), piece.path, piece.first_row)

    def _without_vague(self, rows: pl.DataFrame, translation: Translation) -> pl.DataFrame:
        """Set aside the rows of which the month or year alone is known."""
        roughly = vague(rows)
        if not roughly.any():
            return rows
        self._tally.count(VAGUE_EVENT, int(roughly.sum()))
        translation.ends(STAGE_NO_TIME, rows.filter(roughly)["code"], self._tally)
        return rows.filter(~roughly)

    def _column(
        self,
        piece: Piece,
        column: str,
        variable: int,
        placed: pl.DataFrame,
        translation: Translation,
        events: EventsColumns,
    ) -> pl.DataFrame:
        """Return the rows of one variable's column of a wide table."""
        found = cells(piece, column, decimal_comma=events.decimal_comma)
        self._tally.count(BEYOND_LIMIT, found.at_limit)
        value = translation.column(
            variable, found.number, found.word, self._tally, where=str(piece.path)
        )
        known = placed.with_columns(
            value.alias("value"), pl.lit(variable, pl.Int16).alias("variable")
        ).filter(pl.col("value").is_finite())
        rows = known.filter(known["time"].is_not_null() & ~vague(known))
        self._tally.ends(STAGE_NO_TIME, translation.names[variable], len(known) - len(rows))
        return rows

    def _add(self, rows: pl.DataFrame, events: EventsColumns, assembler: Assembler) -> None:
        """Pass translated rows to the assembler."""
        variable_E = rows["variable"].to_numpy()
        value_E = rows["value"].cast(pl.Float32).to_numpy()
        key_E = rows["key"].to_numpy()
        if events.hours is not None:
            assembler.add(key_E, rows["time"].to_numpy(), variable_E, value_E)
            return
        column = f"{events.place} {_shown(events.time or '')}"
        keys = {"stay_E": key_E} if events.stay is not None else {"patient_E": key_E}
        times = event_times(rows, self._axis.clock, self._settings.midnight, column)
        assembler.add_timed(times, variable_E, value_E, **keys)

    def _placed(self, piece: Piece, events: EventsColumns, keys: Keys) -> pl.DataFrame:
        """Return each row's ``key`` (index of stay or patient) and ``time``, null if unknown.

        The time is a number of hours since the stay's start, or what
        :mod:`consilium.client.sources.own.patients.event_times` says.
        """
        kind = "stay" if events.stay is not None else "patient"
        key_E = keys.index_of(identifiers(piece, events.stay or events.patient or ""), kind)
        if events.hours is not None:
            number = hours(
                piece, events.hours, events.hours_unit, decimal_comma=events.decimal_comma
            )
            hours_E = number.cast(pl.Float32).fill_nan(None).alias("time")
            end_h_E = np.where(key_E >= 0, keys.stays.end_h_N[key_E], np.nan)
            note_hours(hours_E.fill_null(np.nan).to_numpy(), end_h_E, self._tally)
            columns = [hours_E]
        else:
            when = self._times(piece, events.time or "", events.time_format)
            columns = time_columns(when, self._axis.clock, self._settings.midnight)
        return pl.DataFrame([pl.Series("key", key_E), *columns])

    def _times(self, piece: Piece, column: TimeColumn, time_format: TimeFormat) -> Spans:
        """Return times as spans; they have zones as the starts of stays have."""
        written = times(piece, column, time_format)
        self._axis.check(written, f"{piece.path}: column {_shown(column)}")
        return self._spans(written)


def _shown(column: TimeColumn) -> str:
    return " and ".join(map(repr, columns_of(column)))


def _first_rows(frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """Return the first row of each stay; refuse stays whose rows have different labels."""
    label = (
        pl.col("label").list.eval(pl.element().fill_nan(None))
        if (frame["label"].dtype == pl.List)
        else pl.col("label")
    )
    kinds = frame.select("stay", label.alias("label")).unique().filter(pl.col("stay").is_not_null())
    differing = len(kinds) - kinds["stay"].n_unique()
    if differing:
        raise DataError(
            f"{where}: rows of one stay have different labels, {differing} times; name columns "
            "that are the same in all rows of a stay, or write one row a stay"
        )
    return frame.filter(pl.col("stay").is_null() | pl.col("stay").is_first_distinct())


def _since(start: pl.Series, number: pl.Series) -> pl.Series:
    """Return instants so many hours after the starts of stays."""
    after = pl.DataFrame({"start": start, "hours": number}).select(
        time=(spans.first("start") + pl.col("hours") * US_PER_HOUR)
        .round()
        .cast(pl.Int64, strict=False)
    )
    return after.select(spans.instants(pl.col("time")).alias("span"))["span"]


def _as_number(column: str, value: float | str) -> float:
    """Return the value that ``where`` gives for a column of numbers, as a number."""
    try:
        return float(value)
    except ValueError:
        raise SettingsError(
            f"[data.where] {column} is a text in site.toml and a number in the table; correct it"
        ) from None
