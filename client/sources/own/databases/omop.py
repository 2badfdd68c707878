"""OMOP Common Data Model 5.4: visits, and the events in them by concept id.

::

    [data]
    source = "omop"
    url = "postgresql://consilium@db.example.org/cdm?sslmode=verify-full"
    password_file = "database-password"         # mode 0600; or password_env
    database_schema = "cdm"
    stays = "visit_detail"
    stay_concepts = [32037]                     # intensive care

    [data.variables.HR]
    codes = [3027018]                           # this is the default
    [data.variables.Vasopressor]
    codes = [1321341, 1343916]                  # drugs, with their descendants; drugs, conditions
    present = 1                                 # and procedures have no number: a row means 1

Numbers and coded values come from the tables measurement and observation. Units are taken from the
concept table's UCUM vocabulary, or else from ``unit_source_value``. Where a datetime is missing,
the date counts, and a value counts from the end of that day (``docs/time.md``). A value belongs to
the visit that it names, if that is a stay, or to every stay that holds its time. OHDSI, "OMOP
Common Data Model v5.4", https://ohdsi.github.io/CommonDataModel/cdm54.html
"""

from collections.abc import Iterable, Iterator

import polars as pl

from consilium.client.sources.common.reasons import BEYOND_LIMIT, SKIPPED
from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.client.sources.own.databases.omop_database import (
    ColumnKind,
    ReadOnlyDatabase,
    open_database,
)
from consilium.client.sources.own.patients.event_frames import (
    EventRows,
    static_frame,
    translation_of,
    without_values,
)
from consilium.client.sources.own.patients.event_times import time_columns
from consilium.client.sources.own.patients.outcomes import with_outcome
from consilium.client.sources.own.settings.systems import OmopSettings
from consilium.client.sources.own.times.axis import Axis
from consilium.client.sources.own.times.clock import clock_of
from consilium.client.sources.own.times.reading import (
    Spans,
    Written,
    births,
    days_for_missing,
    read_times,
    spans_of,
    suggestion,
)
from consilium.client.sources.own.times.spans import SPAN, Precision
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study

MALE, FEMALE = 8507, 8532
BEYOND = (4171756, 4172704, 4171754, 4171755)  # <, >, <=, >= as operator_concept_id
_PERSON = {
    "patient": ("person_id", ColumnKind.WHOLE),
    "sex": ("gender_concept_id", ColumnKind.WHOLE),
    "birth": ("birth_datetime", ColumnKind.TIME),
    "year": ("year_of_birth", ColumnKind.WHOLE),
    "month": ("month_of_birth", ColumnKind.WHOLE),
    "day": ("day_of_birth", ColumnKind.WHOLE),
}
_MEASUREMENT = {
    "patient": ("person_id", ColumnKind.WHOLE),
    "time": ("measurement_datetime", ColumnKind.TIME),
    "code": ("measurement_concept_id", ColumnKind.WHOLE),
    "value": ("value_as_number", ColumnKind.NUMBER),
    "word": ("value_as_concept_id", ColumnKind.WHOLE),
    "unit": ("unit_source_value", ColumnKind.TEXT),
    "unit_id": ("unit_concept_id", ColumnKind.WHOLE),
    "operator": ("operator_concept_id", ColumnKind.WHOLE),
}
_OBSERVATION = {
    "patient": ("person_id", ColumnKind.WHOLE),
    "time": ("observation_datetime", ColumnKind.TIME),
    "code": ("observation_concept_id", ColumnKind.WHOLE),
    "value": ("value_as_number", ColumnKind.NUMBER),
    "word": ("value_as_concept_id", ColumnKind.WHOLE),
    "text": ("value_as_string", ColumnKind.TEXT),
    "unit": ("unit_source_value", ColumnKind.TEXT),
    "unit_id": ("unit_concept_id", ColumnKind.WHOLE),
}
_VALUED = {"measurement": _MEASUREMENT, "observation": _OBSERVATION}
_HAPPENED = {  # columns of time and concept, in the tables whose rows have no number
    "condition_occurrence": ("condition_start_datetime", "condition_concept_id"),
    "drug_exposure": ("drug_exposure_start_datetime", "drug_concept_id"),
    "procedure_occurrence": ("procedure_datetime", "procedure_concept_id"),
}
_OPTIONAL = ("date", "stay")  # columns of events that an extract may lack
_MAY_LACK = frozenset({"observation", "procedure_occurrence"})  # often missing in extracts
_DISCHARGED = ("discharged_to_concept_id", "discharge_to_concept_id")  # in CDM 5.4, in 5.3
_BELOW = {
    "code": ("ancestor_concept_id", ColumnKind.WHOLE),
    "concept": ("descendant_concept_id", ColumnKind.WHOLE),
}
_BELOW_SCHEMA = dict.fromkeys(_BELOW, pl.Int64)
_UNIT = {"unit_id": ("concept_id", ColumnKind.WHOLE), "ucum": ("concept_code", ColumnKind.TEXT)}


class Omop(Counted):
    """A hospital's OMOP database.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
    """

    name = "omop"
    person_key = "person_id"

    def __init__(self, settings: OmopSettings) -> None:
        self._settings = settings
        self._tally = Tally()
        self._axis = Axis(clock_of(settings.time_zone))

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every person who has a stay, in the order of their identifiers.

        Raises:
            DataError: the database cannot be read, or does not fit the study.
            SettingsError: the settings contradict themselves.
        """
        self._tally = Tally()
        self._axis = Axis(clock_of(self._settings.time_zone))
        translation = translation_of(
            study, self._settings, lambda known: str(known.omop) if known.omop else None
        )
        concepts = _concepts(translation.codes, "[data.variables] codes")
        wordless = _concepts(translation.wordless_codes, "[data.variables] codes")
        with open_database(self._settings) as database:
            stays = static_frame(self._stays(database, study), self._people(database), study)
            rows = EventRows(
                translation,
                stays,
                study,
                self._tally,
                where=database.name,
                if_none=self._if_none(),
                clock=self._axis.clock,
            )
            return rows.patients_with(self._events(database, concepts, wordless))

    def _events(
        self, database: ReadOnlyDatabase, concepts: list[int], wordless: list[int]
    ) -> Iterator[tuple[pl.DataFrame, str, str]]:
        """Yield rows of events, with their table."""
        ucum = _units(database)
        for table in _there(database, _VALUED):
            for piece in self._valued(database, table, concepts, ucum):
                yield piece, f"{database.name}: table {table}", table
        below = self._below(database, wordless)
        for table in _there(database, _HAPPENED) if wordless else ():
            for piece in self._happened(database, table, below):
                yield piece, f"{database.name}: table {table}", table

    def _if_none(self) -> str:
        concepts = ", ".join(map(str, self._settings.stay_concepts))
        return (
            f"no row of {self._settings.stays} has one of the concepts {concepts}; correct [data] "
            "stay_concepts, or stays"
        )

    def _stays(self, database: ReadOnlyDatabase, study: Study) -> pl.DataFrame:
        """Return one row per stay, with its label."""
        settings = self._settings
        prefix = "visit" if settings.stays == "visit_occurrence" else "visit_detail"
        columns = {
            "patient": ("person_id", ColumnKind.WHOLE),
            "stay": (f"{settings.stays}_id", ColumnKind.WHOLE),
            "start": (f"{prefix}_start_datetime", ColumnKind.TIME),
            "end": (f"{prefix}_end_datetime", ColumnKind.TIME),
            "start_day": (f"{prefix}_start_date", ColumnKind.TIME),
            "end_day": (f"{prefix}_end_date", ColumnKind.TIME),
        }
        only = (f"{prefix}_concept_id", settings.stay_concepts)
        columns = _held(database, settings.stays, columns, ("start_day", "end_day"))
        stays = _all(
            self._with_spans(piece, f"{database.name}: table {settings.stays}", "start", "end")
            for piece in database.rows(settings.stays, columns, only=only)
        )
        stays = self._axis.stays_read(stays, settings.midnight, self._tally)
        dies = settings.outcome.kind == "death"
        codes = _concepts(settings.outcome.codes, "[data.outcome] codes")
        diagnoses = self._below(database, codes)["concept"].unique().to_list()
        nobody: tuple[str, list[int]] = ("person_id", [])
        return with_outcome(
            stays.with_columns(pl.col("stay").cast(pl.String)),
            settings.outcome,
            study,
            self._tally,
            deaths=self._discharged_dead(database)
            if dies and not database.columns("death")
            else self._dated(database, "death", "death", None if dies else nobody),
            conditions=self._dated(
                database,
                "condition_occurrence",
                "condition_start",
                ("condition_concept_id", diagnoses),
            ),
        )

    def _discharged_dead(self, database: ReadOnlyDatabase) -> pl.DataFrame:
        """Return the deaths that an extract without the table of deaths tells by its discharges.

        Whoever was discharged to no known place may have died: no time, so the label is unknown.

        Raises:
            DataError: it does not tell where patients were discharged to.
        """
        table = self._settings.stays
        prefix = "visit" if table == "visit_occurrence" else "visit_detail"
        there = database.columns(table)
        column = next((name for name in _DISCHARGED if name in there), None)
        if column is None:
            raise DataError(
                f"{database.name}: has no table death, and {table} no {_DISCHARGED[0]}, so no "
                "death is known; add one of them, or choose another [data.outcome] in site.toml"
            )
        columns = {
            "patient": ("person_id", ColumnKind.WHOLE),
            "time": (f"{prefix}_end_datetime", ColumnKind.TIME),
            "time_day": (f"{prefix}_end_date", ColumnKind.TIME),
            "left": (column, ColumnKind.WHOLE),
        }
        columns = _held(database, table, columns, ("time_day",))
        only = (f"{prefix}_concept_id", self._settings.stay_concepts)
        where = f"{database.name}: table {table}"
        died = pl.col("left").is_in(self._settings.died_concepts)
        unknown = pl.col("left").fill_null(0) == 0
        left = _all(
            self._with_spans(piece, where, "time")
            for piece in database.rows(table, columns, only=only)
        )
        return left.filter(died | unknown).select(
            "patient", pl.when(died).then("time").alias("time")
        )

    def _below(self, database: ReadOnlyDatabase, concepts: list[int]) -> pl.DataFrame:
        """Return each ``code`` asked for, with every ``concept`` for which it stands."""
        asked = pl.DataFrame({"code": concepts, "concept": concepts}, schema=_BELOW_SCHEMA)
        if not concepts or not self._settings.descendants:
            return asked
        if not database.columns("concept_ancestor"):
            raise DataError(
                f"{database.name}: has no table concept_ancestor, so the concepts below those of "
                "[data] codes are not known; add it, or write descendants = false and name every "
                "concept"
            )
        rows = database.rows("concept_ancestor", _BELOW, only=("ancestor_concept_id", concepts))
        return pl.concat([asked, *rows]).unique(maintain_order=True)

    def _valued(
        self, database: ReadOnlyDatabase, table: str, concepts: list[int], ucum: pl.DataFrame
    ) -> Iterator[pl.DataFrame]:
        """Yield numbers and coded values of the study's concepts, person by person."""
        visit = f"{self._settings.stays}_id"
        columns = {
            **_VALUED[table],
            "date": (f"{table}_date", ColumnKind.TIME),
            "stay": (visit, ColumnKind.WHOLE),
        }
        columns = _held(database, table, columns, _OPTIONAL)
        named = [pl.col("stay").cast(pl.String)] if "stay" in columns else []
        ucum = ucum.unique("unit_id", keep="first", maintain_order=True).drop_nulls()
        order = ("person_id", f"{table}_id")
        only = (columns["code"][0], concepts)
        # A unit that an extract without the vocabulary only numbers is not taken for none.
        only_numbered = pl.col("unit_id") > 0 if not database.columns("concept") else False
        unnamed = pl.when(only_numbered).then(pl.format("concept {}", "unit_id"))
        answer = pl.when(pl.col("word") != 0).then(pl.col("word").cast(pl.String))
        text = [pl.col("text").replace("", None)] if "text" in columns else []
        for piece in database.rows(table, columns, only=only, order=order):
            if "operator" in columns:
                limits = piece["operator"].is_in(BEYOND) & piece["value"].is_not_null()
                self._tally.count(BEYOND_LIMIT, int(limits.sum()))
            piece, times = self._with_times(piece, f"{database.name}: table {table}")
            joined = piece.join(ucum, on="unit_id", how="left", maintain_order="left")
            yield joined.select(
                pl.col("patient").cast(pl.String),
                *times,
                *named,
                pl.col("code").cast(pl.String),
                "value",
                pl.coalesce("ucum", pl.col("unit").replace("", None), unnamed).alias("unit"),
                pl.coalesce(answer, *text).alias("word"),
            )

    def _happened(
        self, database: ReadOnlyDatabase, table: str, below: pl.DataFrame
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of a table that say only that something happened."""
        time, concept = _HAPPENED[table]
        columns = {
            "patient": ("person_id", ColumnKind.WHOLE),
            "time": (time, ColumnKind.TIME),
            "date": (time.removesuffix("time"), ColumnKind.TIME),
            "stay": (f"{self._settings.stays}_id", ColumnKind.WHOLE),
            "concept": (concept, ColumnKind.WHOLE),
        }
        columns = _held(database, table, columns, _OPTIONAL)
        order = ("person_id", f"{table}_id")
        only = (concept, below["concept"].unique().to_list())
        for piece in database.rows(table, columns, only=only, order=order):
            piece, _ = self._with_times(piece, f"{database.name}: table {table}")
            found = piece.join(below, on="concept", how="inner", maintain_order="left")
            texts = [name for name in ("patient", "code", "stay") if name in found.columns]
            yield without_values(found.with_columns(pl.col(texts).cast(pl.String)))

    def _people(self, database: ReadOnlyDatabase) -> pl.DataFrame:
        """Return every person's sex, and birth: as a time, or else as year, month and day."""
        where = f"{database.name}: table person"
        people = _all(
            piece.with_columns(
                spans_of(births(self._written(piece["birth"], where)), self._axis.clock)
                .struct()
                .alias("birth")
            )
            for piece in database.rows("person", _PERSON)
        )
        year, month = pl.col("year").clip(1800, 2200), pl.col("month").clip(1, 12)
        begin = pl.datetime(year, month.fill_null(1), 1)
        begin += pl.duration(days=pl.col("day").fill_null(1).clip(1, 31) - 1)
        level = (
            pl.when(pl.col("month").is_null())
            .then(int(Precision.YEAR))
            .when(pl.col("day").is_null())
            .then(int(Precision.MONTH))
            .otherwise(int(Precision.DAY))
        )
        stated = people.select(begin.cast(pl.Int64).alias("local"), level.cast(pl.Int8).alias("of"))
        written = Written(local=stated["local"], precision=stated["of"])
        born = spans_of(written, self._axis.clock).struct()
        male = pl.when(pl.col("sex") == MALE).then(1.0).when(pl.col("sex") == FEMALE).then(0.0)
        return people.select(
            "patient", pl.coalesce("birth", pl.lit(born)).alias("birth"), male.alias("male")
        ).unique("patient", keep="first", maintain_order=True)

    def _dated(
        self,
        database: ReadOnlyDatabase,
        table: str,
        prefix: str,
        only: tuple[str, list[int]] | None,
    ) -> pl.DataFrame:
        """Return when something happened to patients: the time, or else the day."""
        if only is not None and not only[1]:
            return pl.DataFrame(schema={"patient": pl.String, "time": SPAN})
        columns = {
            "patient": ("person_id", ColumnKind.WHOLE),
            "time": (f"{prefix}_datetime", ColumnKind.TIME),
            "time_day": (f"{prefix}_date", ColumnKind.TIME),
        }
        where = f"{database.name}: table {table}"
        return _all(
            self._with_spans(piece, where, "time").select("patient", "time")
            for piece in database.rows(table, columns, only=only)
        )

    def _spans(self, piece: pl.DataFrame, time: str, date: str, where: str) -> Spans:
        """Return a column's times as spans, days where only the column of dates says one.

        Raises:
            DataError: most of its texts are no times, or times with and without a zone mix.
        """
        written = self._written(piece[time], where)
        self._axis.check(written, where)
        if date in piece.columns:
            written = days_for_missing(written, self._written(piece[date], where))
        found = spans_of(written, self._axis.clock)
        self._tally.decide(SKIPPED, found.skipped)
        return found

    def _written(self, series: pl.Series, where: str) -> Written:
        written = read_times(series, self._settings.time_format) or Written(
            local=series.cast(pl.Int64)
        )
        wrong = 0 if written.unread is None else int(written.unread.sum())
        if wrong > (len(series) - series.null_count()) / 2:
            likely = suggestion(series)
            raise DataError(
                f"{where}: {wrong} texts are no dates and times of ISO 8601; state [data] "
                "time_format in site.toml" + (f", such as {likely}" if likely else "")
            )
        return written

    def _with_spans(self, piece: pl.DataFrame, where: str, *names: str) -> pl.DataFrame:
        """Replace columns of times by spans; ``NAME_day`` is the column of dates beside NAME."""
        return piece.with_columns(
            self._spans(piece, name, f"{name}_day", where).struct().alias(name) for name in names
        ).drop([f"{name}_day" for name in names], strict=False)

    def _with_times(self, piece: pl.DataFrame, where: str) -> tuple[pl.DataFrame, list[str]]:
        """Replace ``time`` and ``date`` by the columns of times of a table of events."""
        found = self._spans(piece, "time", "date", where)
        columns = time_columns(found, self._axis.clock, self._settings.midnight)
        rest = piece.drop("time", "date", strict=False)
        return rest.with_columns(columns), [column.name for column in columns]


def _units(database: ReadOnlyDatabase) -> pl.DataFrame:
    """Return the UCUM code of each unit's concept; none in an extract without its vocabulary."""
    if not database.columns("concept"):
        return pl.DataFrame(schema={"unit_id": pl.Int64, "ucum": pl.String})
    return _all(database.rows("concept", _UNIT, only=("vocabulary_id", ["UCUM"])))


def _there(database: ReadOnlyDatabase, tables: Iterable[str]) -> list[str]:
    """Return the tables to read: those that the database has, and those that it must have."""
    return [table for table in tables if table not in _MAY_LACK or database.columns(table)]


def _held(
    database: ReadOnlyDatabase,
    table: str,
    columns: dict[str, tuple[str, ColumnKind]],
    optional: tuple[str, ...],
) -> dict[str, tuple[str, ColumnKind]]:
    """Return the columns without those optional ones that the table lacks."""
    there = database.columns(table)
    return {
        new: column for new, column in columns.items() if new not in optional or column[0] in there
    }


def _all(pieces: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Join all pieces, identifiers as text; only for tables with a few rows per person."""
    frame = pl.concat(pieces)
    return frame.with_columns(pl.col(n).cast(pl.String) for n in ("patient",) if n in frame.columns)


def _concepts(codes: tuple[str | int, ...], key: str) -> list[int]:
    """Return codes as whole numbers, which OMOP's concept ids are."""
    found = []
    for code in map(str, codes):
        if not (code.isascii() and code.isdigit() and len(code) < 19):  # local ones: 2,000,000,000
            raise SettingsError(f"{key}: {code!r} is no OMOP concept id; write whole numbers")
        found.append(int(code))
    return found
