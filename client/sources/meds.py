"""MEDS datasets, the Medical Event Data Standard, in the schema of its reference package ``meds``.

A dataset is a folder with ``data/**/*.parquet``: subject, time, code, number, text. A stay runs from
one code to another; or each row of a MEDS label table is a sample that ends at its prediction time.
Arnrich et al., "Medical Event Data Standard (MEDS): Facilitating Machine Learning for Health", 2024.
"""

import json
from collections.abc import Iterator
from functools import reduce
from operator import or_
from pathlib import Path

import meds
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from flexible_schema.exceptions import SchemaValidationError

from client.data_settings import FileSettings, MedsSettings
from client.sources import Patient, ReadReport, Tally
from client.sources.assembly import US_PER_HOUR, Assembler
from client.sources.event_frames import EventRows, known_codes, microseconds, static_frame
from client.sources.outcomes import with_outcome
from client.sources.stay_frames import stay_table
from client.sources.table_files import read_pieces
from client.sources.translation import Translation
from shared.errors import DataError
from shared.study import Study

MALE, FEMALE = "GENDER//M", "GENDER//F"
_LABELS = ("boolean_value", "integer_value", "float_value")


class Meds:
    """A MEDS dataset.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
    """

    name = "meds"

    def __init__(self, settings: MedsSettings) -> None:
        self._settings = settings
        self._tally = Tally()

    @property
    def report(self) -> ReadReport:
        """Counts of the latest reading."""
        return self._tally.report()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every subject that has a stay (or a label), in the order of their identifiers.

        Raises:
            DataError: the folder is no MEDS dataset, or does not fit the study.
            SettingsError: the settings contradict themselves.
        """
        self._tally = Tally()
        shards = self._shards()
        names = list(study.variables)
        translation = Translation(
            study,
            self._settings,
            default_codes=lambda name: known_codes(name, lambda loinc, _: (f"LOINC//{loinc}",)),
        )
        landmarks = self._dated(shards)
        people = _people(landmarks)
        if self._settings.labels is not None:
            frame = _labelled(self._settings.labels, study)
        else:
            frame = self._stays(landmarks, people, study)
        taken = {translation.variable_of[code] for code in translation.codes}
        frame = static_frame(frame, people, names, taken=taken)
        frame = self._with_static_codes(frame, shards, translation)
        stays = stay_table(frame, study, self._tally, where=str(self._settings.path))
        assembler = Assembler(study, stays, self._tally)
        reach_h = float(study.reads_h) if self._settings.labels is not None else None
        rows = EventRows(translation, stays, assembler, reach_h=reach_h)
        for shard in shards:
            for frame in self._events(shard, translation):
                rows.add(frame.filter(pl.col("time").is_not_null()), where=str(shard))
        return assembler.patients()

    def _shards(self) -> list[Path]:
        """The data files, each checked against the schema."""
        folder = self._settings.path / meds.data_subdirectory
        shards = sorted(folder.rglob("*.parquet"))
        if not shards:
            raise DataError(
                f"{folder} holds no .parquet file; point [data] path at the folder of a MEDS "
                "dataset, which has the folder 'data'"
            )
        for shard in shards:
            _check_schema(shard, meds.DataSchema)
        metadata = self._settings.path / meds.dataset_metadata_filepath
        if metadata.is_file():
            try:
                meds.DatasetMetadataSchema.validate(json.loads(metadata.read_text("utf-8")))
            except (OSError, ValueError, SchemaValidationError) as error:
                raise DataError(f"{metadata} is not MEDS metadata; write it again") from error
        return shards

    def _dated(self, shards: list[Path]) -> pl.DataFrame:
        """The rows that make stays and people: admissions, discharges, births, deaths, sex."""
        said = self._settings
        wanted = [meds.birth_code, meds.death_code, MALE, FEMALE]
        patterns = [*wanted, *said.stay_start, *said.stay_end, *map(str, said.outcome.codes)]
        matches = reduce(or_, (_is(code) for code in patterns))
        parts = []
        for shard in shards:
            scan = pl.scan_parquet(shard).select("subject_id", "time", "code").filter(matches)
            try:
                parts.append(scan.collect(engine="streaming"))
            except pl.exceptions.PolarsError as error:
                raise DataError(f"{shard} is damaged or cut short; write it again") from error
        frame = pl.concat(parts, how="vertical_relaxed").select(
            pl.col("subject_id").cast(pl.String).alias("patient"),
            microseconds("time"),
            pl.col("code").cast(pl.String),
        )
        return self._in_split(frame)

    def _in_split(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Only the subjects of the split that is asked for."""
        if self._settings.split is None:
            return frame
        path = self._settings.path / meds.subject_splits_filepath
        _check_schema(path, meds.SubjectSplitSchema)
        chosen = pl.read_parquet(path).filter(pl.col("split") == self._settings.split)
        if chosen.is_empty():
            raise DataError(
                f"{path} has no subject in split {self._settings.split!r}; correct [data] split"
            )
        return frame.filter(pl.col("patient").is_in(chosen["subject_id"].cast(pl.String).implode()))

    def _stays(self, dated: pl.DataFrame, people: pl.DataFrame, study: Study) -> pl.DataFrame:
        """One row a stay: from a code that begins one to the next that ends one."""
        said = self._settings
        starts = dated.filter(_any(said.stay_start)).select(
            "patient", pl.col("time").alias("start")
        )
        starts = starts.drop_nulls().unique().sort("patient", "start")
        ends = dated.filter(_any(said.stay_end)).select("patient", pl.col("time").alias("end"))
        ends = ends.drop_nulls().sort("end")
        number = pl.int_range(pl.len()).over("patient").cast(pl.String)
        stays = starts.with_columns(
            (pl.col("patient") + "-" + number).alias("stay"),
            pl.col("start").shift(-1).over("patient").alias("next"),
        )
        stays = stays.sort("start").join_asof(
            ends, left_on="start", right_on="end", by="patient", strategy="forward", coalesce=False
        )
        end = pl.when(pl.col("next").is_null() | (pl.col("end") <= pl.col("next")))
        stays = stays.with_columns(end.then(pl.col("end")).alias("end")).drop("next")
        deaths = people.select("patient", pl.col("death").alias("time")).drop_nulls()
        conditions = dated.filter(_any(tuple(map(str, said.outcome.codes))))
        return with_outcome(
            stays,
            said.outcome,
            study,
            deaths=deaths,
            conditions=conditions.select("patient", "time"),
        )

    def _with_static_codes(
        self, frame: pl.DataFrame, shards: list[Path], translation: Translation
    ) -> pl.DataFrame:
        """Values of codes without a time, as static columns of all of the subject's stays."""
        parts = []
        for shard in shards:
            for piece in self._events(shard, translation):
                timeless = piece.filter(pl.col("time").is_null())
                if len(timeless):
                    count = self._tally.set_aside
                    done = translation.translate(
                        timeless,
                        lambda why, number: count.update({why: count.get(why, 0) + number}),
                        where=str(shard),
                    )
                    parts.append(done.select("patient", "variable", "value"))
        if not parts:
            return frame
        values = pl.concat(parts).unique(["patient", "variable"], keep="first", maintain_order=True)
        for (index,), column in values.group_by(["variable"], maintain_order=True):
            name = str(index)
            column = column.select("patient", pl.col("value").alias(name))
            if name in frame.columns:
                frame = frame.drop(name)
            frame = frame.join(column, on="patient", how="left", maintain_order="left")
        return frame

    def _events(self, shard: Path, translation: Translation) -> Iterator[pl.DataFrame]:
        """A shard's rows of the study's codes, as :mod:`client.sources.event_frames` wants them."""
        there = pl.read_parquet_schema(shard)
        unit = self._settings.unit
        if unit is not None and unit not in there:
            raise DataError(f"{shard} has no column {unit!r}; correct [data] unit in site.toml")
        optional = [name for name in ("numeric_value", "text_value", unit) if name in there]
        columns = ["subject_id", "time", "code", *(name for name in optional if name)]
        for piece in read_pieces(FileSettings(file=shard), columns):
            frame = piece.frame.filter(pl.col("code").cast(pl.String).is_in(translation.codes))
            yield frame.select(
                pl.col("subject_id").cast(pl.String).alias("patient"),
                microseconds("time"),
                pl.col("code").cast(pl.String),
                _or_null(frame, "numeric_value", pl.Float64).alias("value"),
                _or_null(frame, unit, pl.String).alias("unit"),
                _or_null(frame, "text_value", pl.String).alias("word"),
            )


def _or_null(frame: pl.DataFrame, column: str | None, dtype: type[pl.DataType]) -> pl.Expr:
    if column is None or column not in frame.columns:
        return pl.lit(None, dtype=dtype)
    return pl.col(column).cast(dtype)


def _is(code: str) -> pl.Expr:
    """A code itself, or one below it in MEDS's habit of ``CODE//detail``."""
    text = pl.col("code").cast(pl.String)
    return (text == code) | text.str.starts_with(f"{code}//")


def _any(codes: tuple[str, ...]) -> pl.Expr:
    return reduce(or_, (_is(code) for code in codes), pl.lit(value=False))


def _people(dated: pl.DataFrame) -> pl.DataFrame:
    """Birth, death and sex of every subject."""
    code, time = pl.col("code"), pl.col("time")
    return dated.group_by("patient").agg(
        time.filter(code == meds.birth_code).min().alias("birth"),
        time.filter(code == meds.death_code).min().alias("death"),
        pl.when((code == MALE).any())
        .then(1.0)
        .otherwise(pl.when((code == FEMALE).any()).then(0.0))
        .alias("male"),
    )


def _labelled(path: Path, study: Study) -> pl.DataFrame:
    """One sample for each label: the window's hours up to its prediction time."""
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .parquet file; correct [data] labels in site.toml")
    parts = []
    for file in files:
        _check_schema(file, meds.LabelSchema)
        frame = pl.read_parquet(file)
        values = [name for name in _LABELS if name in frame.columns]
        if len(values) != 1:
            raise DataError(
                f"{file} has {len(values)} columns of boolean, integer or float labels; keep one"
            )
        parts.append(
            frame.select(
                pl.col("subject_id").cast(pl.String).alias("patient"),
                microseconds("prediction_time").alias("end"),
                pl.col(values[0]).cast(pl.Float64).alias("label"),
            )
        )
    labels = pl.concat(parts).sort("patient", "end")
    number = pl.int_range(pl.len()).over("patient").cast(pl.String)
    start = pl.col("end") - study.reads_h * US_PER_HOUR
    return labels.with_columns(
        (pl.col("patient") + "-" + number).alias("stay"), start.alias("start")
    )


def _check_schema(path: Path, schema: type[meds.DataSchema]) -> None:
    try:
        columns = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} is missing, damaged or no Parquet; write it again") from error
    try:
        schema.align(columns.empty_table())
    except (SchemaValidationError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path} is not {schema.__name__} of MEDS {meds.__version__}: {error}; convert the data "
            "set with the current tools"
        ) from error
