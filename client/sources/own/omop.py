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
concept table's UCUM vocabulary, or else from ``unit_source_value``. Rows with a day but no time are
set aside, since the hour is not known; a death or a diagnosis as the outcome needs no hour. OHDSI,
"OMOP Common Data Model v5.4", https://ohdsi.github.io/CommonDataModel/cdm54.html
"""

from collections.abc import Iterable, Iterator

import polars as pl

from consilium.client.sources.common.reasons import BEYOND_LIMIT
from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.client.sources.own.event_frames import (
    EventRows,
    static_frame,
    translation_of,
    without_values,
)
from consilium.client.sources.own.omop_database import ColumnKind, ReadOnlyDatabase, open_database
from consilium.client.sources.own.outcomes import with_outcome
from consilium.client.sources.own.settings import OmopSettings
from consilium.shared.errors import SettingsError
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
_MAY_LACK = frozenset({"observation", "procedure_occurrence"})  # often missing in extracts
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

    def __init__(self, settings: OmopSettings) -> None:
        self._settings = settings
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every person who has a stay, in the order of their identifiers.

        Raises:
            DataError: the database cannot be read, or does not fit the study.
            SettingsError: the settings contradict themselves.
        """
        self._tally = Tally()
        translation = translation_of(
            study, self._settings, lambda known: str(known.omop) if known.omop else None
        )
        concepts = _concepts(translation.codes, "[data.variables] codes")
        wordless = _concepts(translation.wordless_codes, "[data.variables] codes")
        with open_database(self._settings) as database:
            stays = static_frame(self._stays(database, study), _people(database), study)
            rows = EventRows(
                translation,
                stays,
                study,
                self._tally,
                where=database.name,
                if_none=self._if_none(),
            )
            ucum = _all(database.rows("concept", _UNIT, only=("vocabulary_id", ["UCUM"])))
            for table in _there(database, _VALUED):
                for piece in self._valued(database, table, concepts, ucum):
                    rows.add(piece, where=f"{database.name}: table {table}")
            below = self._below(database, wordless)
            for table in _there(database, _HAPPENED) if wordless else ():
                for piece in _happened(database, table, below):
                    rows.add(piece, where=f"{database.name}: table {table}")
        return rows.patients()

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
        }
        only = (f"{prefix}_concept_id", settings.stay_concepts)
        stays = _all(database.rows(settings.stays, columns, only=only))
        dies = settings.outcome.kind == "death"
        codes = _concepts(settings.outcome.codes, "[data.outcome] codes")
        diagnoses = self._below(database, codes)["concept"].unique().to_list()
        return with_outcome(
            stays.with_columns(pl.col("stay").cast(pl.String)),
            settings.outcome,
            study,
            deaths=_dated(database, "death", "death", None if dies else ("person_id", [])),
            conditions=_dated(
                database,
                "condition_occurrence",
                "condition_start",
                ("condition_concept_id", diagnoses),
            ),
        )

    def _below(self, database: ReadOnlyDatabase, concepts: list[int]) -> pl.DataFrame:
        """Return each ``code`` asked for, with every ``concept`` for which it stands."""
        asked = pl.DataFrame({"code": concepts, "concept": concepts}, schema=_BELOW_SCHEMA)
        if not concepts or not self._settings.descendants:
            return asked
        rows = database.rows("concept_ancestor", _BELOW, only=("ancestor_concept_id", concepts))
        return pl.concat([asked, *rows]).unique(maintain_order=True)

    def _valued(
        self, database: ReadOnlyDatabase, table: str, concepts: list[int], ucum: pl.DataFrame
    ) -> Iterator[pl.DataFrame]:
        """Yield numbers and coded values of the study's concepts, person by person."""
        columns = _VALUED[table]
        ucum = ucum.unique("unit_id", keep="first", maintain_order=True).drop_nulls()
        order = ("person_id", f"{table}_id")
        only = (columns["code"][0], concepts)
        answer = pl.when(pl.col("word") != 0).then(pl.col("word").cast(pl.String))
        text = [pl.col("text").replace("", None)] if "text" in columns else []
        for piece in database.rows(table, columns, only=only, order=order):
            if "operator" in columns:
                limits = piece["operator"].is_in(BEYOND) & piece["value"].is_not_null()
                self._tally.count(BEYOND_LIMIT, int(limits.sum()))
            joined = piece.join(ucum, on="unit_id", how="left", maintain_order="left")
            yield joined.select(
                pl.col("patient").cast(pl.String),
                "time",
                pl.col("code").cast(pl.String),
                "value",
                pl.coalesce("ucum", pl.col("unit").replace("", None)).alias("unit"),
                pl.coalesce(answer, *text).alias("word"),
            )


def _there(database: ReadOnlyDatabase, tables: Iterable[str]) -> list[str]:
    """Return the tables to read: those that the database has, and those that it must have."""
    return [table for table in tables if table not in _MAY_LACK or database.columns(table)]


def _happened(
    database: ReadOnlyDatabase, table: str, below: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a table that say only that something happened."""
    time, concept = _HAPPENED[table]
    columns = {
        "patient": ("person_id", ColumnKind.WHOLE),
        "time": (time, ColumnKind.TIME),
        "concept": (concept, ColumnKind.WHOLE),
    }
    order = ("person_id", f"{table}_id")
    only = (concept, below["concept"].unique().to_list())
    for piece in database.rows(table, columns, only=only, order=order):
        found = piece.join(below, on="concept", how="inner", maintain_order="left")
        yield without_values(found.with_columns(pl.col("patient", "code").cast(pl.String)))


def _people(database: ReadOnlyDatabase) -> pl.DataFrame:
    """Return every person's sex and birth; a missing month or day is set to the middle."""
    people = _all(database.rows("person", _PERSON))
    year, month = pl.col("year").clip(1800, 2200), pl.col("month").fill_null(7).clip(1, 12)
    day = pl.duration(days=pl.col("day").fill_null(15).clip(1, 31) - 1)
    born = (pl.datetime(year, month, 1) + day).cast(pl.Int64)
    male = pl.when(pl.col("sex") == MALE).then(1.0).when(pl.col("sex") == FEMALE).then(0.0)
    return people.select(
        "patient", pl.coalesce("birth", born).alias("birth"), male.alias("male")
    ).unique("patient", keep="first", maintain_order=True)


def _dated(
    database: ReadOnlyDatabase, table: str, prefix: str, only: tuple[str, list[int]] | None
) -> pl.DataFrame:
    """Return when something happened to patients: the time, or the whole day if it has no hour."""
    if only is not None and not only[1]:
        return pl.DataFrame(
            schema={"patient": pl.String, "time": pl.Int64, "whole_day": pl.Boolean}
        )
    columns = {
        "patient": ("person_id", ColumnKind.WHOLE),
        "time": (f"{prefix}_datetime", ColumnKind.TIME),
        "date": (f"{prefix}_date", ColumnKind.TIME),
    }
    return (
        _all(database.rows(table, columns, only=only))
        .select(
            "patient",
            pl.coalesce("time", "date").alias("time"),
            pl.col("time").is_null().alias("whole_day"),
        )
        .drop_nulls()
    )


def _all(pieces: Iterator[pl.DataFrame]) -> pl.DataFrame:
    """Join all pieces, identifiers as text; only for tables with a few rows per person."""
    frame = pl.concat(pieces)
    return frame.with_columns(pl.col(n).cast(pl.String) for n in ("patient",) if n in frame.columns)


def _concepts(codes: tuple[str | int, ...], key: str) -> list[int]:
    """Return codes as whole numbers, which OMOP's concept ids are."""
    found = []
    for code in map(str, codes):
        if not (code.isascii() and code.isdigit() and len(code) < 10):
            raise SettingsError(f"{key}: {code!r} is no OMOP concept id; write whole numbers")
        found.append(int(code))
    return found
