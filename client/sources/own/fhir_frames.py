"""FHIR resources as tables: one function per type, only what stays, labels and events need.

Whatever is not where FHIR R4 puts it counts as absent; nothing is guessed. Times are converted from
text to microseconds since 1970; a FHIR dateTime with an hour always has a zone.
"""

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import polars as pl

from consilium.client.sources.common.reasons import BEYOND_LIMIT, RETRACTED
from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.event_frames import SCHEMA
from consilium.client.sources.own.ndjson import at, codings, identity, number, resources, text
from consilium.client.sources.own.settings import FhirSettings

UCUM = "http://unitsofmeasure.org"
EXPIRED = "exp"  # code of discharge-disposition: the patient died
SEX = {"male": 1.0, "female": 0.0}
OTHER_CLASS = "encounters of another class"
OTHER_LEVEL = "encounters within another one, or not"
NOT_BEGUN = "encounters that have not begun"
PIECE_ROWS = 50_000
_BEGUN = frozenset({"arrived", "triaged", "in-progress", "onleave", "finished"})
_GIVEN = frozenset({"in-progress", "on-hold", "completed", "stopped"})
_RETRACTED = frozenset({"entered-in-error", "cancelled", "refuted"})
_RAW: dict[str, type[pl.DataType]] = {**SCHEMA, "time": pl.String}


def people(folder: Path, tally: Tally) -> pl.DataFrame:
    """Return one row each: ``patient``, ``birth``, ``male``, ``death``, ``death_day``, ``dead``."""
    rows = [
        (
            text(one, "id"),
            text(one, "birthDate"),
            SEX.get(text(one, "gender") or ""),
            text(one, "deceasedDateTime"),
            at(one, "deceasedBoolean") is True or text(one, "deceasedDateTime") is not None,
        )
        for one, _ in resources(folder, "Patient", tally)
    ]
    schema = {"patient": pl.String, "birth": pl.String, "male": pl.Float64, "death": pl.String}
    frame = pl.DataFrame(rows, schema={**schema, "dead": pl.Boolean}, orient="row")
    return (
        frame.drop_nulls("patient")
        .unique("patient", keep="last", maintain_order=True)
        .with_columns(_day("birth"), _instant("death"), _day("death").alias("death_day"))
    )


def encounters(folder: Path, settings: FhirSettings, tally: Tally) -> pl.DataFrame:
    """Return one row per stay: ``patient``, ``stay``, ``start``, ``end``, ``expired``."""
    rows = []
    for one, _ in resources(folder, "Encounter", tally):
        inner = at(one, "partOf") is not None
        if text(one, "class", "code") not in settings.encounter_classes:
            tally.clue(OTHER_CLASS, 1)
            continue
        if inner != settings.inner_encounters:
            tally.clue(OTHER_LEVEL, 1)
            continue
        if text(one, "status") not in _BEGUN:
            tally.clue(NOT_BEGUN, 1)
            tally.count(RETRACTED, 1)
            continue
        disposition = at(one, "hospitalization", "dischargeDisposition")
        rows.append(
            (
                identity(at(one, "subject")),
                text(one, "id"),
                text(one, "period", "start"),
                text(one, "period", "end"),
                any(code == EXPIRED for _, code in codings(disposition)),
            )
        )
    schema = dict.fromkeys(("patient", "stay", "start", "end"), pl.String())
    frame = pl.DataFrame(rows, schema={**schema, "expired": pl.Boolean()}, orient="row")
    return frame.with_columns(_instant("start"), _instant("end"))


def why_no_stay(settings: FhirSettings, tally: Tally) -> str:
    """Return why no Encounter may be a stay, and what to do."""
    classes = ", ".join(settings.encounter_classes)
    other, level, not_begun = (
        tally.clues.get(what, 0) for what in (OTHER_CLASS, OTHER_LEVEL, NOT_BEGUN)
    )
    if not other + level + not_begun:
        return "there is not one Encounter; export them, too"
    inner = "not part of another" if settings.inner_encounters else "part of another"
    return (
        f"of its Encounters {other} have another class than {classes} ([data] encounter_classes), "
        f"{level} are {inner} ([data] inner_encounters), and {not_begun} have not begun, by their "
        "status"
    )


def deaths(persons: pl.DataFrame, stays: pl.DataFrame) -> pl.DataFrame:
    """Return when patients died, for ``outcomes.with_outcome``."""
    dated = persons.filter("dead").select(
        "patient",
        pl.coalesce("death", "death_day").alias("time"),
        (pl.col("death").is_null() & pl.col("death_day").is_not_null()).alias("whole_day"),
    )
    left = stays.filter("expired").select(
        "patient", pl.col("end").alias("time"), pl.lit(value=False).alias("whole_day")
    )
    found = pl.concat([dated, left])
    known = found.drop_nulls("time")
    return pl.concat([known, found.join(known, on="patient", how="anti")])


def conditions(folder: Path, codes: Set[str], tally: Tally, *, required: bool) -> pl.DataFrame:
    """Return one row per diagnosis: ``patient``, ``encounter``, ``code``, and times.

    ``time`` is the time of onset, ``day`` the day if the hour is unknown, ``recorded`` the time or
    day of the record.
    """
    rows = []
    for one, _ in resources(folder, "Condition", tally, required=required) if codes else ():
        code = _first(codings(at(one, "code")), codes)
        if code is None:
            continue
        status = {code for _, code in codings(at(one, "verificationStatus"))}
        if status & _RETRACTED:
            tally.count(RETRACTED, 1)
            continue
        onset = text(one, "onsetDateTime") or text(one, "onsetPeriod", "start")
        patient, encounter = identity(at(one, "subject")), identity(at(one, "encounter"))
        rows.append((patient, encounter, code, onset, text(one, "recordedDate")))
    names = ("patient", "encounter", "code", "time", "recorded")
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String()), orient="row")
    return frame.with_columns(
        _instant("time"),
        _day("time").alias("day"),
        pl.coalesce(_instant("recorded"), _day("recorded")),
    )


def administrations(folder: Path, codes: Set[str], tally: Tally) -> pl.DataFrame:
    """Return one row per drug given: ``patient``, ``code``, ``time`` (of a period, its start).

    The drug is given as a code, or as a reference to a Medication, contained in the resource or
    elsewhere in the export.
    """
    known = {}
    for one, _ in resources(folder, "Medication", tally, required=False) if codes else ():
        if (code := _first(codings(at(one, "code")), codes)) is not None:
            known[text(one, "id")] = code
    rows = []
    for one, _ in (
        resources(folder, "MedicationAdministration", tally, required=False) if codes else ()
    ):
        code = _first(codings(at(one, "medicationCodeableConcept")), codes)
        code = code or _contained(one, codes) or known.get(identity(at(one, "medicationReference")))
        if code is None:
            continue
        if text(one, "status") not in _GIVEN:
            tally.count(RETRACTED, 1)
            continue
        time = text(one, "effectiveDateTime") or text(one, "effectivePeriod", "start")
        rows.append((identity(at(one, "subject")), code, time))
    schema = dict.fromkeys(("patient", "code", "time"), pl.String())
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(_instant("time"))


def _contained(one: dict[str, Any], codes: Set[str]) -> str | None:
    """Return the code of the contained Medication to which a resource refers."""
    reference = text(one, "medicationReference", "reference") or ""
    parts = one.get("contained")
    for part in parts if reference.startswith("#") and isinstance(parts, list) else ():
        if text(part, "id") == reference[1:]:
            return _first(codings(at(part, "code")), codes)
    return None


def onsets(diagnoses: pl.DataFrame, stays: pl.DataFrame) -> pl.DataFrame:
    """Return when diagnoses began: at onset, or with their encounter, or when recorded."""
    ends = stays.select(pl.col("stay").alias("encounter"), pl.coalesce("end", "start").alias("in"))
    return (
        diagnoses.join(ends.unique("encounter"), on="encounter", how="left")
        .select(
            "patient",
            pl.coalesce("time", "day", "in", "recorded").alias("time"),
            (pl.col("time").is_null() & pl.col("day").is_not_null()).alias("whole_day"),
        )
        .drop_nulls()
    )


def observations(
    folder: Path, codes: Set[str], tally: Tally
) -> Iterator[tuple[pl.DataFrame, Path]]:
    """Yield rows with these codes, as :mod:`.event_frames` needs them, and their file."""
    rows: list[tuple[Any, ...]] = []
    last: Path | None = None
    for one, path in resources(folder, "Observation", tally):
        if last is not None and (path != last or len(rows) >= PIECE_ROWS):
            yield _events(rows), last
            rows = []
        last = path
        found = list(_measured(one, codes))
        if found and text(one, "status") in _RETRACTED:
            tally.count(RETRACTED, len(found))
            continue
        if found:
            # The value of a period is known only at its end.
            ends = ("effectivePeriod", "end"), ("effectivePeriod", "start")
            times = (text(one, "effectiveDateTime"), text(one, "effectiveInstant"))
            time = next(filter(None, (*times, *(text(one, *path) for path in ends))), None)
            patient = identity(at(one, "subject"))
            limits = sum(text(part, "valueQuantity", "comparator") is not None for part, _ in found)
            tally.count(BEYOND_LIMIT, limits)
            rows.extend((patient, time, code, *_value(part)) for part, code in found)
    if last is not None:
        yield _events(rows), last


def _measured(observation: dict[str, Any], codes: Set[str]) -> Iterator[tuple[Any, str]]:
    """Yield the parts of an observation with one of the codes: itself, and its components."""
    components = observation.get("component")
    for part in (observation, *(components if isinstance(components, list) else ())):
        code = _first(codings(at(part, "code")), codes)
        if code is not None:
            yield part, code


def _first(listed: Iterator[tuple[str, str]], codes: Set[str]) -> str | None:
    """Return the first coding that is among the codes, as written there."""
    for system, code in listed:
        for written in (f"{system}|{code}", code):
            if written in codes:
                return written
    return None


def _value(part: Any) -> tuple[float | None, str | None, str | None]:
    """Return number, unit and word of an observation's value."""
    quantity = at(part, "valueQuantity")
    if quantity is not None:
        code, unit = text(quantity, "code"), text(quantity, "unit")
        unit = (code or unit) if text(quantity, "system") == UCUM else (unit or code)
        return number(quantity, "value"), unit, None
    if (whole := number(part, "valueInteger")) is not None:
        return whole, None, None
    truth = at(part, "valueBoolean")
    if isinstance(truth, bool):
        return None, None, str(truth).lower()
    concept = at(part, "valueCodeableConcept")
    first = next((code for _, code in codings(concept)), None)
    return None, None, first or text(concept, "text") or text(part, "valueString")


def _events(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=_RAW, orient="row").with_columns(_instant("time"))


def _instant(column: str) -> pl.Expr:
    """Return times with an hour and a zone in microseconds since 1970, null for all others."""
    parsed = pl.col(column).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", time_zone="UTC", strict=False
    )
    return parsed.cast(pl.Int64).alias(column)


def _day(column: str) -> pl.Expr:
    """Return the start of days without an hour; a missing month or day is set to the middle."""
    date = pl.col(column)
    length = date.str.len_chars()
    whole = (
        pl.when(length == len("YYYY"))
        .then(date + "-07-15")
        .when(length == len("YYYY-MM"))
        .then(date + "-15")
        .when(length == len("YYYY-MM-DD"))
        .then(date)
    )
    parsed = whole.str.to_date("%Y-%m-%d", strict=False)
    return parsed.cast(pl.Datetime("us")).cast(pl.Int64).alias(column)
