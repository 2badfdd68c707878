"""One cohort with the times that hospitals write: labels and hours are right, or said unknown."""

import datetime as dt
import json
import sqlite3
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from consilium.client.quality.findings import judge
from consilium.client.quality.measure import check_quality
from consilium.client.sources.common.reasons import (
    AFTER_DEATH,
    AROUND_END,
    BY_DAY,
    MIDNIGHTS,
    NO_STAY,
    ROUGH_OUTCOME,
    STAYS_BY_DAY,
)
from consilium.client.sources.common.source import Patient, ReadReport, Stay
from consilium.client.sources.own.patients import held_events
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import with_changes
from tests.client.sources.cohort_formats import STUDY, fill_omop
from tests.client.sources.own.tables.test_tables import only

HR = with_changes(only(STUDY, "HR"), data={"source": "hospital", "window_h": 96})
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
Shown = Callable[[dt.datetime], str | None]


@dataclass(frozen=True)
class Person:
    """One stay by the hospital's clock, its pulses, and how the patient fared."""

    number: int
    start: dt.datetime
    end: dt.datetime
    pulses: tuple[dt.datetime, ...]
    fate: str  # "dies" on the day of discharge, "dies later" on the next, "lives"


def cohort() -> list[Person]:
    """120 persons, of whom a third dies in hospital and a third on the day after discharge."""
    stream = np.random.default_rng(7)
    people = []
    for number in range(120):
        start = dt.datetime(2024, 5, 3, 8) + dt.timedelta(minutes=int(stream.integers(0, 3600)))
        end = start + dt.timedelta(minutes=int(stream.integers(20 * 60, 90 * 60)))
        step = 2 * HOUR
        pulses = tuple(start + HOUR / 6 + step * k for k in range(int((end - start) / step)))
        fate = ("dies", "dies later", "lives")[number % 3]
        people.append(Person(number, start, end, pulses, fate))
    return people


COHORT = cohort()
PULSES = sum(len(person.pulses) for person in COHORT)


def iso(zone: str = "") -> Shown:
    return lambda time: time.isoformat() + zone


def midnight(time: dt.datetime) -> str:
    return time.strftime("%Y-%m-%d 00:00:00")


def died(person: Person) -> dt.datetime | None:
    return {"dies": person.end, "dies later": person.end + DAY}.get(person.fate)


def read(folder: Path, settings: str, study: Any = HR) -> tuple[dict[str, Stay], ReadReport]:
    """Read the records; return the stays by their identifiers, and the counts."""
    chosen = read_data_settings(tomllib.loads(settings), where="site.toml", folder=folder)
    source = open_source(chosen, study)
    patients: Iterator[Patient] = source.read_patients(study)
    stays = {stay.stay_id: stay for patient in patients for stay in patient.stays}
    return stays, source.report


def labels(stays: dict[str, Stay]) -> list[float]:
    """The labels of the cohort's stays, NaN where a stay has none."""
    found = [stays.get(f"{person.number}") for person in COHORT]
    return [np.nan if stay is None else float(stay.label) for stay in found]


RIGHT = [float(person.fate == "dies") for person in COHORT]


def write_fhir(folder: Path, times: Shown, death: Shown, birth: str = "1950-05-01") -> None:
    patients, encounters = [], []
    for person in COHORT:
        when = died(person)
        dead = {} if when is None else {"deceasedDateTime": death(when)}
        one = {"resourceType": "Patient", "id": f"p{person.number}", "birthDate": birth, **dead}
        patients.append(one)
        encounters.append({
            "resourceType": "Encounter", "id": f"{person.number}", "status": "finished",
            "class": {"code": "IMP"}, "subject": {"reference": f"Patient/p{person.number}"},
            "period": {"start": times(person.start), "end": times(person.end)},
        })  # fmt: skip
    for name, resources in (("Patient", patients), ("Encounter", encounters), ("Observation", [])):
        lines = "".join(json.dumps(one) + "\n" for one in resources)
        (folder / f"{name}.ndjson").write_text(lines)


FHIR = 'source = "fhir"\npath = "."\n'


def by_day(time: dt.datetime) -> str:
    return time.date().isoformat()


@pytest.mark.slow
def test_deaths_known_to_the_day_are_the_same_in_every_zone(tmp_path: Path) -> None:
    for hours in range(-12, 15):
        write_fhir(tmp_path, iso(f"{'-' if hours < 0 else '+'}{abs(hours):02}:00"), by_day)
        stays, report = read(tmp_path, FHIR)
        assert labels(stays) == RIGHT
        assert report.unlabelled == 0
        assert sum(RIGHT) == 40


def test_a_server_that_writes_utc_needs_the_hospitals_zone(tmp_path: Path) -> None:
    def utc(time: dt.datetime) -> str:
        return (time - 10 * HOUR).isoformat() + "Z"

    write_fhir(tmp_path, utc, by_day)
    for zone in ("+10:00", "Australia/Brisbane"):
        stays, _ = read(tmp_path, FHIR + f'time_zone = "{zone}"\n')
        assert labels(stays) == RIGHT


def test_a_death_that_a_program_wrote_as_midnight_in_utc_keeps_its_day(tmp_path: Path) -> None:
    for zone in ("-08:00", "+10:00"):
        write_fhir(tmp_path, iso(zone), lambda time: f"{time.date()}T00:00:00.000Z")
        for known in ("", f'time_zone = "{zone}"\n'):
            assert labels(read(tmp_path, FHIR + known)[0]) == RIGHT


def test_a_month_or_a_year_of_a_death_leaves_the_label_unknown(tmp_path: Path) -> None:
    for letters in (7, 4):
        write_fhir(tmp_path, iso("+01:00"), lambda time, n=letters: time.isoformat()[:n])
        stays, report = read(tmp_path, FHIR)
        lives = [np.nan if person.fate != "lives" else 0.0 for person in COHORT]
        assert np.array_equal(labels(stays), lives, equal_nan=True)
        assert report.times[ROUGH_OUTCOME] == report.unlabelled == 80
    write_fhir(tmp_path, iso("+01:00"), lambda _: "2024-07")
    assert sum(labels(read(tmp_path, FHIR)[0])) == 0  # a later month than that of any stay


def test_a_death_at_midnight_or_in_the_last_second_is_known_to_its_day(tmp_path: Path) -> None:
    for clock in ("00:00:00", "23:59:59"):
        write_fhir(tmp_path, iso("-08:00"), lambda time, c=clock: f"{time.date()}T{c}-08:00")
        assert labels(read(tmp_path, FHIR)[0]) == RIGHT


def test_a_stay_that_begins_after_the_death_has_no_label(tmp_path: Path) -> None:
    write_fhir(tmp_path, iso("+01:00"), lambda _: "2024-04-01")
    stays, report = read(tmp_path, FHIR)
    assert report.times[AFTER_DEATH] == 80
    assert sum(labels(stays)[2::3]) == 0


def write_omop(
    folder: Path,
    *,
    visit: Shown = str,
    end: Shown | None = None,
    value: Shown = str,
    death: Shown = str,
) -> None:
    """An SQLite extract with texts for times, as they were exported."""
    path = folder / "cdm.sqlite"
    fill_omop(f"sqlite:///{path}", {"concept": [
        {"concept_id": 8541, "concept_code": "/min", "vocabulary_id": "UCUM"}
    ]}, schema=None)  # fmt: skip
    connection = sqlite3.connect(path)
    for table, column in (
        ("visit_occurrence", "visit_start_date"),
        ("visit_occurrence", "visit_end_date"),
        ("measurement", "measurement_date"),
    ):
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if column not in there:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    for person in COHORT:
        n, when = person.number, died(person)
        connection.execute("INSERT INTO person (person_id, year_of_birth) VALUES (?, 1950)", (n,))
        connection.execute(
            "INSERT INTO visit_occurrence (visit_occurrence_id, person_id, visit_concept_id, "
            "visit_start_datetime, visit_end_datetime, visit_start_date, visit_end_date) "
            "VALUES (?, ?, 9201, ?, ?, ?, ?)",
            (n, n, visit(person.start), (end or visit)(person.end), by_day(person.start),
             by_day(person.end)),
        )  # fmt: skip
        if when is not None:
            connection.execute(
                "INSERT INTO death (person_id, death_date, death_datetime) VALUES (?, ?, ?)",
                (n, by_day(when), death(when)),
            )
        connection.executemany(
            "INSERT INTO measurement (measurement_id, person_id, measurement_concept_id, "
            "measurement_datetime, measurement_date, value_as_number, unit_concept_id) "
            "VALUES (?, ?, 3027018, ?, ?, ?, 8541)",
            [(1000 * n + k, n, value(t), by_day(t), 60 + k) for k, t in enumerate(person.pulses)],
        )
    connection.commit()
    connection.close()


OMOP = 'source = "omop"\nfile = "cdm.sqlite"\n'


def none(_: dt.datetime) -> None:
    return None


def hours_by_pulse(stays: dict[str, Stay]) -> Iterator[tuple[float, float]]:
    """Of every pulse kept: the hours at which it was placed, and at which it was taken.

    Its value is 60 and its number in the stay.
    """
    for person in COHORT:
        stay = stays[f"{person.number}"]
        for placed, value in zip(stay.hours_E, stay.value_E, strict=True):
            taken = person.pulses[int(value) - 60] - person.start
            yield float(placed), taken / HOUR


def test_an_exact_extract_is_read_as_it_is(tmp_path: Path) -> None:
    write_omop(tmp_path)
    stays, report = read(tmp_path, OMOP)
    assert labels(stays) == RIGHT
    assert report.events == PULSES
    assert all(abs(placed - taken) < 1e-3 for placed, taken in hours_by_pulse(stays))
    assert report.times == {}


@pytest.mark.parametrize("death", [midnight, none])
def test_deaths_of_an_extract_without_hours_keep_their_labels(death: Shown, tmp_path: Path) -> None:
    write_omop(tmp_path, death=death)
    assert labels(read(tmp_path, OMOP)[0]) == RIGHT


@pytest.mark.parametrize("value", [midnight, none])
def test_no_value_counts_before_it_was_taken(value: Shown, tmp_path: Path) -> None:
    write_omop(tmp_path, value=value)
    stays, report = read(tmp_path, OMOP)
    placed = list(hours_by_pulse(stays))
    assert placed
    assert all(at >= taken - 1e-3 for at, taken in placed)
    assert all(at <= taken + 24 for at, taken in placed)
    assert report.times.get(MIDNIGHTS, 0) == (PULSES if value is midnight else 0)
    last_day = sum(time.date() == person.end.date() for person in COHORT for time in person.pulses)
    assert report.set_aside == {AROUND_END: last_day}
    assert report.times[BY_DAY] == PULSES - last_day
    early, _ = read(tmp_path, OMOP + 'midnight = "instant"\n')
    if value is midnight:  # as the hospital insists, against the evidence
        assert any(at < taken - 1 for at, taken in hours_by_pulse(early))


def test_midnights_that_wait_in_files_for_their_verdict_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_omop(tmp_path, value=lambda time: midnight(time) if time.day % 2 else str(time))
    stays, report = read(tmp_path, OMOP)
    monkeypatch.setattr(held_events, "EVENTS_IN_MEMORY", 500)
    again, same = read(tmp_path, OMOP)
    assert same == report
    assert report.times[MIDNIGHTS] == sum(
        t.day % 2 == 1 or t.time() == dt.time() for p in COHORT for t in p.pulses
    )
    for name, stay in stays.items():
        assert np.array_equal(stay.hours_E, again[name].hours_E)
    assert all(at >= taken - 1e-3 for at, taken in hours_by_pulse(again))


def test_the_check_says_that_midnights_were_taken_for_days(tmp_path: Path) -> None:
    write_omop(tmp_path, value=midnight)
    chosen = read_data_settings(tomllib.loads(OMOP), where="site.toml", folder=tmp_path)
    findings = judge(check_quality(open_source(chosen, HR), HR), HR)
    (told,) = (finding for finding in findings if "midnight" in finding.told)
    assert told.told.startswith(f"{PULSES} times at exactly midnight")
    assert (told.level, 'midnight = "instant"' in told.remedy) == ("warns", True)


@pytest.mark.parametrize("visit", [midnight, none])
def test_stays_of_days_hold_their_last_day_and_count_from_their_first(
    visit: Shown, tmp_path: Path
) -> None:
    write_omop(tmp_path, visit=visit)
    stays, report = read(tmp_path, OMOP)
    assert labels(stays) == RIGHT
    assert report.set_aside == {}
    assert report.times[STAYS_BY_DAY] == 120
    for person in COHORT:
        stay = stays[f"{person.number}"]
        begin = person.start.replace(hour=0, minute=0)
        assert stay.end_h == (person.end.date() - person.start.date() + DAY) / HOUR
        within = [(time - begin) / HOUR for time in person.pulses]
        assert np.allclose(stay.hours_E, [hours for hours in within if hours <= 96], atol=1e-3)


def test_visits_that_end_at_midnight_hold_the_events_of_their_last_day(tmp_path: Path) -> None:
    write_omop(tmp_path, end=midnight)
    stays, report = read(tmp_path, OMOP)
    assert labels(stays) == RIGHT
    assert report.events == PULSES


def test_a_visit_within_another_takes_nothing_from_it(tmp_path: Path) -> None:
    write_omop(tmp_path)
    with sqlite3.connect(tmp_path / "cdm.sqlite") as connection:
        for person in COHORT:
            begin = person.start + 10 * HOUR
            connection.execute(
                "INSERT INTO visit_occurrence (visit_occurrence_id, person_id, visit_concept_id, "
                "visit_start_datetime, visit_end_datetime) VALUES (?, ?, 9201, ?, ?)",
                (person.number + 1000, person.number, str(begin), str(begin + HOUR)),
            )
    connection.close()
    stays, report = read(tmp_path, OMOP)
    outer = [stays[f"{person.number}"] for person in COHORT]
    inner = [stays[f"{person.number + 1000}"] for person in COHORT]
    assert sum(len(stay.hours_E) for stay in outer) == PULSES
    assert [len(stay.hours_E) for stay in inner] == [1] * 120
    assert labels(stays) == RIGHT
    assert sum(float(stay.label) for stay in inner) == 0
    assert report.set_aside == {}
    named = OMOP + '[outcome]\nkind = "readmission"\n'
    assert sum(float(stay.label) for stay in read(tmp_path, named)[0].values()) == 0


def test_a_value_belongs_to_the_visit_that_it_names(tmp_path: Path) -> None:
    write_omop(tmp_path)
    with sqlite3.connect(tmp_path / "cdm.sqlite") as connection:
        there = {row[1] for row in connection.execute("PRAGMA table_info(measurement)")}
        if "visit_occurrence_id" not in there:
            connection.execute("ALTER TABLE measurement ADD COLUMN visit_occurrence_id")
        connection.execute("UPDATE measurement SET visit_occurrence_id = person_id")
        for person in COHORT:  # a second stay at the same time
            connection.execute(
                "INSERT INTO visit_occurrence (visit_occurrence_id, person_id, visit_concept_id, "
                "visit_start_datetime, visit_end_datetime) VALUES (?, ?, 9201, ?, ?)",
                (person.number + 1000, person.number, str(person.start), str(person.end)),
            )
        # Visits that are no stays of the cohort, as of an outpatient: then the time decides.
        connection.execute("UPDATE measurement SET visit_occurrence_id = 99999 WHERE person_id = 0")
    connection.close()
    stays, _ = read(tmp_path, OMOP)
    for person in COHORT:
        shared = len(person.pulses) if person.number == 0 else 0
        assert len(stays[f"{person.number}"].hours_E) == len(person.pulses)
        assert len(stays[f"{person.number + 1000}"].hours_E) == shared


def test_texts_of_another_form_are_refused_with_the_format_that_fits(tmp_path: Path) -> None:
    def american(time: dt.datetime) -> str:
        return time.strftime("%m/%d/%Y %H:%M")

    write_omop(tmp_path, visit=american, value=american, death=american)
    with pytest.raises(DataError, match=r"120 texts are no dates .* or '%m/%d/%Y %H:%M'"):
        read(tmp_path, OMOP)
    stated = OMOP + 'time_format = ["%m/%d/%Y %H:%M", "%Y-%m-%d"]\n'
    assert labels(read(tmp_path, stated)[0]) == RIGHT


TABLES = """
source = "tables"
{more}
[stays]
file = "stays.csv"
patient = "p"
stay = "p"
start = "start"
end = "end"
label = "y"
{stays}
[[events]]
file = "events.csv"
stay = "p"
{events}
variable = "v"
value = "x"
unit = "u"
"""


def write_tables(folder: Path, times: Shown, taken: Shown) -> None:
    stays = [
        (person.number, times(person.start), times(person.end), int(person.fate == "dies"))
        for person in COHORT
    ]
    events = [
        (person.number, taken(time), "HR", 60 + k, "/min")
        for person in COHORT
        for k, time in enumerate(person.pulses)
    ]
    pl.DataFrame(stays, schema=["p", "start", "end", "y"], orient="row").write_csv(
        folder / "stays.csv"
    )
    pl.DataFrame(events, schema=["p", "t", "v", "x", "u"], orient="row").write_csv(
        folder / "events.csv"
    )


def tables(*, more: str = "", stays: str = "", events: str = 'time = "t"') -> str:
    return TABLES.format(more=more, stays=stays, events=events)


def berlin(time: dt.datetime) -> str:
    return time.isoformat() + "+02:00"  # as in May


@pytest.mark.parametrize(
    ("times", "taken"), [(berlin, str), (str, berlin), (str, lambda time: f"{time - 2 * HOUR}Z")]
)
def test_times_with_a_zone_and_without_go_together_only_by_the_hospitals_zone(
    times: Shown, taken: Shown, tmp_path: Path
) -> None:
    write_tables(tmp_path, times, taken)
    with pytest.raises(DataError, match=r"do not both have a time zone .* state \[data\] time_zon"):
        read(tmp_path, tables())
    stays, report = read(tmp_path, tables(more='time_zone = "Europe/Berlin"'))
    assert report.events == PULSES
    assert all(abs(placed - at) < 1e-3 for placed, at in hours_by_pulse(stays))


def test_a_start_with_a_zone_and_an_end_without_are_refused_or_read_by_the_zone(
    tmp_path: Path,
) -> None:
    write_tables(tmp_path, str, berlin)
    frame = pl.read_csv(tmp_path / "stays.csv")
    frame.with_columns(pl.col("start").str.replace(" ", "T") + "+02:00").write_csv(
        tmp_path / "stays.csv"
    )
    with pytest.raises(DataError, match=r"column 'end' .* do not both have a time zone"):
        read(tmp_path, tables())
    stays, report = read(tmp_path, tables(more='time_zone = "Europe/Berlin"'))
    assert report.events == PULSES
    assert labels(stays) == RIGHT


@pytest.mark.parametrize(
    ("taken", "events"),
    [
        (
            lambda time: time.strftime("%d.%m.%Y %H:%M"),
            'time = "t"\ntime_format = "%d.%m.%Y %H:%M"',
        ),
        (
            lambda time: time.strftime("%d.%m.%Y %H:%M" if time.day % 2 else "%Y-%m-%dT%H:%M"),
            'time = "t"\ntime_format = ["%d.%m.%Y %H:%M", "%Y-%m-%dT%H:%M"]',
        ),
        (
            lambda time: f"{(time - dt.datetime(1970, 1, 1)).total_seconds() - 7200:.0f}",
            'time = "t"\ntime_format = "epoch"',
        ),
    ],
)
def test_formats_of_times_are_stated_one_or_several(
    taken: Shown, events: str, tmp_path: Path
) -> None:
    write_tables(tmp_path, str, taken)
    with pytest.raises(DataError, match=r"is not a date and time like the others|holds Int64"):
        read(tmp_path, tables())
    settings = tables(more='time_zone = "Europe/Berlin"', events=events)
    stays, report = read(tmp_path, settings)
    assert report.events == PULSES
    assert all(abs(placed - at) < 1 / 30 for placed, at in hours_by_pulse(stays))


def test_dates_and_times_of_day_stand_in_two_columns(tmp_path: Path) -> None:
    write_tables(tmp_path, str, str)
    for name, columns in (("stays", ("start", "end")), ("events", ("t",))):
        frame = pl.read_csv(tmp_path / f"{name}.csv", infer_schema=False)
        frame.with_columns(
            expression
            for column in columns
            for expression in (
                pl.col(column).str.head(10).alias(f"{column}_day"),
                pl.col(column).str.tail(8).alias(f"{column}_clock"),
            )
        ).drop(columns).write_csv(tmp_path / f"{name}.csv")
    settings = tables(events='time = ["t_day", "t_clock"]')
    settings = settings.replace('"start"\n', '["start_day", "start_clock"]\n')
    settings = settings.replace('"end"\n', '["end_day", "end_clock"]\n')
    stays, report = read(tmp_path, settings)
    assert report.events == PULSES
    assert all(abs(placed - at) < 1e-3 for placed, at in hours_by_pulse(stays))


def test_hours_come_in_any_unit_of_time(tmp_path: Path) -> None:
    write_tables(tmp_path, str, str)
    start = {person.number: person.start for person in COHORT}
    frame = pl.read_csv(tmp_path / "events.csv", try_parse_dates=True)
    since = frame["t"] - frame["p"].replace_strict(start, return_dtype=pl.Datetime("us"))
    grids = []
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600), ("d", 86400)):
        number = (since.dt.total_seconds() / seconds).alias("t")
        frame.with_columns(number).write_csv(tmp_path / "events.csv")
        events = f'hours = "t"\nhours_unit = "{unit}"'
        stays, _ = read(tmp_path, tables(events=events))
        grids.append(np.concatenate([stay.hours_E for stay in stays.values()]))
        assert all(abs(placed - at) < 1e-3 for placed, at in hours_by_pulse(stays))
    assert all(np.allclose(grid, grids[0], atol=1e-4) for grid in grids)


def test_stays_without_times_say_their_end_and_outcome_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text("p,y,left,died\n1,1,2880,1440\n2,0,600,\n")
    (tmp_path / "events.csv").write_text("p,t,v,x,u\n1,60,HR,80,/min\n2,720,HR,90,/min\n")
    settings = tables(
        events='hours = "t"\nhours_unit = "min"',
        stays='end_hours = "left"\noutcome_hours = "died"\nhours_unit = "min"',
    ).replace('start = "start"\nend = "end"\n', "")
    stays, report = read(tmp_path, settings)
    assert (stays["1"].end_h, stays["1"].outcome_h, stays["2"].outcome_h) == (48, 24, None)
    assert stays["1"].hours_E.tolist() == [1]
    assert stays["2"].hours_E.tolist() == []
    assert report.set_aside == {"events after the end of their stay": 1}


def small(
    folder: Path, stay_rows: str, event_rows: str, **settings: str
) -> tuple[dict[str, Stay], ReadReport]:
    (folder / "stays.csv").write_text("p,s,start,end,y,died\n" + stay_rows)
    (folder / "events.csv").write_text("p,t,v,x,u\n" + event_rows)
    text = tables(**settings).replace('stay = "p"\nstart', 'stay = "s"\nstart')
    text = text.replace('stay = "p"\ntime', 'patient = "p"\ntime')
    return read(folder, text)


def test_an_event_belongs_to_every_stay_of_its_patient_that_holds_it(tmp_path: Path) -> None:
    stays, report = small(
        tmp_path,
        "1,outer,2024-05-01 08:00,2024-05-04 08:00,0,\n"
        "1,inner,2024-05-02 08:00,2024-05-02 09:00,0,\n"
        "1,open,2024-06-01 08:00,,0,\n"
        "1,next,2024-06-03 08:00,2024-06-04 08:00,0,\n",
        "1,2024-05-01 09:00,HR,61,/min\n1,2024-05-02 08:30,HR,62,/min\n"
        "1,2024-05-03 09:00,HR,63,/min\n1,2024-05-20 09:00,HR,64,/min\n"
        "1,2024-06-02 09:00,HR,65,/min\n1,2024-06-03 09:00,HR,66,/min\n"
        "1,2024-04-01 09:00,HR,67,/min\n",
    )
    found = {name: stay.value_E.tolist() for name, stay in stays.items()}
    assert found == {"outer": [61, 62, 63], "inner": [62], "open": [65], "next": [66]}
    assert report.set_aside == {"events after the end of their stay": 1, NO_STAY: 1}


def test_an_outcome_of_a_day_may_have_happened_at_its_begin_or_its_end(tmp_path: Path) -> None:
    stays, _ = small(
        tmp_path,
        "1,a,2024-05-01 08:00,2024-05-04 08:00,1,2024-05-03\n"
        "2,b,2024-05-01 08:00,2024-05-04 08:00,1,2024-05-01\n"
        "3,c,2024-05-01 08:00,2024-05-04 08:00,1,2024-05-03 12:00\n",
        "",
        stays='outcome_time = "died"',
    )
    hours = {name: (stay.outcome_h, stay.outcome_until_h) for name, stay in stays.items()}
    assert hours == {"a": (40, 64), "b": (0, 16), "c": (52, None)}


def test_a_stay_of_one_day_may_end_and_its_patient_die_on_that_day(tmp_path: Path) -> None:
    stays, report = small(
        tmp_path,
        "1,a,2024-05-01,2024-05-01,0,\n2,b,2024-05-01 18:00,2024-05-01,0,\n"
        "3,c,2024-05-01 18:00,2024-04-30,0,\n",
        "1,2024-05-01,HR,60,/min\n2,2024-05-01,HR,61,/min\n2,2024-05-01 20:00,HR,62,/min\n",
    )
    assert {name: stay.end_h for name, stay in stays.items()} == {"a": 24, "b": 6}
    assert stays["a"].hours_E.tolist() == [24]
    assert stays["b"].hours_E.tolist() == [2, 6]
    assert report.set_aside == {"stays that end before they start": 1}


def test_an_end_that_never_comes_is_none(tmp_path: Path) -> None:
    stays, _ = small(
        tmp_path, "1,a,2024-05-01 08:00,9999-12-31,0,\n", "1,2024-05-01 09:00,HR,60,/min\n"
    )
    assert (stays["a"].end_h, stays["a"].hours_E.tolist()) == (None, [1])


def test_hours_may_be_written_as_hours_and_minutes(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text("p,y\n1,0\n")
    (tmp_path / "events.csv").write_text("p,t,v,x,u\n1,26:30,HR,80,/min\n1,00:15,HR,90,/min\n")
    settings = tables(events='hours = "t"').replace('start = "start"\nend = "end"\n', "")
    assert read(tmp_path, settings)[0]["1"].hours_E.tolist() == [0.25, 26.5]


def test_hours_count_through_the_night_in_which_the_clock_is_put_back(tmp_path: Path) -> None:
    stays, _ = small(
        tmp_path,
        "1,a,2024-10-26 12:00,2024-10-27 12:00,0,\n",
        "1,2024-10-27 01:30,HR,60,/min\n1,2024-10-27 02:30,HR,61,/min\n"
        "1,2024-10-27 03:30,HR,62,/min\n1,2024-10-26,HR,63,/min\n",
        more='time_zone = "Europe/Berlin"',
    )
    # Half past two comes twice: the value counts from the second time.
    assert dict(zip(stays["a"].value_E, stays["a"].hours_E, strict=True)) == {
        63: 12, 60: 13.5, 61: 15.5, 62: 16.5,
    }  # fmt: skip
    assert stays["a"].end_h == 25


def test_a_cell_that_two_stated_formats_read_differently_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1 cells that fit several of the formats"):
        small(
            tmp_path,
            "1,a,2024-05-01 08:00,2024-05-04 08:00,0,\n",
            "1,01/05/2024 10:00,HR,60,/min\n1,15/05/2024 10:00,HR,60,/min\n",
            events='time = "t"\ntime_format = ["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"]',
        )


ROOT = Path(__file__).resolve().parents[5]
SYNTHEA = ROOT.parent / "shared" / "data" / "omop_synthea" / "Synthea27Nj_5.4.zip"
TABLES_OF_CDM = {
    "person", "visit_occurrence", "visit_detail", "death", "measurement", "observation",
    "concept", "concept_ancestor", "condition_occurrence", "drug_exposure",
    "procedure_occurrence",
}  # fmt: skip


def test_a_public_extract_of_midnights_keeps_its_deaths_and_shows_nothing_early(
    tmp_path: Path,
) -> None:
    if not SYNTHEA.exists():
        pytest.skip("the records omop_synthea are not beside the repository")
    connection = sqlite3.connect(tmp_path / "cdm.sqlite")
    with zipfile.ZipFile(SYNTHEA) as archive:
        for member in archive.namelist():
            name = Path(member).stem.lower()
            if name in TABLES_OF_CDM and not member.startswith("__"):
                frame = pl.read_csv(archive.read(member), infer_schema_length=None)
                connection.execute(f"CREATE TABLE {name} ({', '.join(frame.columns)})")
                places = ", ".join("?" * frame.width)
                insert = f"INSERT INTO {name} VALUES ({places})"  # noqa: S608  # our own names
                connection.executemany(insert, frame.rows())
    connection.commit()
    connection.close()
    stays, report = read(tmp_path, OMOP + "stay_concepts = [9201, 9202, 9203]\n")
    assert len(stays) == report.times[STAYS_BY_DAY] == 1791
    assert (sum(float(stay.label) for stay in stays.values()), report.unlabelled) == (3, 0)
    assert report.times[MIDNIGHTS] > 2 * 1791
    assert all(float(stay.hours_E.min(initial=24)) >= 24 for stay in stays.values())
    assert sum(len(stay.hours_E) for stay in stays.values()) == report.events == 449


@pytest.mark.parametrize("midnight", ["detect", "day"])
def test_ends_calculated_from_hours_are_no_placeholders(midnight: str, tmp_path: Path) -> None:
    people = [f"{n},48,{n % 2}" for n in range(30)]
    (tmp_path / "stays.csv").write_text("\n".join(["p,left,y", *people]))
    events = [f"{n},{hour},80" for n in range(30) for hour in (1, 47, 49)]
    (tmp_path / "events.csv").write_text("\n".join(["p,h,v", *events]))
    text = f"""source = "tables"
midnight = "{midnight}"
[stays]
file = "stays.csv"
patient = "p"
end_hours = "left"
label = "y"
[[events]]
file = "events.csv"
layout = "wide"
stay = "p"
hours = "h"
[variables.HR]
column = "v"
unit = "/min"
"""
    settings = read_data_settings(tomllib.loads(text), where="site.toml", folder=tmp_path)
    source = open_source(settings, HR)
    assert {stay.end_h for one in source.read_patients(HR) for stay in one.stays} == {48}
    assert source.report.times == {}
    assert source.report.funnel["HR"] == {"kept": 60, "outside its stay": 30}
