"""OMOP databases, real ones: what is read, that nothing is written, where secrets may lie."""

import datetime as dt
import sqlite3
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sql

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.sources.common.reasons import (
    BEYOND_LIMIT,
    INCOMPLETE,
    NO_STAY,
    NO_TIME,
    NO_VALUE,
    NOT_A_NUMBER,
)
from consilium.client.sources.common.source import ReadReport
from consilium.client.sources.own.databases.omop_database import ColumnKind, open_database
from consilium.client.sources.own.settings.systems import OmopSettings
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import ConsiliumError, DataError, SettingsError
from consilium.shared.study.definition import Study, with_changes
from tests.client.sources.cohort_formats import STUDY, fill_omop
from tests.client.sources.own.tables.test_tables import only
from tests.client.sources.postgresql import Server

IN, OUT = dt.datetime(2020, 1, 1, 8), dt.datetime(2020, 1, 3, 8)
HR, PER_MINUTE = 3027018, 8541
OMOP = with_changes(STUDY, data={"source": "omop"})
SMALL = only(OMOP, "HR", "Gender", "Age")
Rows = dict[str, list[dict[str, Any]]]


def pulse(person: int, value: float | None, **more: Any) -> dict[str, Any]:
    return {
        "measurement_id": person * 100, "person_id": person, "measurement_concept_id": HR,
        "measurement_datetime": IN + dt.timedelta(hours=1), "value_as_number": value,
        "unit_concept_id": PER_MINUTE,
    } | more  # fmt: skip


def rows(*measurements: dict[str, Any], **more: list[dict[str, Any]]) -> Rows:
    """Two persons with one stay each and a pulse of 80; the second dies on the last day."""
    return {
        "person": [
            {"person_id": 1, "gender_concept_id": 8532, "year_of_birth": 1950},
            {"person_id": 2, "gender_concept_id": 8507, "birth_datetime": dt.datetime(1960, 1, 1)},
        ],
        "visit_occurrence": [
            {
                "visit_occurrence_id": n, "person_id": n, "visit_concept_id": 9201,
                "visit_start_datetime": IN, "visit_end_datetime": OUT,
            }
            for n in (1, 2)
        ],
        "death": [{"person_id": 2, "death_date": OUT.date()}],
        "concept": [
            {"concept_id": PER_MINUTE, "concept_code": "/min", "vocabulary_id": "UCUM"},
            {"concept_id": 9529, "concept_code": "kg", "vocabulary_id": "other"},
        ],
        "measurement": [pulse(1, 80.0), pulse(2, 80.0), *measurements],
    } | more  # fmt: skip


def chosen(folder: Path, text: str = "") -> OmopSettings:
    where = "" if "url" in text else 'file = "cdm.sqlite"\n'
    content = tomllib.loads(f'source = "omop"\n{where}{text}')
    settings = read_data_settings(content, where="site.toml", folder=folder)
    assert isinstance(settings, OmopSettings)
    return settings


def read(
    folder: Path, content: Rows, text: str = "", study: Study = SMALL
) -> tuple[TimeGrid, ReadReport]:
    fill_omop(f"sqlite:///{folder / 'cdm.sqlite'}", content, schema=None)
    source = open_source(chosen(folder, text), study)
    return to_grid(source.read_patients(study), study), source.report


def values(grid: TimeGrid, variable: int = 0) -> list[list[float]]:
    return [value_T[~np.isnan(value_T)].tolist() for value_T in grid.value_NTV[:, :, variable]]


def fill(server: Server, content: Rows) -> str:
    """Fill the server's database; return the settings that lack the password."""
    fill_omop(server.url(password=True), content, schema="cdm")
    return f'url = "{server.url(password=False)}"\ndatabase_schema = "cdm"\n'


def test_a_database_is_read_with_age_sex_and_death(tmp_path: Path) -> None:
    grid, report = read(tmp_path, rows())
    assert values(grid) == [[80], [80]]
    assert grid.y_N.tolist() == [0, 1]
    assert grid.value_NTV[:, 0, 1:].tolist() == [[0, 69], [1, 60]]
    assert report.set_aside == {}


@pytest.mark.parametrize(
    ("measurement", "reason"),
    [
        (pulse(1, None), NO_VALUE),
        (pulse(1, None, value_as_concept_id=45877994), NOT_A_NUMBER),
        (pulse(1, 90.0, measurement_datetime=None), NO_TIME),
        (pulse(1, 90.0, operator_concept_id=4172704), BEYOND_LIMIT),
    ],
)
def test_rows_that_say_less_than_a_number_at_a_time_are_counted(
    measurement: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    _, report = read(tmp_path, rows(measurement | {"measurement_id": 7}))
    assert report.set_aside == {reason: 1}


def test_units_come_from_concepts_then_from_text_and_none_is_refused(tmp_path: Path) -> None:
    later = {"measurement_id": 7, "measurement_datetime": IN + dt.timedelta(hours=5)}
    per_second = later | {"unit_concept_id": 0, "unit_source_value": "/s"}
    grid, _ = read(tmp_path, rows(pulse(1, 1.5, **per_second)))
    assert values(grid) == [[80, 90], [80]]
    for wrong, sentence in (
        ({"unit_concept_id": 0, "unit_source_value": ""}, "variable HR: its rows say no unit"),
        ({"unit_concept_id": 9529, "unit_source_value": None}, "its rows say no unit"),
        ({"unit_concept_id": 0, "unit_source_value": "Meier"}, "1 rows have a unit that is no"),
    ):
        with pytest.raises(DataError, match=f"table measurement: .*{sentence}") as caught:
            read(tmp_path, rows(pulse(1, 1.5, **later | wrong)))
        assert "Meier" not in str(caught.value)


def test_drugs_conditions_and_answers_are_numbers_where_the_hospital_says_so(
    tmp_path: Path,
) -> None:
    study = only(OMOP, "HR", "Lactate", "GCS")
    when = IN + dt.timedelta(hours=2)
    drug = {"drug_exposure_id": 1, "person_id": 1, "drug_concept_id": 11,
            "drug_exposure_start_datetime": when}  # fmt: skip
    condition = {"condition_occurrence_id": 1, "person_id": 2, "condition_concept_id": 12,
                 "condition_start_datetime": when}  # fmt: skip
    procedure = {"procedure_occurrence_id": 1, "person_id": 2, "procedure_concept_id": 11,
                 "procedure_datetime": when + dt.timedelta(hours=3)}  # fmt: skip
    answer = pulse(1, None, measurement_id=8, measurement_concept_id=13, value_as_concept_id=99)
    settings = (
        "[variables.Lactate]\ncodes = [11, 12]\npresent = 1\n"
        "[variables.GCS]\ncodes = [13]\nvalues = { 99 = 15 }\n"
    )
    content = rows(
        answer,
        drug_exposure=[drug],
        condition_occurrence=[condition],
        procedure_occurrence=[procedure],
    )
    grid, report = read(tmp_path, content, settings, study)
    assert values(grid, 1) == [[1], [1, 1]]
    assert values(grid, 2) == [[15], []]
    assert report.set_aside == {}


def observed(number: int, **more: Any) -> dict[str, Any]:
    return {
        "observation_id": number, "person_id": 1, "observation_concept_id": HR,
        "observation_datetime": IN + dt.timedelta(hours=3 + number),
    } | more  # fmt: skip


def test_observations_bring_numbers_and_answers_as_measurements_do(tmp_path: Path) -> None:
    study = only(OMOP, "HR", "GCS")
    per_second = {"unit_concept_id": 0, "unit_source_value": "/s"}
    observations = [
        observed(1, value_as_number=90.0, unit_concept_id=PER_MINUTE),
        observed(2, value_as_number=1.5, **per_second),
        observed(3),
        observed(4, observation_concept_id=13, value_as_string="alert"),
        observed(5, observation_concept_id=13, value_as_string="alert", value_as_concept_id=99),
        observed(6, observation_concept_id=13, value_as_string="Meier"),
        observed(7, observation_datetime=None, value_as_number=90.0, unit_concept_id=PER_MINUTE),
    ]
    settings = "[variables.GCS]\ncodes = [13]\nvalues = { alert = 15, 99 = 14 }\n"
    grid, report = read(tmp_path, rows(observation=observations), settings, study)
    assert values(grid) == [[80, 90, 90], [80]]
    assert values(grid, 1) == [[15, 14], []]
    assert report.set_aside == {NO_VALUE: 1, NOT_A_NUMBER: 1, NO_TIME: 1}


def test_an_extract_may_lack_observations_and_procedures(tmp_path: Path) -> None:
    study = only(OMOP, "HR", "Lactate")
    drug = {"drug_exposure_id": 1, "person_id": 1, "drug_concept_id": 11,
            "drug_exposure_start_datetime": IN + dt.timedelta(hours=2)}  # fmt: skip
    text = "[variables.Lactate]\ncodes = [11]\npresent = 1\n"
    read(tmp_path, rows(drug_exposure=[drug]), text, study)
    with sqlite3.connect(tmp_path / "cdm.sqlite") as connection:
        connection.execute("DROP TABLE observation")
        connection.execute("DROP TABLE procedure_occurrence")
    connection.close()
    source = open_source(chosen(tmp_path, text), study)
    grid = to_grid(source.read_patients(study), study)
    assert values(grid) == [[80], [80]]
    assert values(grid, 1) == [[1], []]


@pytest.mark.slow
def test_a_concept_stands_for_those_below_it_unless_the_hospital_says_otherwise(
    tmp_path: Path,
) -> None:
    septic_shock = {"condition_occurrence_id": 1, "person_id": 2, "condition_concept_id": 196236,
                    "condition_start_datetime": IN + dt.timedelta(hours=3)}  # fmt: skip
    below = [{"ancestor_concept_id": 132797, "descendant_concept_id": n} for n in (132797, 196236)]
    below += [{"ancestor_concept_id": 132797, "descendant_concept_id": n} for n in range(70_000)]
    content = rows(condition_occurrence=[septic_shock], concept_ancestor=below)
    settings = (
        '[outcome]\nkind = "condition"\ncodes = [132797]\n'
        "[variables.Lactate]\ncodes = [132797]\npresent = 2\n"
    )
    study = only(OMOP, "HR", "Lactate")
    grid, _ = read(tmp_path, content, settings, study)
    assert grid.y_N.tolist() == [0, 1]
    assert values(grid, 1) == [[], [2]]
    grid, _ = read(tmp_path, content, "descendants = false\n" + settings, study)
    assert grid.y_N.tolist() == [0, 0]
    assert values(grid, 1) == [[], []]


def test_details_of_visits_and_diagnoses_make_stays_and_labels(tmp_path: Path) -> None:
    detail = {"visit_detail_id": 5, "person_id": 1, "visit_detail_concept_id": 32037,
              "visit_detail_start_datetime": IN + dt.timedelta(hours=1),
              "visit_detail_end_datetime": OUT}  # fmt: skip
    sepsis = {"condition_occurrence_id": 1, "person_id": 1, "condition_concept_id": 132797,
              "condition_start_date": IN.date()}  # fmt: skip
    settings = (
        'stays = "visit_detail"\nstay_concepts = [32037]\n'
        '[outcome]\nkind = "condition"\ncodes = [132797]\n'
    )
    content = rows(visit_detail=[detail], condition_occurrence=[sepsis])
    grid, _ = read(tmp_path, content, settings)
    assert grid.patient_ids == ("1",)
    assert grid.y_N.tolist() == [1]
    assert grid.value_NTV[0, 0, 0] == 80


def test_what_sqlite_holds_against_its_columns_types_is_counted_and_never_guessed(
    tmp_path: Path,
) -> None:
    read(tmp_path, rows())
    with sqlite3.connect(tmp_path / "cdm.sqlite") as connection:
        insert = (
            "INSERT INTO measurement (measurement_id, person_id, measurement_concept_id, "
            "measurement_datetime, value_as_number, unit_source_value) VALUES (?, ?, ?, ?, ?, ?)"
        )
        late = "2020-01-01 12:00:00"
        for row in (
            (7, 1, HR, late, "seventy", "/min"),
            (8, 1, HR, "yesterday", 90, "/min"),
            (9, "one", HR, late, 90, "/min"),
            (10, 1, HR, late, float("inf"), "/min"),
            (11, 1, HR, late, b"\xff", "/min"),
            (12, 1, HR, b"\xff", 90, "/min"),
            (13, 2, HR, "2020-01-01T12:00", 91, b"\xff"),
        ):
            connection.execute(insert, row)
        connection.execute(
            "INSERT INTO visit_occurrence SELECT 3, 1, 9201, 'someday', visit_end_datetime "
            "FROM visit_occurrence LIMIT 1"
        )
    settings = chosen(tmp_path, '[variables.HR]\nunit = "/min"')
    source = open_source(settings, SMALL)
    grid = to_grid(source.read_patients(SMALL), SMALL)
    assert values(grid) == [[80], [80, 91]]
    expected = {INCOMPLETE: 1, NO_STAY: 1, NO_VALUE: 2, NO_TIME: 2, NOT_A_NUMBER: 1}
    assert source.report.set_aside == expected
    connection.close()


def test_codes_that_are_no_concepts_and_missing_tables_are_refused(tmp_path: Path) -> None:
    for text in (
        '[variables.HR]\ncodes = ["8867-4"]',
        '[variables.HR]\ncodes = ["12345678901234567890"]',
    ):
        with pytest.raises(SettingsError, match="is no OMOP concept id; write whole numbers"):
            read(tmp_path, rows(), text)
    for change, sentence in (
        ("DROP TABLE measurement", "table measurement: no such table, which OMOP CDM 5.4 has"),
        ("ALTER TABLE death DROP COLUMN death_datetime", "table death: no column 'death_datetime'"),
    ):
        with sqlite3.connect(tmp_path / "cdm.sqlite") as connection:
            connection.execute(change)
        connection.close()
        with pytest.raises(DataError, match=sentence) as caught:
            list(open_source(chosen(tmp_path), SMALL).read_patients(SMALL))
        assert str(caught.value).startswith(str(tmp_path / "cdm.sqlite"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('url = "postgresql://me:hunter2@h/db"', "url holds a password; remove it there"),
        ('url = "postgresql://me@h/db?password=hunter2"', "url holds a password"),
        ('url = "postgresql://h/db"\npassword_env = "A"\npassword_file = "b"', "keep one"),
        ('url = "postgresql://h/db"\nfile = "x"', "names neither or both of url and file"),
        ('url = "mysql://h/db"', "begins with 'mysql', and only postgresql://"),
        ('url = "no address"', "url is no database address"),
        ('url = "postgresql://h/db"\npassword_env = "UNSET_HERE"', "has no UNSET_HERE; set it"),
        ('url = "postgresql://h/db"\npassword_file = "missing"', "cannot be read as text"),
        ('url = "postgresql://h/db"\npassword_file = "open"', r"mode 644\); run 'chmod 600"),
        ('url = "postgresql://h/db"\npassword_file = "empty"', "must hold the password in one"),
        ('url = "postgresql://h/db"\npassword_file = "long"', "must hold the password in one"),
    ],
)
def test_secrets_lie_in_the_environment_or_in_a_file_of_mode_0600(
    text: str, sentence: str, tmp_path: Path
) -> None:
    pytest.importorskip("psycopg")
    for name, mode, content in (
        ("open", 0o644, "hunter2"),
        ("empty", 0o600, "\n"),
        ("long", 0o600, "hunter2\n" * 2000),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    with pytest.raises(ConsiliumError, match=sentence) as caught:
        list(open_source(chosen(tmp_path, text), SMALL).read_patients(SMALL))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cdm.sqlite does not exist; correct \[data\] file"):
        list(open_source(chosen(tmp_path), SMALL).read_patients(SMALL))
    (tmp_path / "cdm.sqlite").write_text("person,visit\n" * 200)
    with pytest.raises(DataError, match=r"cannot be read \(DatabaseError"):
        list(open_source(chosen(tmp_path), SMALL).read_patients(SMALL))


def test_times_with_a_zone_in_the_database_are_instants(
    postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMOP_PASSWORD", postgresql.password)
    text = fill(postgresql, rows()) + 'password_env = "OMOP_PASSWORD"\n'
    plain, _ = read(tmp_path, rows())
    engine = sql.create_engine(postgresql.url(password=True))

    def with_zone(table: str, *columns: str) -> None:
        changes = ", ".join(
            f"ALTER COLUMN {one} TYPE timestamptz USING {one} AT TIME ZONE 'Europe/Berlin'"
            for one in columns
        )
        with engine.begin() as connection:
            connection.execute(sql.text(f"ALTER TABLE cdm.{table} {changes}"))

    def again(more: str = "") -> TimeGrid:
        source = open_source(chosen(tmp_path, more + text), SMALL)
        return to_grid(source.read_patients(SMALL), SMALL)

    with_zone("measurement", "measurement_datetime")
    with pytest.raises(DataError, match=r"table measurement .* do not both have a time zone"):
        again()
    grids = [again('time_zone = "Europe/Berlin"\n')]
    with_zone("visit_occurrence", "visit_start_datetime", "visit_end_datetime")
    grids += [again('time_zone = "Europe/Berlin"\n'), again()]
    engine.dispose()
    for grid in grids:
        assert np.array_equal(grid.value_NTV, plain.value_NTV, equal_nan=True)
        assert grid.y_N.tolist() == plain.y_N.tolist() == [0, 1]


def test_nothing_can_be_written_through_the_connection(
    postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(tmp_path, rows())
    monkeypatch.setenv("OMOP_PASSWORD", postgresql.password)
    server = fill(postgresql, rows()) + 'password_env = "OMOP_PASSWORD"\n'
    for text, table in (("", "death"), (server, "cdm.death")):
        refused = pytest.raises(DataError, match=r"be read \((OperationalError|InternalError)")
        with refused, open_database(chosen(tmp_path, text)) as database:
            database._reader._connection.execute(sql.text(f"DELETE FROM {table}"))  # noqa: S608  # ours
    with open_database(chosen(tmp_path)) as database:  # not even where the check is switched off
        database._reader._connection.exec_driver_sql("PRAGMA query_only = OFF")
        with pytest.raises(sql.exc.OperationalError, match="readonly"):
            database._reader._connection.exec_driver_sql("DELETE FROM death")


def test_rows_come_from_a_cursor_at_the_server_and_from_one_state_of_the_data(
    postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilium.client.sources.own.databases.database.PIECE_ROWS", 10)
    monkeypatch.setenv("OMOP_PASSWORD", postgresql.password)
    extra = [pulse(1 + n % 2, 80.0, measurement_id=1000 - n) for n in range(50)]
    text = fill(postgresql, rows(*extra)) + 'password_env = "OMOP_PASSWORD"\n'
    columns = {
        "person": ("person_id", ColumnKind.WHOLE),
        "id": ("measurement_id", ColumnKind.WHOLE),
    }
    engine = sql.create_engine(postgresql.url(password=True))
    with open_database(chosen(tmp_path, text)) as database, engine.connect() as other:
        pieces = database.rows("measurement", columns, order=("person_id", "measurement_id"))
        found = [*next(pieces).iter_rows()]
        asked = other.execute(sql.text(
            "SELECT query FROM pg_stat_activity WHERE application_name = 'consilium-site'"
        )).scalars().all()  # fmt: skip
        assert any("FETCH FORWARD" in query for query in asked)
        other.execute(sql.text("DELETE FROM cdm.measurement"))
        other.commit()
        found += [row for piece in pieces for row in piece.iter_rows()]
        assert len(found) == 52
        assert found == sorted(found)
        assert sum(len(piece) for piece in database.rows("measurement", columns)) == 52
    engine.dispose()


def test_a_failing_server_is_told_without_the_password_or_a_row(
    postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = fill(postgresql, rows()) + 'password_env = "OMOP_PASSWORD"\n'
    monkeypatch.setenv("OMOP_PASSWORD", "wrong-" + postgresql.password)
    with pytest.raises(DataError, match=r"cannot be opened: .*password authentication") as caught:
        list(open_source(chosen(tmp_path, text), SMALL).read_patients(SMALL))
    assert postgresql.password not in str(caught.value)
    monkeypatch.setenv("OMOP_PASSWORD", postgresql.password)
    engine = sql.create_engine(postgresql.url(password=True))
    with engine.begin() as connection:
        connection.execute(sql.text("ALTER TABLE cdm.measurement RENAME TO old"))
        connection.execute(sql.text(
            "CREATE VIEW cdm.measurement AS SELECT measurement_id, person_id, "
            "measurement_concept_id, measurement_datetime, operator_concept_id, unit_concept_id, "
            "unit_source_value, value_as_concept_id, ('Meier' || person_id)::numeric AS "
            "value_as_number FROM cdm.old"
        ))  # fmt: skip
    try:
        with pytest.raises(DataError, match="reading table measurement failed") as caught:
            list(open_source(chosen(tmp_path, text), SMALL).read_patients(SMALL))
        assert "22P02" in str(caught.value)
        assert "Meier" not in str(caught.value)
    finally:
        with engine.begin() as connection:
            connection.execute(sql.text("DROP SCHEMA cdm CASCADE"))
        engine.dispose()


def test_endless_times_of_a_server_count_as_unknown(
    postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = fill(postgresql, rows()) + 'password_env = "OMOP_PASSWORD"\n'
    monkeypatch.setenv("OMOP_PASSWORD", postgresql.password)
    engine = sql.create_engine(postgresql.url(password=True))
    with engine.begin() as connection:
        for change in (
            "visit_occurrence SET visit_end_datetime = 'infinity' WHERE person_id = 1",
            "measurement SET measurement_datetime = '-infinity' WHERE person_id = 2",
        ):
            connection.execute(sql.text(f"UPDATE cdm.{change}"))
    engine.dispose()
    source = open_source(chosen(tmp_path, text), SMALL)
    grid = to_grid(source.read_patients(SMALL), SMALL)
    assert values(grid) == [[80], []]
    assert source.report.set_aside == {NO_TIME: 1}


LOCAL = 2_000_000_017


def test_local_concepts_are_concepts(tmp_path: Path) -> None:
    content = rows(pulse(1, 90.0, measurement_id=9, measurement_concept_id=LOCAL))
    text = f"[variables.HR]\ncodes = [{LOCAL}]"
    assert values(read(tmp_path, content, text)[0]) == [[90], []]


def without(folder: Path, *changes: str) -> None:
    with sqlite3.connect(folder / "cdm.sqlite") as connection:
        for change in changes:
            connection.execute(change)
    connection.close()


def again(folder: Path, text: str = "") -> TimeGrid:
    return to_grid(open_source(chosen(folder, text), SMALL).read_patients(SMALL), SMALL)


def test_an_extract_without_the_vocabulary_takes_units_as_written_and_guesses_none(
    tmp_path: Path,
) -> None:
    both = {"unit_source_value": "/min"}
    content = rows(measurement=[pulse(n, 80.0, **both) for n in (1, 2)])
    read(tmp_path, content)
    without(tmp_path, "DROP TABLE concept", "DROP TABLE concept_ancestor")
    assert values(again(tmp_path)) == [[80], [80]]
    without(tmp_path, "UPDATE measurement SET unit_source_value = NULL")
    with pytest.raises(DataError, match="variable HR: 2 rows have a unit that is no known UCUM"):
        again(tmp_path)
    assert values(again(tmp_path, 'units = { "concept 8541" = "/min" }')) == [[80], [80]]
    without(tmp_path, "UPDATE measurement SET unit_concept_id = 0")
    with pytest.raises(DataError, match=r"no table concept_ancestor, .* write descendants = false"):
        again(tmp_path, "[variables.HR]\ncodes = [3027018]\nunit = '/min'\npresent = 1")


def test_an_extract_without_deaths_tells_them_by_discharge_or_says_that_it_knows_none(
    tmp_path: Path,
) -> None:
    read(tmp_path, rows())
    without(tmp_path, "DROP TABLE death")
    with pytest.raises(DataError, match="has no table death, and visit_occurrence no discharged"):
        again(tmp_path)
    without(
        tmp_path,
        "ALTER TABLE visit_occurrence ADD COLUMN discharged_to_concept_id INTEGER",
        "UPDATE visit_occurrence SET discharged_to_concept_id = 8536 WHERE person_id = 1",
        "UPDATE visit_occurrence SET discharged_to_concept_id = 4216643 WHERE person_id = 2",
    )
    assert again(tmp_path).y_N.tolist() == [0, 1]
    without(
        tmp_path, "UPDATE visit_occurrence SET discharged_to_concept_id = 0 WHERE person_id = 1"
    )
    source = open_source(chosen(tmp_path), SMALL)
    assert to_grid(source.read_patients(SMALL), SMALL).y_N.tolist() == [1]
    assert source.report.unlabelled == 1


@pytest.mark.parametrize("form", ["{t:%Y-%m-%dT%H:%M:%S}", "{t:%Y-%m-%d %H:%M:%S}+00:00"])
def test_times_as_text_are_times(form: str, postgresql: Server, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    content = rows()
    content["person"][1] = {"person_id": 2, "gender_concept_id": 8507, "year_of_birth": 1960}
    read(tmp_path, content)
    zone = "+00:00" if "+" in form else ""
    mark = "T" if "T" in form else " "
    for table, names in (
        ("visit_occurrence", ("visit_start_datetime", "visit_end_datetime")),
        ("measurement", ("measurement_datetime",)),
    ):
        for name in names:
            without(
                tmp_path,
                f"UPDATE {table} SET {name} = "  # noqa: S608  # ours
                f"replace(substr({name}, 1, 19), ' ', '{mark}') || '{zone}'",
            )
    assert values(again(tmp_path)) == [[80], [80]]
    monkeypatch.setenv("OMOP_PASSWORD", postgresql.password)
    text = fill(postgresql, content) + 'password_env = "OMOP_PASSWORD"\n'
    engine = sql.create_engine(postgresql.url(password=True))
    with engine.begin() as connection:
        for table, name in (
            ("visit_occurrence", "visit_start_datetime"),
            ("visit_occurrence", "visit_end_datetime"),
            ("measurement", "measurement_datetime"),
        ):
            connection.execute(sql.text(
                f"ALTER TABLE cdm.{table} ALTER {name} TYPE text USING "
                f"to_char({name}, 'YYYY-MM-DD\"{mark}\"HH24:MI:SS') || '{zone}'"
            ))  # fmt: skip
    engine.dispose()
    assert values(again(tmp_path, text)) == [[80], [80]]
    assert again(tmp_path, text).y_N.tolist() == [0, 1]


def test_tables_named_in_capitals_and_in_duckdb_are_the_same(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("duckdb_engine")
    read(tmp_path, rows(pulse(1, 80.5, measurement_id=9)))
    expected = again(tmp_path)
    engine = sql.create_engine(f"sqlite:///{tmp_path / 'cdm.sqlite'}")
    with duckdb.connect(str(tmp_path / "cdm.duckdb")) as other, engine.connect() as one:
        for table in sql.inspect(one).get_table_names():
            columns = sql.inspect(one).get_columns(table)
            kinds = ", ".join(f"{c['name']} {c['type']}".replace("DATETIME", "TIMESTAMP")
                              for c in columns)  # fmt: skip  # reads as one
            other.execute(f"CREATE TABLE {table.upper()} ({kinds})")
            for row in one.execute(sql.text(f"SELECT * FROM {table}")):  # noqa: S608  # ours
                marks = ", ".join("?" * len(columns))
                other.execute(f"INSERT INTO {table.upper()} VALUES ({marks})", tuple(row))  # noqa: S608
    engine.dispose()
    settings = tomllib.loads('source = "omop"\nfile = "cdm.duckdb"')
    source = open_source(read_data_settings(settings, where="site.toml", folder=tmp_path), SMALL)
    got = to_grid(source.read_patients(SMALL), SMALL)
    assert np.array_equal(got.value_NTV, expected.value_NTV, equal_nan=True)
    assert got.y_N.tolist() == expected.y_N.tolist()
