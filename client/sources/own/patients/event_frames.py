"""Shared by MEDS, OMOP and FHIR: codes, stays, and passing rows of events to the assembler.

Rows have ``patient`` (text or whole number), ``time`` (microseconds since 1970, and the further
columns of :mod:`.event_times`), ``code`` (text), ``value`` (number or null), ``unit`` and ``word``
(text or null), and, if they name one, ``stay`` (text or null).
"""

from collections.abc import Callable, Iterable, Iterator

import polars as pl

from consilium.client.sources.common.reasons import (
    NO_STAY,
    NO_ZONE,
    OF_OTHERS,
    STAGE_NO_STAY,
    STAGE_NO_TIME,
    VAGUE_EVENT,
)
from consilium.client.sources.common.source import Patient, Tally
from consilium.client.sources.own.patients.assembly import Assembler
from consilium.client.sources.own.patients.event_times import event_times, vague
from consilium.client.sources.own.patients.stay_frames import stay_table
from consilium.client.sources.own.patients.translation import Translation
from consilium.client.sources.own.settings.hospital import HospitalSettings
from consilium.client.sources.own.times.clock import Clock
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.dictionary import KNOWN, KnownVariable

SEX = "Gender"
EVENT_TIMES = ("time", "until", "local", "zoneless")
KEPT_COLUMNS = ("patient", "code", "stay", "reference", *EVENT_TIMES)
SCHEMA = {
    "patient": pl.String,
    "time": pl.Int64,
    "code": pl.String,
    "value": pl.Float64,
    "unit": pl.String,
    "word": pl.String,
}


class EventRows:
    """Assigns rows of events to the stays of a cohort, and makes patients of them.

    Args:
        translation: translates codes and units.
        stays: one row per stay, as :func:`.stay_frames.stay_table` takes them.
        study: gives task and variables.
        tally: counts what is left out.
        where: the name of the table of stays, for errors.
        if_none: why there may be no stay at all, and what to do.
        clock: the hospital's clock.

    Attributes:
        stays: the cohort.
        origins: of rows that say in a column ``reference`` what they come from, that column with
            ``person``, ``variable``, ``value`` and their times, translated.

    Raises:
        DataError: a stay occurs twice, or a label is not one of the task's.
    """

    def __init__(
        self,
        translation: Translation,
        stays: pl.DataFrame,
        study: Study,
        tally: Tally,
        *,
        where: str,
        if_none: str,
        clock: Clock = Clock(),  # noqa: B008  # frozen
    ) -> None:
        self._translation, self._clock = translation, clock
        self.stays = stay_table(stays, study, tally, where=where, if_none=if_none)
        self._assembler = Assembler(study, self.stays, tally)
        self._people: dict[pl.DataType, pl.DataFrame] = {}
        self.origins: list[pl.DataFrame] = []
        self._named = pl.DataFrame(
            {
                "stay": pl.Series(self.stays.stay_ids, dtype=pl.String),
                "person": pl.Series(self.stays.patient_N, dtype=pl.Int32),
                "named": pl.Series(range(len(self.stays)), dtype=pl.Int32),
            }
        )

    def patients_with(self, pieces: Iterable[tuple[pl.DataFrame, str, str]]) -> Iterator[Patient]:
        """Add all events now, and return the cohort's patients in the order of their identifiers.

        Args:
            pieces: rows, their file or table, and the name of their column of times.
        """
        for rows, where, column in pieces:
            self._add(rows, where, column)
        return self._assembler.patients()

    def _add(self, rows: pl.DataFrame, where: str, column: str) -> None:
        """Translate and assign some rows; those of patients outside the cohort are ignored.

        A row belongs to the stay that it names, if that is one of its patient in the cohort, or
        else to every stay of its patient that holds its time. A unit that is not understood is
        counted.

        Args:
            rows: as described above for the module.
            where: the file or table, for errors.
            column: names the column of times, in which midnights are judged by their share.
        """
        translation, tally = self._translation, self._assembler.tally
        people = self._people_as(rows["patient"].dtype)
        person = rows.select("patient").join(
            people, on="patient", how="left", maintain_order="left"
        )["person"]
        own = rows.with_columns(person)
        if person.null_count():
            others = rows.filter(person.is_null())
            nobody = others["patient"].is_null()
            tally.count(NO_STAY, int(nobody.sum()))
            translation.ends(STAGE_NO_STAY, others.filter(nobody)["code"], tally)
            translation.ends(OF_OTHERS, others.filter(~nobody)["code"], tally)
            own = own.filter(person.is_not_null())
        if "zoneless" in own.columns:
            own = self._without(own, own["zoneless"], NO_ZONE).drop("zoneless")
        own = self._without(own, vague(own), VAGUE_EVENT)
        done = translation.translate(own, tally, where=where, when="time")
        if "reference" in done.columns:
            at = pl.col("until" if "until" in done.columns else "time").alias("at")
            self.origins.append(done.select("reference", "person", "variable", "value", at))
        stay_E = None
        if "stay" in done.columns:
            named = done.select("stay", "person").join(
                self._named, on=["stay", "person"], how="left", maintain_order="left"
            )["named"]
            if named.null_count() < len(named):
                stay_E = named.fill_null(-1).to_numpy()
        self._assembler.add_timed(
            event_times(done, self._clock, translation.midnight, column),
            done["variable"].to_numpy(),
            done["value"].cast(pl.Float32).to_numpy(),
            stay_E=stay_E,
            patient_E=done["person"].to_numpy(),
        )

    def _people_as(self, dtype: pl.DataType) -> pl.DataFrame:
        """Return the index of each patient, by identifiers of this type."""
        if dtype not in self._people:
            names = pl.Series("patient", self.stays.patient_ids, dtype=pl.String)
            index = pl.Series("person", range(len(names)), dtype=pl.Int32)
            table = pl.DataFrame([names.cast(dtype, strict=False), index])
            self._people[dtype] = table.drop_nulls()
        return self._people[dtype]

    def _without(self, rows: pl.DataFrame, which: pl.Series, reason: str) -> pl.DataFrame:
        """Set aside rows whose time cannot be used."""
        which = which.fill_null(value=False)
        if not which.any():
            return rows
        tally = self._assembler.tally
        tally.count(reason, int(which.sum()))
        self._translation.ends(STAGE_NO_TIME, rows.filter(which)["code"], tally)
        return rows.filter(~which)


def static_frame(stays: pl.DataFrame, people: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Add birth, and sex as the dictionary's ``Gender``.

    Args:
        stays: one row per stay.
        people: one row per patient: ``patient``, ``birth``, ``male`` (1, 0 or null).
        study: gives the variables.
    """
    names = list(study.variables)
    joined = stays.join(people, on="patient", how="left", maintain_order="left")
    return joined.rename({"male": str(names.index(SEX))}) if SEX in names else joined


def with_static_codes(stays: pl.DataFrame, values: pl.DataFrame) -> pl.DataFrame:
    """Add values that hold for all of a patient's stays, of each variable the first value.

    They take precedence over a static variable that is already there.

    Args:
        stays: one row per stay.
        values: ``patient``, ``variable`` (index in the study), ``value`` in the study's unit.
    """
    first = values.unique(["patient", "variable"], keep="first", maintain_order=True)
    for (index,), column in first.group_by(["variable"], maintain_order=True):
        name = str(index)
        found = column.select("patient", pl.col("value").alias(name))
        stays = stays.join(found, on="patient", how="left", maintain_order="left", suffix="'")
        if f"{name}'" in stays.columns:
            stays = stays.with_columns(pl.coalesce(f"{name}'", name).alias(name))
    return stays


def without_values(rows: pl.DataFrame) -> pl.DataFrame:
    """Turn rows that only say that something happened into rows of events, without values."""
    empty = ("value", "unit", "word")
    there = [name for name in rows.columns if name in KEPT_COLUMNS]
    return rows.select(there).with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in empty)


def translation_of(
    study: Study, settings: HospitalSettings, write: Callable[[KnownVariable], str | None]
) -> Translation:
    """Return the translation for a system whose records are numbers with times.

    Args:
        study: gives the variables.
        settings: the hospital's codes.
        write: returns a variable's code in the dictionary as this system writes it, or None.

    Raises:
        DataError: the study counts time in positions, or wants columns of codes.
        SettingsError: the settings contradict themselves.
    """
    if study.data.clock != "hour" or study.tokens is not None:
        raise DataError(
            f"study {study.name} wants a sequence of places or codes, and source "
            f"{settings.source!r} brings numbers by the hour; choose the matching data or study"
        )

    def default_codes(name: str) -> tuple[str, ...]:
        known = KNOWN.get(name)
        code = None if known is None else write(known)
        return () if code is None else (code,)

    return Translation(study, settings, default_codes=default_codes)


def microseconds(column: str) -> pl.Expr:
    """Return a column of dates or date-times as int64 microseconds since 1970."""
    return pl.col(column).cast(pl.Datetime("us")).cast(pl.Int64)
