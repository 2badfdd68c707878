"""FHIR resources as tables: one function per type, only what stays, labels and events need.

Whatever is not where FHIR R4 puts it counts as absent; nothing is guessed. Times become spans: a
FHIR dateTime may stop at the day, the month or the year. One with an hour must have a zone; without
one it is by the hospital's clock, if that is stated or if the stays have no zones either.
"""

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import polars as pl

from consilium.client.sources.common.reasons import BEYOND_LIMIT, RETRACTED
from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.fhir.ndjson import (
    Export,
    at,
    codings,
    identity,
    number,
    reference,
    resources,
    text,
)
from consilium.client.sources.own.patients.event_frames import SCHEMA
from consilium.client.sources.own.patients.one_person import joined
from consilium.client.sources.own.patients.text_times import TextTimes
from consilium.client.sources.own.settings.systems import FhirSettings

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
_RAW: dict[str, type[pl.DataType]] = {**SCHEMA, "time": pl.String, "stay": pl.String}
_REFERENCE = "reference"  # column of the resource that a row comes from, such as Observation/17
_NAMED: dict[str, type[pl.DataType]] = {_REFERENCE: pl.String}


def people(folder: Path | Export, tally: Tally) -> tuple[pl.DataFrame, dict[str, str]]:
    """Return one row each: ``patient``, ``birth``, ``male``, ``death``, ``dead``; texts as such.

    Patients who are linked, whatever the link's type, are one; the second result leads from each of
    their identifiers to the one that stands for all, which no other has replaced.
    """
    rows: list[tuple[Any, ...]] = []
    pairs: list[tuple[str, str]] = []
    replaced: set[str] = set()
    for one, _ in resources(folder, "Patient", tally):
        own, died = text(one, "id"), text(one, "deceasedDateTime")
        dead = at(one, "deceasedBoolean") is True or died is not None
        rows.append((own, text(one, "birthDate"), SEX.get(text(one, "gender") or ""), died, dead))
        listed = one.get("link")
        for link in listed if isinstance(listed, list) else ():
            other = identity(at(link, "other"))
            whole = text(link, "other", "reference") or ""
            if own is None or other is None or "RelatedPerson/" in whole:
                continue
            pairs.append((own, other))
            kind = text(link, "type")
            replaced |= {own} if kind == "replaced-by" else {other} if kind == "replaces" else set()
    merged = joined(pairs, replaced)
    schema = {"patient": pl.String, "birth": pl.String, "male": pl.Float64, "death": pl.String}
    frame = pl.DataFrame(rows, schema={**schema, "dead": pl.Boolean}, orient="row")
    frame = frame.drop_nulls("patient").unique("patient", keep="last", maintain_order=True)
    return (_as_one(frame, merged) if merged else frame), merged


def _as_one(frame: pl.DataFrame, merged: Mapping[str, str]) -> pl.DataFrame:
    """Return one row for each person; what the identifier in use says comes before the others."""
    own = pl.col("patient").is_in(list(set(merged.values())))
    rows = of_one(frame.sort(own, maintain_order=True), merged)
    said = [pl.col(name).drop_nulls().last() for name in ("birth", "male", "death")]
    return rows.group_by("patient", maintain_order=True).agg(*said, pl.col("dead").any())


def of_one(frame: pl.DataFrame, merged: Mapping[str, str]) -> pl.DataFrame:
    """Return a table with one identifier for each person in its column ``patient``."""
    return frame.with_columns(pl.col("patient").replace(dict(merged))) if merged else frame


def with_times(persons: pl.DataFrame, times: TextTimes) -> pl.DataFrame:
    """Return the table of people with spans for the texts of birth and death."""
    days = persons.with_columns(pl.col("birth").str.head(len("YYYY-MM-DD")))
    return times.column(times.column(days, "birth"), "death", or_day=True)


def encounters(
    folder: Path | Export, settings: FhirSettings, times: TextTimes, tally: Tally
) -> pl.DataFrame:
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
    frame = frame.unique(maintain_order=True)  # pages of a search bring some again
    written = pl.col("end").is_not_null()
    frame = times.column(times.column(frame.with_columns(written=written), "start"), "end")
    # A stay whose end cannot be read is not one that goes on.
    lost = pl.col("written") & pl.col("end").is_null()
    frame = frame.with_columns(start=pl.when(~lost).then(pl.col("start"))).drop("written")
    return times.axis.stays_read(frame, times.midnight, tally)


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
    dated = persons.filter("dead").select("patient", pl.col("death").alias("time"))
    left = stays.filter("expired").select("patient", pl.col("end").alias("time"))
    found = pl.concat([dated, left])
    known = found.drop_nulls("time")
    return pl.concat([known, found.join(known, on="patient", how="anti")])


def conditions(
    folder: Path | Export, codes: Set[str], tally: Tally, *, required: bool
) -> pl.DataFrame:
    """Return a row per diagnosis: ``patient``, ``stay``, ``code``, ``time``, ``recorded``.

    ``time`` is the text of the onset, ``recorded`` that of the record; ``stay`` the encounter;
    ``reference`` names the resource.
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
        recorded = text(one, "recordedDate")
        rows.append((patient, encounter, code, onset, recorded, reference(one)))
    names = ("patient", "stay", "code", "time", "recorded", _REFERENCE)
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String()), orient="row")


def administrations(folder: Path | Export, codes: Set[str], tally: Tally) -> pl.DataFrame:
    """Return one row per drug given: ``patient``, ``stay``, ``code``, ``time`` (a text).

    Of a period the time is its start; ``stay`` is the encounter; ``reference`` names the resource.

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
        whose = identity(at(one, "subject")), identity(at(one, "context"))
        rows.append((*whose, code, time, reference(one)))
    schema = dict.fromkeys(("patient", "stay", "code", "time", _REFERENCE), pl.String())
    return pl.DataFrame(rows, schema=schema, orient="row")


def _contained(one: dict[str, Any], codes: Set[str]) -> str | None:
    """Return the code of the contained Medication to which a resource refers."""
    inside = text(one, "medicationReference", "reference") or ""
    parts = one.get("contained")
    for part in parts if inside.startswith("#") and isinstance(parts, list) else ():
        if text(part, "id") == inside[1:]:
            return _first(codings(at(part, "code")), codes)
    return None


def onsets(diagnoses: pl.DataFrame, stays: pl.DataFrame, times: TextTimes) -> pl.DataFrame:
    """Return when diagnoses began: at onset, or with their encounter, or when recorded."""
    ends = stays.select("stay", within=pl.coalesce("end", "start")).unique("stay")
    for name in ("time", "recorded"):
        diagnoses = times.column(diagnoses, name, or_day=True)
    joined = diagnoses.join(ends, on="stay", how="left", maintain_order="left")
    found = joined.select("patient", time=pl.coalesce("time", "within", "recorded"))
    return found.filter(pl.col("patient").is_not_null() & pl.col("time").is_not_null())


def observations(
    folder: Path | Export,
    codes: Set[str],
    times: TextTimes,
    tally: Tally,
    *,
    named: bool = False,
) -> Iterator[tuple[pl.DataFrame, Path]]:
    """Yield rows with these codes, as :mod:`.event_frames` needs them, and their file.

    ``named`` adds which Observation each row comes from, as ``reference``.
    """
    schema = _RAW | _NAMED if named else _RAW
    rows: list[tuple[Any, ...]] = []
    last: Path | None = None
    for one, path in resources(folder, "Observation", tally):
        if last is not None and (path != last or len(rows) >= PIECE_ROWS):
            yield _events(rows, schema, times), last
            rows = []
        last = path
        found = list(_measured(one, codes))
        if found and text(one, "status") in _RETRACTED:
            tally.count(RETRACTED, len(found))
            continue
        if found:
            # The value of a period is known only at its end.
            ends = ("effectivePeriod", "end"), ("effectivePeriod", "start")
            known = (text(one, "effectiveDateTime"), text(one, "effectiveInstant"))
            time = next(filter(None, (*known, *(text(one, *path) for path in ends))), None)
            patient, stay = identity(at(one, "subject")), identity(at(one, "encounter"))
            limits = sum(text(part, "valueQuantity", "comparator") is not None for part, _ in found)
            tally.count(BEYOND_LIMIT, limits)
            whole = (stay, reference(one)) if named else (stay,)
            rows.extend((patient, time, code, *_value(part), *whole) for part, code in found)
    if last is not None:
        yield _events(rows, schema, times), last


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


def _events(
    rows: list[tuple[Any, ...]], schema: Mapping[str, type[pl.DataType]], times: TextTimes
) -> pl.DataFrame:
    return times.events(pl.DataFrame(rows, schema=schema, orient="row"))
