"""Guesses about systems with a format of their own: FHIR, MEDS, OMOP and HL7.

Their codes, units, stays and deaths are counted in the first records, and the variables of the
study are the codes that occur most.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.fhir.ndjson import at, codings, identity, number, resources, text
from consilium.client.sources.own.hl7.hl7_frames import Reader
from consilium.client.sources.own.meds.meds_schema import DATA, DEATH
from consilium.client.sources.own.settings.systems import Hl7Settings
from consilium.shared.errors import DataError
from consilium.simulations.guesses.databases import asker, names_in, opened
from consilium.simulations.guesses.events import quantities_in
from consilium.simulations.guesses.variables import Quantity
from consilium.simulations.guesses.written import ROWS

ASKED = "# asked: "  # what no record says, in a line for the user
_OFFSET = re.compile(r"T.*(Z|[+-][0-9]{2}:?[0-9]{2})$")
LOINC = "http://loinc.org"
SHORT = pl.Schema({"code": pl.String(), "value": pl.Float64(), "unit": pl.String()})
Line = tuple[str, object, str]  # a key, its value, its comment


@dataclass(kw_only=True)
class System:
    """What the records of a system say.

    Attributes:
        source: its name in ``[data]``.
        lines: of ``[data]``.
        persons: who have a stay.
        deaths: how many died, as far as the records say.
        quantities: what is measured.
        unused: codes that are not read.
        remarks: what the reader must know besides.
    """

    source: str
    lines: list[Line]
    persons: int
    deaths: int
    quantities: list[Quantity]
    unused: list[str]
    remarks: list[str] = field(default_factory=list)


class _Every(frozenset[str]):
    """A set that holds every code, for readers that keep the codes of a set."""

    def __contains__(self, _: object) -> bool:
        return True


def fhir(path: Path) -> System:
    """Look at a FHIR export.

    Raises:
        DataError: it cannot be read, or has no Patient, Encounter or Observation.
    """
    tally = Tally()
    dead = sum(
        at(one, "deceasedBoolean") is True or text(one, "deceasedDateTime") is not None
        for one, _ in resources(path, "Patient", tally)
    )
    classes: Counter[str] = Counter()
    inner = zoned = times = 0
    people: set[str | None] = set()
    for one, _ in resources(path, "Encounter", tally):
        classes[text(one, "class", "code") or ""] += 1
        inner += at(one, "partOf") is not None
        people.add(identity(at(one, "subject")))
        start = text(one, "period", "start") or ""
        times += "T" in start
        zoned += _OFFSET.search(start) is not None
    rows: list[tuple[str, float, str | None]] = []
    called: dict[str, str] = {}
    for one, _ in islice(resources(path, "Observation", tally), ROWS):
        parts = one.get("component")
        for part in (one, *(parts if isinstance(parts, list) else ())):
            listed = sorted(codings(at(part, "code")), key=lambda pair: pair[0] != LOINC)
            value = number(part, "valueQuantity", "value")
            if not listed or value is None:
                continue
            system, code = listed[0]
            written = f"{system}|{code}" if system else code
            called[written] = code if system == LOINC else (text(part, "code", "text") or code)
            unit = text(part, "valueQuantity", "code") or text(part, "valueQuantity", "unit")
            rows.append((written, value, unit))
    quantities, unused = _quantities(path, rows, called)
    usual = [one for one in ("IMP", "ACUTE", "NONAC") if classes[one]]
    lines: list[Line] = []
    told = ", ".join(f"{one or 'none'} {number}" for one, number in classes.most_common(8))
    if not usual:
        usual = [one for one, _ in classes.most_common(1) if one]
    lines.append(("encounter_classes", usual, f"# guess: the export has {told}"))
    if inner:
        lines.append(("inner_encounters", False, f"# guess: {inner} are part of others, as wards"))
    if times and not zoned:
        lines.append(_zone("times have no offset"))
    return System(source="fhir", lines=lines, persons=len(people), deaths=dead,
                  quantities=quantities, unused=unused)  # fmt: skip  # reads as one


def hl7(path: Path) -> System:
    """Look at HL7 messages.

    Raises:
        DataError: they cannot be read, or hold no visit.
    """
    lines: list[Line] = []
    settings = Hl7Settings(source="hl7", path=path)
    reader = Reader(settings, Tally())
    try:
        known = reader.admissions()
    except DataError:
        if len(reader.assigners) < 2:
            raise
        told = ", ".join(sorted(reader.assigners))
        tried = [settings.model_copy(update={"assigner": one}) for one in sorted(reader.assigners)]
        read = [(Reader(one, Tally()).admissions(), one) for one in tried]
        known, settings = max(read, key=lambda pair: len(pair[0].people))
        why = f"# guess: it names most patients; there are {told}"
        lines.append(("assigner", settings.assigner, why))
    classes = Counter(visit.patient_class for visit in known.visits.values())
    if not classes:
        raise DataError(f"{path}: holds no visit (PV1 with a number); include ADT messages")
    usual = [one for one in ("I",) if classes[one]] or [classes.most_common(1)[0][0]]
    shown = ", ".join(f"{one or 'none'} {number}" for one, number in classes.most_common(8))
    lines.append(("patient_classes", usual, f"# guess: the visits have {shown}"))
    rows: list[tuple[str, float | None, str | None]] = []
    for piece in Reader(settings, Tally()).results(_Every(), known):
        rows += piece.select("code", "value", "unit").rows()
        if len(rows) >= ROWS:
            break
    called = {code: code.removeprefix("LN|") for code, _, _ in rows}
    quantities, unused = _quantities(path, rows, called)
    begun = [one.start for one in known.visits.values() if one.start and "T" in one.start]
    if begun and not any(_OFFSET.search(one) for one in begun):
        lines.append(_zone("messages have no offset"))
    people = {patient for patient, _ in known.visits}
    deaths = sum(one.dead for one in known.people.values())
    return System(source="hl7", lines=lines, persons=len(people), deaths=deaths,
                  quantities=quantities, unused=unused)  # fmt: skip  # reads as one


def meds(path: Path) -> System:
    """Look at a MEDS dataset.

    Raises:
        DataError: it cannot be read, or no code begins a stay.
    """
    try:
        frame = pl.scan_parquet(path / DATA / "**" / "*.parquet", hive_partitioning=False)
        names = frame.collect_schema().names()
        unit = next(
            (name for name in ("unit", "units", "unit_source_value") if name in names), None
        )
        coded = frame.with_columns(pl.col("code").cast(pl.String))
        counted = coded.group_by("code").agg(pl.len(), pl.col("subject_id").n_unique()).collect()
        value = pl.col("numeric_value").cast(pl.Float64)
        units = pl.col(unit).cast(pl.String) if unit else pl.lit(None, pl.String)
        columns = [pl.col("code"), value.alias("value"), units.alias("unit")]
        rows = coded.filter(value.is_not_null()).select(columns).head(ROWS).collect()
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(
            f"{path}: its Parquet files lack a column of MEDS (subject_id, time, code, "
            "numeric_value) or are damaged; write the dataset again"
        ) from error
    codes = dict(zip(counted["code"], counted["subject_id"], strict=True))
    starts = _of_kind(codes, "ADMISSION")
    if not starts:
        raise DataError(f"{path}: no code names an admission, so nothing begins a stay; add them")
    lines: list[Line] = [("unit", unit, "# guess: by its name")] if unit else []
    first = "HOSPITAL_ADMISSION" if "HOSPITAL_ADMISSION" in starts else min(starts)
    last = first.replace("ADMISSION", "DISCHARGE")
    if first != "HOSPITAL_ADMISSION":
        lines.append(("stay_start", [first], f"# guess: of {', '.join(sorted(starts))}"))
        lines.append(("stay_end", [last], "# guess: by the code of the start"))
    persons = max((n for code, n in codes.items() if code.startswith(first)), default=0)
    quantities, unused = _quantities(path, rows.rows(), {c: c.rpartition("//")[2] for c in codes})
    return System(source="meds", lines=lines, persons=persons, deaths=codes.get(DEATH, 0),
                  quantities=quantities, unused=unused)  # fmt: skip  # reads as one


def omop(path: Path) -> System:
    """Look at an OMOP database in an SQLite or DuckDB file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with closing(opened(path)) as database:
            ask = asker(database)
            tables = {name.lower() for name in names_in(path)}
            visits = ask("select visit_concept_id, count(*) from visit_occurrence group by 1")
            persons = ask("select count(distinct person_id) from visit_occurrence")[0][0]
            deaths = ask("select count(*) from death")[0][0] if "death" in tables else 0
            concept = "concept" in tables
            rows = ask(_COUNTED_UNITS if concept else _WRITTEN_UNITS)
            names = dict(
                ask("select concept_id, concept_name from concept where concept_id in "
                    "(select distinct measurement_concept_id from measurement)")
                if concept and "concept_name" in _columns(ask, "concept") else []
            )  # fmt: skip  # reads as one
    except Exception as error:  # two libraries, each with errors of its own
        raise DataError(
            f"{path}: cannot be read as an OMOP database ({type(error).__name__}); it needs the "
            "tables person, visit_occurrence and measurement of CDM 5.4"
        ) from error
    classes = Counter({int(concept or 0): int(count) for concept, count in visits})
    usual = [one for one in (9201, 262) if classes[one]]
    lines: list[Line] = []
    if not usual and classes:
        told = ", ".join(f"{one} ({count})" for one, count in classes.most_common(8))
        common = classes.most_common(1)[0][0]
        lines.append(("stay_concepts", [common], f"# guess: no inpatient visits; there are {told}"))
    coded = [(str(code), float(value), unit and str(unit)) for code, value, unit in rows if code]
    called = {str(code): str(name) for code, name in names.items()}
    quantities, unused = _quantities(path, coded, called)
    return System(source="omop", lines=lines, persons=int(persons), deaths=int(deaths),
                  quantities=quantities, unused=unused)  # fmt: skip  # reads as one


SYSTEMS: Mapping[str, Callable[[Path], System]] = MappingProxyType(
    {"fhir": fhir, "hl7": hl7, "meds": meds, "omop": omop}
)
_MEASURED = "from measurement m {} where value_as_number is not null limit 200000"
_COUNTED_UNITS = (
    "select measurement_concept_id, value_as_number, coalesce(c.concept_code, unit_source_value) "
    + _MEASURED.format("left join concept c on c.concept_id = m.unit_concept_id")
)
_WRITTEN_UNITS = "select measurement_concept_id, value_as_number, unit_source_value " + (
    _MEASURED.format("")
)


def _columns(ask: Callable[[str], list[tuple[Any, ...]]], table: str) -> set[str]:
    try:
        ask(f"select concept_name from {table} limit 1")  # noqa: S608 - a fixed name
    except Exception:  # it has none
        return set()
    return {"concept_name"}


def _quantities(
    path: Path, rows: list[Any], called: Mapping[str, str]
) -> tuple[list[Quantity], list[str]]:
    frame = pl.DataFrame(rows, schema=SHORT, orient="row")
    found, unused = quantities_in(frame, called)
    if not found:
        raise DataError(f"{path}: no result is a number with a code; a study needs a measurement")
    return found, unused


def _of_kind(codes: Mapping[str, int], word: str) -> set[str]:
    return {code.partition("//")[0] for code in codes if word in code.partition("//")[0]}


def _zone(why: str) -> Line:
    return "time_zone", "UTC", f"{ASKED}{why}; name the hospital's clock, such as Europe/Berlin"
