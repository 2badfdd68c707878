"""Damaged files of a hospital's own systems: one sentence, or clean values."""

import datetime as dt
import json
import sqlite3
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from consilium.client.sources.common.source import Source
from consilium.client.sources.own.fhir import fhir_connection
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.study.definition import with_changes
from tests.client.sources.cohort_formats import STUDY, fill_omop
from tests.client.sources.fhir_server import running
from tests.client.sources.own.databases.test_omop import pulse, rows
from tests.client.sources.own.fhir.test_fhir import SETTINGS as FHIR
from tests.client.sources.own.fhir.test_fhir import encounter, export, observation, patient
from tests.client.sources.own.hl7.test_hl7 import SETTINGS as HL7
from tests.client.sources.own.hl7.test_hl7 import STAYS, obx, oru
from tests.client.sources.own.meds.test_meds import HR, IN, person
from tests.client.sources.own.meds.test_meds import SETTINGS as MEDS
from tests.client.sources.own.meds.test_meds import write as write_rows
from tests.client.sources.own.tables.test_tables import only
from tests.client.sources.test_damaged_files import (
    DAMAGES,
    SECRET,
    Format,
    damaged,
    outcome_of,
    refusals,
)

SMALL = with_changes(
    only(STUDY, "HR", "Gender", "Age"), data={"source": "hospital", "on_bad_file": "refuse"}
)


def opened(text: str, folder: Path) -> Source:
    return open_source(
        read_data_settings(tomllib.loads(text), where="site.toml", folder=folder), SMALL
    )


def write_meds(folder: Path) -> None:
    secret = (IN, HR, SECRET, None, "/min")
    write_rows(folder, [*person(1, secret), *person(2, secret, died=True)])


def write_omop(folder: Path) -> None:
    content = rows(pulse(1, SECRET, measurement_id=7), pulse(2, SECRET, measurement_id=8))
    fill_omop(f"sqlite:///{folder / 'cdm.sqlite'}", content, schema=None)


def write_fhir(folder: Path) -> None:
    export(folder, observation("1", SECRET), observation("2", SECRET), packed=True)


def write_stays(folder: Path, write: Callable[[pl.DataFrame, Path], object], ending: str) -> None:
    """Two tables of two persons; a heart rate each that no error may show."""
    stays = pl.DataFrame({"p": [1, 2], "start": [IN_TIME] * 2, "y": [0, 1], "sex": ["M", "F"]})
    events = pl.DataFrame({"p": [1, 2], "t": [IN_TIME] * 2, "v": ["HR"] * 2, "x": [SECRET] * 2})
    write(stays, folder / f"stays.{ending}")
    write(events, folder / f"events.{ending}")


def tables(ending: str, more: str = "") -> str:
    stays, events = (f'file = "{name}.{ending}"{more}' for name in ("stays", "events"))
    return TABLES.format(stays=stays, events=events, source="tables", where="")


def write_xlsx(frame: pl.DataFrame, path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("fastexcel")
    book = openpyxl.Workbook()
    for row in (frame.columns, *frame.iter_rows()):
        book.active.append(row)
    book.save(path)


def write_zst(frame: pl.DataFrame, path: Path) -> None:
    pytest.importorskip("backports.zstd")
    from backports import zstd

    path.write_bytes(zstd.compress(frame.write_csv().encode("utf-16")))


def write_database(folder: Path) -> None:
    def write(frame: pl.DataFrame, path: Path) -> None:
        columns = ", ".join(frame.columns)
        with sqlite3.connect(folder / "his.db") as connection:
            connection.execute(f"create table {path.stem} ({columns})")
            marks = ", ".join("?" * len(frame.columns))
            for row in frame.iter_rows():
                cells = [str(c) if isinstance(c, dt.datetime) else c for c in row]
                connection.execute(f"insert into {path.stem} values ({marks})", cells)  # noqa: S608
        connection.close()

    write_stays(folder, write, "db")


def write_duckdb(folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("duckdb_engine")
    write_stays(folder, lambda frame, path: frame.write_parquet(path), "parquet")
    with duckdb.connect(str(folder / "his.duckdb")) as connection:
        for name in ("stays", "events"):
            path = folder / f"{name}.parquet"
            connection.execute(f"create table {name} as from '{path}'")
            path.unlink()


def write_bundle(folder: Path) -> None:
    resources = [of(n) for n in ("1", "2") for of in (patient, encounter)]
    resources += [observation(n, SECRET) for n in ("1", "2")]
    content = {"resourceType": "Bundle", "type": "collection",
               "entry": [{"fullUrl": f"urn:x:{n}", "resource": one}
                         for n, one in enumerate(resources)]}  # fmt: skip
    (folder / "b.json").write_text(json.dumps(content))


def write_messages(folder: Path) -> None:
    results = [oru(obx(str(SECRET)), person=p, visit=v) for p, v in (("7", "71"), ("8", "81"))]
    (folder / "m.hl7").write_text("\r".join([*STAYS, *results]), newline="")


def database(name: str) -> str:
    return TABLES.format(stays='table = "stays"', events='query = "select * from events"',
                         source="sql", where=f'file = "{name}"')  # fmt: skip


TABLES = """source = "{source}"
{where}
[stays]
{stays}
patient = "p"
start = "start"
label = "y"
[[events]]
{events}
patient = "p"
time = "t"
variable = "v"
value = "x"
[variables.HR]
unit = "/min"
[variables.Gender]
column = "sex"
values = {{ M = 1, F = 0 }}
"""
IN_TIME = dt.datetime(2020, 1, 1, 8)
NEW = {
    "xlsx": Format(
        SMALL,
        lambda folder: write_stays(folder, write_xlsx, "xlsx"),
        lambda folder: opened(tables("xlsx"), folder),
    ),
    "sql": Format(SMALL, write_database, lambda folder: opened(database("his.db"), folder)),
}
NEW_AND_SLOW = {
    "hl7": Format(SMALL, write_messages, lambda folder: opened(HL7, folder)),
    "arrow": Format(
        SMALL,
        lambda folder: write_stays(folder, lambda frame, path: frame.write_ipc(path), "arrow"),
        lambda folder: opened(tables("arrow"), folder),
    ),
    "zst": Format(
        SMALL,
        lambda folder: write_stays(folder, write_zst, "csv.zst"),
        lambda folder: opened(tables("csv.zst", '\nencoding = "utf-16"'), folder),
    ),
    "duckdb": Format(SMALL, write_duckdb, lambda folder: opened(database("his.duckdb"), folder)),
    "bundle": Format(SMALL, write_bundle, lambda folder: opened(FHIR, folder)),
}
FORMATS = {
    "fhir": Format(SMALL, write_fhir, lambda folder: opened(FHIR, folder)),
    "omop": Format(
        SMALL, write_omop, lambda folder: opened('source = "omop"\nfile = "cdm.sqlite"', folder)
    ),
    "meds": Format(SMALL, write_meds, lambda folder: opened(MEDS, folder)),
}


FORMATS |= NEW
LONG = {"fhir", "omop", "sql"}  # to read


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in FORMATS]
)
def test_a_damaged_system_ends_in_one_sentence_or_in_values_in_range(
    name: str, tmp_path: Path
) -> None:
    assert sum(map(bool, refusals(FORMATS[name], tmp_path, name))) > DAMAGES // 10


@pytest.mark.slow
@pytest.mark.parametrize("name", NEW_AND_SLOW)
def test_a_damaged_file_of_a_further_form_does_so_too(name: str, tmp_path: Path) -> None:
    assert sum(map(bool, refusals(NEW_AND_SLOW[name], tmp_path, name))) > DAMAGES // 10


@pytest.mark.slow
@pytest.mark.parametrize("fetch", ["export", "search"])
def test_a_server_that_answers_anything_ends_in_one_sentence_or_in_values_in_range(
    fetch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fhir_connection, "wait", lambda seconds: None)
    people = [of(n) for n in ("1", "2") for of in (patient, encounter)]
    pulses = [observation(n, SECRET) for n in ("1", "2")]
    with running(tmp_path, [*people, *pulses]) as server:
        text = (
            f'source = "fhir"\nserver = "{server.address}/fhir"\nca_file = "{server.ca}"\n'
            f'fetch = "{fetch}"'
        )
        stream = np.random.default_rng(11)
        told = []
        for _ in range(DAMAGES):
            left = int(stream.integers(0, 6))  # answers until one is damaged

            def damage(body: bytes) -> bytes:
                nonlocal left
                left -= 1
                return damaged(body, stream) if left == -1 else body

            server.damage, server.polls = damage, 1
            told.append(outcome_of(opened(text, tmp_path), SMALL))
    assert sum(map(bool, told)) > DAMAGES // 10
