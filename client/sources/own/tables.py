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

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from consilium.client.sources.common.reasons import (
    BAD_LINE,
    BEYOND_LIMIT,
    BLANKS,
    NO_TIME,
    STAGE_NO_TIME,
)
from consilium.client.sources.common.source import CountedWithoutLabels, Patient, Tally
from consilium.client.sources.own.assembly import Assembler, StayTable
from consilium.client.sources.own.clues import normal, note_changes, note_hours
from consilium.client.sources.own.settings import EventsFile, StaysFile, TablesSettings
from consilium.client.sources.own.stay_frames import check_labels, stay_table
from consilium.client.sources.own.table_files import (
    Piece,
    identifiers,
    numbers,
    read_pieces,
    times,
    words,
)
from consilium.client.sources.own.translation import Translation
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study

# Words of languages in which nothing else is meant; others are for [data.stays] values.
_TRUE_FALSE = {
    **dict.fromkeys(("true", "t", "yes", "y", "ja", "j", "oui", "vrai", "wahr", "sí", "sì"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n", "nein", "non", "faux", "falsch", "nee", "nej"), 0.0),
}


class Tables(CountedWithoutLabels):
    """A hospital's tables.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
    """

    name = "tables"

    def __init__(self, settings: TablesSettings) -> None:
        self._settings = settings
        self._tally = Tally()
        self._zoned = False

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every patient in the table of stays, in the order of their identifiers.

        Raises:
            DataError: a file, column or unit is missing or unusable.
            SettingsError: the settings contradict themselves.
        """
        self._tally = Tally()
        translation = Translation(study, self._settings, default_codes=lambda name: (name,))
        frame = self._stay_frame(study, translation)
        stays = stay_table(frame, study, self._tally, where=str(self._settings.stays.file))
        assembler = Assembler(study, stays, self._tally)
        if study.task.per_step and self._labelled:
            stays = self._with_step_labels(stays, study)
            assembler = Assembler(study, stays, self._tally)
        keys = _Keys(stays, self._tally)
        for events in self._settings.events:
            self._read_events(events, translation, keys, assembler)
        return assembler.patients()

    def _stay_frame(self, study: Study, translation: Translation) -> pl.DataFrame:
        """Return one row per stay, as :mod:`consilium.client.sources.own.stay_frames` needs it."""
        settings = self._settings.stays
        labels = _label_columns(settings, study) if self._labelled else ()
        static = translation.static_columns()
        optional = (
            settings.stay,
            settings.start,
            settings.end,
            settings.birth,
            settings.outcome_time,
        )
        columns = [
            settings.patient,
            *labels,
            *(name for name in optional if name),
            *static.values(),
        ]
        pieces = []
        for piece in read_pieces(settings, [*columns, *self._settings.where]):
            self._tally.count(BAD_LINE, piece.bad_lines)
            piece = self._selected(piece)
            frame = piece.frame.select(
                self._identifiers(piece, settings.patient).alias("patient"),
                self._identifiers(piece, settings.stay or settings.patient).alias("stay"),
            )
            frame = frame.with_columns(
                *self._stay_times(piece, settings),
                _labels(piece, labels, study, settings.values).alias("label"),
            )
            pieces.append(
                frame.with_columns(
                    translation.column(
                        index,
                        numbers(piece, column, decimal_comma=settings.decimal_comma)[0],
                        words(piece, column),
                        self._tally,
                        where=str(piece.path),
                    ).alias(str(index))
                    for index, column in static.items()
                )
            )
        return pl.concat(pieces)

    def _identifiers(self, piece: Piece, column: str) -> pl.Series:
        """Return a column of identifiers in their normal form, as text."""
        text = identifiers(piece, column).cast(pl.String)
        bare = normal(text)
        note_changes(text, bare, self._tally)
        return bare.set(bare.str.len_bytes() == 0, None)

    def _stay_times(self, piece: Piece, settings: StaysFile) -> list[pl.Series]:
        found = []
        for name, column in (
            ("start", settings.start),
            ("end", settings.end),
            ("birth", settings.birth),
            ("outcome", settings.outcome_time),
        ):
            if column is None:
                empty = pl.Series([0 if name == "start" else None], dtype=pl.Int64)
                found.append(empty.new_from_index(0, len(piece.frame)).alias(name))
                continue
            series, zoned = times(piece, column, settings.time_format)
            if name == "start":
                self._zoned = zoned
            found.append(series.alias(name))
        return found

    def _selected(self, piece: Piece) -> Piece:
        """Return only the rows that ``where`` selects."""
        frame = piece.frame
        for column, value in self._settings.where.items():
            if frame[column].dtype.is_numeric() or isinstance(value, float | int):
                same = numbers(piece, column)[0] == _as_number(column, value)
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
        when = settings.hours or settings.time or ""
        keys = _Keys(stays, self._tally)
        for piece in read_pieces(settings, [settings.stay, when, settings.label]):
            self._tally.count(BAD_LINE, piece.bad_lines)
            stay_E = keys.index_of(identifiers(piece, settings.stay), "stay")
            value = _label(piece, settings.label, settings.values)
            check_labels(value, study, str(piece.path))
            if settings.hours is not None:
                hours = numbers(piece, settings.hours, decimal_comma=settings.decimal_comma)[0]
                hours_E = hours.fill_null(np.nan).to_numpy()
            else:
                time = times(piece, when, settings.time_format)[0]
                hours_E = stays.hours(stay_E, time.fill_null(0).to_numpy()).astype(np.float64)
                hours_E[time.is_null().to_numpy()] = np.nan
            inside = (stay_E >= 0) & (hours_E >= 0) & (hours_E < steps * step_h)
            step_E = (hours_E[inside] / step_h).astype(np.int64)
            label_NT[stay_E[inside], step_E] = value.fill_null(np.nan).to_numpy()[inside]
        return replace(stays, label_N=label_NT)

    def _read_events(
        self, events: EventsFile, translation: Translation, keys: "_Keys", assembler: Assembler
    ) -> None:
        wide = translation.wide_columns() if events.layout == "wide" else {}
        key, when = events.stay or events.patient or "", events.hours or events.time or ""
        long = [events.variable, events.value, events.unit] if events.layout == "long" else wide
        columns = [key, when, *(name for name in long if name)]
        for piece in read_pieces(events, columns):
            self._tally.count(BAD_LINE, piece.bad_lines)
            if events.layout == "long":
                piece = self._of_codes(piece, events.variable or "", translation)
            placed = self._placed(piece, events, keys)
            if events.layout == "wide":
                self._tally.count(NO_TIME, placed["hours"].null_count())
                for column, variable in wide.items():
                    self._add_column(piece, column, variable, placed, translation, assembler)
                continue
            value, at_limit = numbers(piece, events.value or "", decimal_comma=events.decimal_comma)
            self._tally.count(BEYOND_LIMIT, at_limit)
            empty = pl.Series([None], dtype=pl.String)
            unit = piece.frame[events.unit] if events.unit else empty.new_from_index(0, len(value))
            rows = placed.with_columns(
                piece.frame[events.variable or ""].cast(pl.String).alias("code"),
                value.alias("value"),
                unit.cast(pl.String).alias("unit"),
                words(piece, events.value or "").alias("word"),
            )
            done = translation.translate(rows, self._tally, where=str(piece.path), when="hours")
            assembler.add(
                done["stay"].to_numpy(),
                done["hours"].to_numpy(),
                done["variable"].to_numpy(),
                done["value"].cast(pl.Float32).to_numpy(),
            )

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

    def _add_column(
        self,
        piece: Piece,
        column: str,
        variable: int,
        placed: pl.DataFrame,
        translation: Translation,
        assembler: Assembler,
    ) -> None:
        """Pass one variable's column of a wide table to the assembler."""
        number, at_limit = numbers(piece, column)
        self._tally.count(BEYOND_LIMIT, at_limit)
        word = words(piece, column)
        value = translation.column(variable, number, word, self._tally, where=str(piece.path))
        found = placed.with_columns(value.alias("value")).filter(pl.col("value").is_finite())
        rows = found.filter(pl.col("hours").is_not_null())
        self._tally.ends(STAGE_NO_TIME, translation.names[variable], len(found) - len(rows))
        assembler.add(
            rows["stay"].to_numpy(),
            rows["hours"].to_numpy(),
            np.full(len(rows), variable, dtype=np.int16),
            rows["value"].cast(pl.Float32).to_numpy(),
        )

    def _placed(self, piece: Piece, events: EventsFile, keys: "_Keys") -> pl.DataFrame:
        """Return each row's stay (-1: none) and hours since its start (null: no time)."""
        stays = keys.stays
        if events.hours is not None:
            stay_E = keys.index_of(identifiers(piece, events.stay or ""), "stay")
            hours = numbers(piece, events.hours, decimal_comma=events.decimal_comma)[0]
            hours = hours.cast(pl.Float32).fill_nan(None)
            end_h_E = np.where(stay_E >= 0, stays.end_h_N[stay_E], np.nan)
            note_hours(hours.fill_null(np.nan).to_numpy(), end_h_E, self._tally)
        else:
            time, zoned = times(piece, events.time or "", events.time_format)
            if zoned != self._zoned and len(time) > time.null_count():
                raise DataError(
                    f"{piece.path}: column {events.time!r} and the start of stays do not both "
                    "have a time zone; write both with, or both without"
                )
            time_E = time.fill_null(0).to_numpy()
            if events.stay is not None:
                stay_E = keys.index_of(identifiers(piece, events.stay), "stay")
                hours_E = stays.hours(stay_E, time_E)
            else:
                patient_E = keys.index_of(identifiers(piece, events.patient or ""), "patient")
                stay_E, hours_E = stays.place(patient_E, time_E)
            known = pl.Series(time.is_not_null())
            hours = pl.select(pl.when(known).then(pl.Series(hours_E))).to_series()
        return pl.DataFrame({"stay": stay_E, "hours": hours})


def _as_number(column: str, value: float | str) -> float:
    """Return the value that ``where`` gives for a column of numbers, as a number."""
    try:
        return float(value)
    except ValueError:
        raise SettingsError(
            f"[data.where] {column} is a text in site.toml and a number in the table; correct it"
        ) from None


class _Keys:
    """Finds stays and patients by their identifiers in other tables."""

    def __init__(self, stays: StayTable, tally: Tally) -> None:
        self.stays, self._tally = stays, tally
        self._of = {"stay": stays.stay_ids, "patient": stays.patient_ids}
        self._tables: dict[tuple[str, pl.DataType], pl.DataFrame] = {}

    def index_of(
        self, series: pl.Series, kind: str
    ) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
        """Return the index of each identifier, -1 if it is not in the cohort.

        Whole numbers are compared as numbers, so the types need not agree between files; texts that
        fit no identifier, in their normal form.
        """
        dtype = series.dtype if series.dtype.is_integer() else pl.String()
        if (kind, dtype) not in self._tables:
            ids = pl.Series(self._of[kind], dtype=pl.String).cast(dtype, strict=False)
            index = pl.Series(range(len(ids)), dtype=pl.Int32)
            table = pl.DataFrame({"key": ids, "index": index}).drop_nulls()
            self._tables[kind, dtype] = table
        frame = pl.DataFrame({"key": series.cast(dtype)})
        joined = frame.join(self._tables[kind, dtype], on="key", how="left", maintain_order="left")
        if dtype == pl.String and joined["index"].null_count():
            joined = self._in_normal_form(joined, self._tables[kind, dtype])
        return joined["index"].fill_null(-1).to_numpy()

    def _in_normal_form(self, joined: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
        """Find the identifiers that fit in their normal form alone, and say so."""
        missing = joined.filter(pl.col("index").is_null())["key"].unique().drop_nulls()
        bare = normal(missing)
        other = pl.DataFrame({"key": missing, "bare": bare}).filter(missing != bare)
        found = other.join(table.rename({"key": "bare", "index": "found"}), on="bare")
        if found.is_empty():
            return joined
        rows = joined.join(found, on="key", how="left", maintain_order="left")
        used = rows.filter(pl.col("found").is_not_null())
        note_changes(used["key"], used["bare"], self._tally)
        return rows.select("key", pl.coalesce("index", "found").alias("index"))


def _label_columns(settings: StaysFile, study: Study) -> tuple[str, ...]:
    """Return the columns of the study's label, none in a per-step study."""
    if study.task.per_step:
        return ()
    columns = settings.label if settings.label is not None else study.data.label
    columns = (columns,) if isinstance(columns, str) else columns
    wanted = study.task.outputs if study.task.kind in ("multilabel", "regression") else 1
    if len(columns) != wanted:
        raise DataError(
            f"study {study.name} has {wanted} labels, [data.stays] label names {len(columns)}; "
            "name as many columns"
        )
    return columns


def _labels(
    piece: Piece, columns: tuple[str, ...], study: Study, values: Mapping[str, float]
) -> pl.Series:
    """Return the labels as numbers, as a list if the study has several; all 0 without columns."""
    if not columns:
        return pl.Series([0.0]).new_from_index(0, len(piece.frame))
    found = [_label(piece, column, values).alias(column) for column in columns]
    if len(found) == 1 and study.task.kind != "multilabel":
        return found[0]
    return pl.DataFrame(found).select(pl.concat_list(pl.all())).to_series()


def _label(piece: Piece, column: str, values: Mapping[str, float]) -> pl.Series:
    """Return a column's labels as numbers, null if a cell is empty.

    Words are those of ``values``, in the hospital's spelling or any case, or else yes and no.
    """
    number, at_limit = numbers(piece, column)
    text = words(piece, column)
    if at_limit:
        raise DataError(
            f"{piece.path}: {at_limit} labels {column!r} are a limit such as '<1'; write numbers, "
            "and nothing where it is not known"
        )
    known = _TRUE_FALSE | {word.strip().lower(): float(value) for word, value in values.items()}
    folded = piece.frame[column].cast(pl.String).str.strip_chars().str.to_lowercase()
    meant = folded.replace_strict(known, default=None, return_dtype=pl.Float64)
    number = meant.fill_null(number)  # a code such as 2 may be given a meaning, too
    fault = (number.is_null() & text.is_not_null()).arg_true()
    if len(fault):
        raise DataError(
            f"{piece.where(fault[0])}: the label {column!r} is no number; say what its words "
            "mean in site.toml, such as values = { ja = 1, nein = 0 } beside label"
        )
    return number
