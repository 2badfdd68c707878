"""MEDS datasets, the Medical Event Data Standard: a folder with ``data/**/*.parquet``.

::

    [data]
    source = "meds"
    path = "mimic-iv-meds"                      # the folder that contains 'data'
    stay_start = ["ICU_ADMISSION"]              # also stands for ICU_ADMISSION//anything
    stay_end = ["ICU_DISCHARGE"]
    unit = "unit"                               # if the dataset has such a column

    [data.variables.HR]
    codes = ["LAB//220045//bpm"]                # default: LOINC//8867-4
    unit = "/min"

A row has a subject, time, code, number and text; a row without a time holds for the subject's whole
life. A stay runs from one code to another; or each row of a MEDS label table is a sample that ends
at its prediction time. Arnrich et al., "Medical Event Data Standard (MEDS): Facilitating Machine
Learning for Health", ICLR 2024 workshop on learning from time series for health.
"""

from collections.abc import Iterator
from functools import reduce
from operator import or_
from pathlib import Path

import polars as pl

from consilium.client.sources.common.reasons import SKIPPED
from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.client.sources.own.meds.meds_schema import (
    BIRTH,
    BROKEN,
    DATA,
    DEATH,
    LABELS,
    SPLITS_FILE,
    check_columns,
    check_version,
)
from consilium.client.sources.own.patients.event_frames import (
    SCHEMA,
    EventRows,
    microseconds,
    static_frame,
    translation_of,
    with_static_codes,
)
from consilium.client.sources.own.patients.event_times import time_columns
from consilium.client.sources.own.patients.outcomes import with_outcome
from consilium.client.sources.own.patients.translation import Translation
from consilium.client.sources.own.settings.systems import MedsSettings
from consilium.client.sources.own.times.axis import Axis
from consilium.client.sources.own.times.clock import Clock, clock_of
from consilium.client.sources.own.times.reading import Spans, Written, spans_of
from consilium.client.sources.own.times.spans import US_PER_HOUR
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

MALE, FEMALE = "GENDER//M", "GENDER//F"
PIECE_ROWS = 250_000


class Meds(Counted):
    """A MEDS dataset.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
    """

    name = "meds"
    person_key = "subject_id"

    def __init__(self, settings: MedsSettings) -> None:
        self._settings = settings
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every subject who has a stay (or a label), in the order of their identifiers.

        Raises:
            DataError: the folder is no MEDS dataset, or does not fit the study.
            SettingsError: the settings contradict themselves.
        """
        self._tally = Tally()
        settings = self._settings
        translation = translation_of(
            study, settings, lambda known: known.loinc and f"LOINC//{known.loinc}"
        )
        shards = self._shards()
        dated, timeless = self._dated(shards, translation)
        clock = clock_of(settings.time_zone)
        people = _with_spans(_people(dated), clock, "birth", "death")
        if settings.labels is not None:
            frame = _labelled(settings.labels, study, clock)
        else:
            frame = self._stays(dated, people, study)
        frame = static_frame(self._in_split(frame), people, study)
        stays = with_static_codes(frame, timeless)
        rows = EventRows(
            translation,
            stays,
            study,
            self._tally,
            where=str(settings.path),
            if_none=self._if_none(),
            clock=clock,
        )
        return rows.patients_with(self._events(shards, translation, clock))

    def _events(
        self, shards: list[Path], translation: Translation, clock: Clock
    ) -> Iterator[tuple[pl.DataFrame, str, str]]:
        """Yield the rows with a time of the study's codes, with their file and column of times."""
        wanted = _known(translation) & pl.col("time").is_not_null()
        for shard in shards:
            for piece in self._rows(shard, wanted):
                found = spans_of(Written(local=piece["time"]), clock)
                self._tally.decide(SKIPPED, found.skipped)
                timed = piece.with_columns(time_columns(found, clock, self._settings.midnight))
                yield timed, str(shard), "time"

    def _if_none(self) -> str:
        if self._settings.labels is not None:
            return "the table of labels has no row; check [data] labels"
        codes = ", ".join(self._settings.stay_start)
        return f"no event has a code that begins one ({codes}); correct [data] stay_start"

    def _shards(self) -> list[Path]:
        """Return the data files, each checked against the schema."""
        folder = self._settings.path / DATA
        shards = sorted(folder.rglob("*.parquet"))
        if not shards:
            raise DataError(
                f"{folder} holds no .parquet file; point [data] path at the folder of a MEDS "
                "dataset, which has the folder 'data'"
            )
        check_version(self._settings.path)
        unit = self._settings.unit
        for shard in shards:
            if unit is not None and unit not in check_columns(shard, "data"):
                raise DataError(f"{shard} has no column {unit!r}; correct [data] unit in site.toml")
            check_columns(shard, "data")
        return shards

    def _dated(
        self, shards: list[Path], translation: Translation
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return what has to be known before events are read.

        Returns:
            The rows that make stays and people (starts, ends, birth, death, sex, outcomes), and the
            values of rows without a time, in the study's units.
        """
        settings = self._settings
        codes = (DEATH, *settings.stay_start, *settings.stay_end)
        wanted = pl.col("code").cast(pl.String).is_in((BIRTH, MALE, FEMALE))
        wanted |= _any((*codes, *map(str, settings.outcome.codes)))
        timeless = pl.col("time").is_null()
        dated, values = [], []
        for shard in shards:
            for rows in self._rows(shard, wanted | timeless):
                piece = rows.with_columns(pl.col("patient").cast(pl.String))
                dated.append(piece.filter(wanted).select("patient", "time", "code"))
                piece = piece.filter(timeless & _known(translation))
                done = translation.translate(piece, self._tally, where=str(shard), when=None)
                values.append(done.select("patient", "variable", "value"))
        return pl.concat(dated), pl.concat(values)

    def _in_split(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return only the subjects of the split asked for."""
        if self._settings.split is None:
            return frame
        path = self._settings.path / SPLITS_FILE
        check_columns(path, "subject splits")
        chosen = pl.concat(
            _pieces(
                path,
                pl.col("split").cast(pl.String) == self._settings.split,
                [pl.col("subject_id").cast(pl.String).alias("patient")],
            )
        )
        if chosen.is_empty():
            raise DataError(
                f"{path} has no subject in split {self._settings.split!r}; correct [data] split"
            )
        kept = frame.join(chosen.unique(), on="patient", how="semi", maintain_order="left")
        self._tally.filtered += len(frame) - len(kept)
        return kept

    def _stays(self, dated: pl.DataFrame, people: pl.DataFrame, study: Study) -> pl.DataFrame:
        """Return one row per stay: from a code that begins one to the next that ends one."""
        settings = self._settings
        starts = dated.filter(_any(settings.stay_start)).select(
            "patient", pl.col("time").alias("start")
        )
        starts = starts.drop_nulls().unique().sort("patient", "start")
        ends = dated.filter(_any(settings.stay_end)).select("patient", pl.col("time").alias("end"))
        ends = ends.drop_nulls().sort("end")
        row, patient = pl.int_range(pl.len()), pl.col("patient")
        first = pl.when(patient.ne_missing(patient.shift(1))).then(row).forward_fill()
        stays = starts.with_columns(
            (patient + "-" + (row - first).cast(pl.String)).alias("stay"),
            pl.when(patient == patient.shift(-1)).then(pl.col("start").shift(-1)).alias("next"),
        )
        stays = stays.sort("start").join_asof(
            ends,
            left_on="start",
            right_on="end",
            by="patient",
            strategy="forward",
            coalesce=False,
            check_sortedness=False,  # cannot be checked by groups; both are sorted just above
        )
        end = pl.when(pl.col("next").is_null() | (pl.col("end") <= pl.col("next")))
        stays = stays.with_columns(end.then(pl.col("end")).alias("end")).drop("next")
        axis = Axis(clock_of(settings.time_zone))
        stays = _with_spans(stays, axis.clock, "start", "end")
        stays = axis.stays_read(stays, settings.midnight, self._tally)
        conditions = dated.filter(_any(tuple(map(str, settings.outcome.codes))))
        conditions = conditions.select("patient", "time").drop_nulls()
        deaths = people.select("patient", pl.col("death").alias("time"))
        return with_outcome(
            stays,
            settings.outcome,
            study,
            self._tally,
            deaths=deaths.filter(pl.col("time").is_not_null()),
            conditions=_with_spans(conditions, axis.clock, "time"),
        )

    def _rows(self, shard: Path, keep: pl.Expr) -> Iterator[pl.DataFrame]:
        """Yield rows of a shard as ``event_frames`` has them, the patients as numbers."""
        there = check_columns(shard, "data")
        brought = {"value": "numeric_value", "unit": self._settings.unit, "word": "text_value"}
        columns = [
            pl.col("subject_id").alias("patient"),
            microseconds("time"),
            pl.col("code").cast(pl.String),
            *(
                (pl.col(column) if column in there else pl.lit(None)).cast(SCHEMA[name]).alias(name)
                for name, column in brought.items()
            ),
        ]
        yield from _pieces(shard, keep, columns)


def _known(translation: Translation) -> pl.Expr:
    """Match the codes of the study's variables."""
    return pl.col("code").cast(pl.String).is_in(translation.codes)


def _pieces(path: Path, keep: pl.Expr, columns: list[pl.Expr]) -> Iterator[pl.DataFrame]:
    """Yield some rows and columns of a Parquet file in pieces, at least one, maybe empty.

    Raises:
        DataError: the file cannot be read to its end.
    """
    rows = pl.scan_parquet(path, glob=False).filter(keep).select(columns)
    try:
        yield pl.DataFrame(schema=rows.collect_schema())
        yield from rows.collect_batches(chunk_size=PIECE_ROWS, maintain_order=True)
    except BROKEN as error:
        raise DataError(f"{path} is damaged or cut short; write the dataset again") from error


def _any(codes: tuple[str, ...]) -> pl.Expr:
    """Match these codes and, as MEDS appends details, ``CODE//detail``."""
    text = pl.col("code").cast(pl.String)
    return reduce(
        or_,
        (text.str.starts_with(f"{code}//") for code in codes),
        text.is_in(codes),
    )


def _people(dated: pl.DataFrame) -> pl.DataFrame:
    """Return birth, death and sex of every subject."""
    code, time = pl.col("code"), pl.col("time")
    male, female = (code == MALE).any(), (code == FEMALE).any()
    return dated.group_by("patient").agg(
        time.filter(code == BIRTH).min().alias("birth"),
        time.filter(_any((DEATH,))).min().alias("death"),
        pl.when(male & ~female).then(1.0).when(female & ~male).then(0.0).alias("male"),
    )


def _with_spans(frame: pl.DataFrame, clock: Clock, *names: str) -> pl.DataFrame:
    """Replace columns of microseconds since 1970 by the hospital's clock by spans."""
    return frame.with_columns(
        spans_of(Written(local=frame[name]), clock).struct().alias(name) for name in names
    )


def _labelled(path: Path, study: Study, clock: Clock) -> pl.DataFrame:
    """Return one sample per label: the window's hours up to its prediction time."""
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .parquet file; correct [data] labels in site.toml")
    parts: list[pl.DataFrame] = []
    for file in files:
        there = check_columns(file, "labels")
        columns = [
            pl.col("subject_id").cast(pl.String).alias("patient"),
            microseconds("prediction_time").alias("end"),
            *(
                (pl.col(name) if name in there else pl.lit(None)).cast(pl.Float64).alias(name)
                for name in LABELS
            ),
        ]
        parts.extend(_pieces(file, pl.lit(value=True), columns))
    labels: pl.DataFrame = pl.concat(parts).sort("patient", "end", maintain_order=True)
    used = [name for name in LABELS if labels[name].count()]
    if len(used) != 1:
        raise DataError(
            f"{path} has {len(used)} kinds of labels ({', '.join(LABELS)}) with values; keep one"
        )
    number = pl.int_range(pl.len()).over("patient").cast(pl.String)
    end = clock.utc(labels["end"])
    start = end - study.data.window_h * US_PER_HOUR
    return labels.with_columns(
        (pl.col("patient") + "-" + number).alias("stay"),
        _at(end, clock).alias("end"),
        _at(start, clock).alias("start"),
        pl.col(used[0]).alias("label"),
    )


def _at(utc: pl.Series, clock: Clock) -> pl.Series:
    return Spans(first=utc, until=utc, local=clock.local(utc)).struct()
