"""Databases of any schema, real ones: the values of the same tables, nothing written, no secret."""

import datetime as dt
import sqlite3
import tomllib
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sql

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.sources.own.databases import database
from consilium.client.sources.own.databases.cells import column
from consilium.client.sources.own.settings.systems import SqlSettings
from consilium.client.sources.reach import ask_source
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import ConsiliumError, DataError, SettingsError
from consilium.shared.study.definition import with_changes
from tests.client.sources.own.tables.test_tables import HR as PULSE
from tests.client.sources.postgresql import Server

HR = with_changes(PULSE, data={"source": "hospital"})
TABLES = {
    "stays": ("p bigint, s bigint, started timestamp, ended timestamp, y int", [
        (7, 71, "2020-01-01 00:00:00", "2020-01-02 00:00:00", 0),
        (8, 81, "2020-01-01 00:00:00", "2020-01-05 00:00:00", 1),
    ]),
    "labs": ("s bigint, t timestamp, v varchar(9), x numeric(9,3), u varchar(9)", [
        (71, "2020-01-01 01:00:00", "HR", 80, "/min"),
        (81, "2020-01-01 02:30:00", "HR", 90.5, "/min"),
        (81, "2020-01-01 03:30:00", "K%:x", 4, "mmol/L"),
        (81, None, "HR", None, None),
    ]),
}  # fmt: skip  # a row a line
SETTINGS = """source = "sql"
{where}
[stays]
table = "stays"
patient = "p"
stay = "s"
start = "started"
end = "ended"
label = "y"
[[events]]
query = "{query}"
stay = "s"
time = "t"
variable = "v"
value = "x"
unit = "u"
"""
QUERY = "select * from labs where v not like 'K%:x' and s::bigint > 0"


def statements() -> list[str]:
    found = []
    for name, (columns, rows) in TABLES.items():
        found.append(f"create table {name} ({columns})")
        for row in rows:
            cells = ("null" if c is None else f"'{c}'" for c in row)
            found.append(f"insert into {name} values ({', '.join(cells)})")  # noqa: S608  # ours
    return found


def write_sqlite(folder: Path) -> str:
    with sqlite3.connect(folder / "his.db") as connection:
        for one in statements():
            connection.execute(one)
    connection.close()
    return SETTINGS.format(
        where='file = "his.db"', query="with a as (select * from labs) select * from a;"
    )


def write_duckdb(folder: Path) -> str:
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("duckdb_engine")
    with duckdb.connect(str(folder / "his.duckdb")) as connection:
        for one in statements():
            connection.execute(one)
    return SETTINGS.format(where='file = "his.duckdb"', query=QUERY)


def write_postgresql(folder: Path, server: Server) -> str:
    engine = sql.create_engine(server.url(password=True))
    with engine.begin() as connection:
        for name in TABLES:
            connection.exec_driver_sql(f"drop table if exists {name}")
        for one in statements():
            connection.exec_driver_sql(one.replace("%", "%%"))
    engine.dispose()
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(server.password + "\n")
    where = f'url = "{server.url(password=False)}"\npassword_file = "password"'
    return SETTINGS.format(where=where, query=QUERY)


def chosen(text: str, folder: Path) -> SqlSettings:
    settings = read_data_settings(tomllib.loads(text), where="site.toml", folder=folder)
    assert isinstance(settings, SqlSettings)
    return settings


def read(text: str, folder: Path) -> TimeGrid:
    return to_grid(open_source(chosen(text, folder), HR).read_patients(HR), HR)


def check(grid: TimeGrid) -> None:
    assert grid.patient_ids == ("7", "8")
    assert grid.y_N.tolist() == [0, 1]
    assert [value_T[~np.isnan(value_T)].tolist() for value_T in grid.value_NTV[:, :, 0]] == [
        [80],
        [90.5],
    ]


def test_sqlite_is_read(tmp_path: Path) -> None:
    check(read(write_sqlite(tmp_path), tmp_path))


def test_duckdb_is_read(tmp_path: Path) -> None:
    check(read(write_duckdb(tmp_path), tmp_path))


def test_postgresql_is_read(postgresql: Server, tmp_path: Path) -> None:
    text = write_postgresql(tmp_path, postgresql)
    check(read(text, tmp_path))
    check(read(text.replace('table = "stays"', 'table = "public.stays"'), tmp_path))


def test_views_capitals_and_small_pieces_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_sqlite(tmp_path)
    with sqlite3.connect(tmp_path / "his.db") as connection:
        connection.execute(
            'create view V as select p as P, s as S, started, ended, y as "Y" from stays'
        )
    connection.close()
    monkeypatch.setattr(database, "PIECE_ROWS", 1)
    check(read(text.replace('table = "stays"', 'table = "V"'), tmp_path))


def test_nothing_can_be_written(postgresql: Server, tmp_path: Path) -> None:
    for folder, write in (
        ("a", write_sqlite),
        ("b", write_duckdb),
        ("c", lambda place: write_postgresql(place, postgresql)),
    ):
        (tmp_path / folder).mkdir()
        settings = chosen(write(tmp_path / folder), tmp_path / folder)
        with (
            pytest.raises(DataError, match=r"failed|cannot be read"),
            database.open_database(settings) as opened,
        ):
            list(opened.stream("delete from labs", "a query"))
        check(to_grid(open_source(settings, HR).read_patients(HR), HR))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('table = "stays"', 'table = "nope"'), r"his\.db: table nope is not there; correct"),
        (('patient = "p"', 'patient = "q"'), r"table stays has no column 'q'"),
        (('value = "x"', 'value = "q"'), r"a query of \[data\] has no column 'q'"),
        (
            ("select * from a;", "select nope from labs"),
            r"reading a query of \[data\] failed \(Ope",
        ),
        (
            ("with a as (select * from labs) select * from a;", "delete from labs"),
            "begins with nei",
        ),
        (("select * from a;", "select 1; drop table labs"), "query holds a ';'; write one"),
        (('table = "stays"', 'table = "stays"\nquery = "select 1"'), "both of table and query"),
        (('table = "stays"\n', ""), "neither or both of table and query"),
        (('file = "his.db"', ""), "neither or both of url and file"),
        (('file = "his.db"', 'file = "his.txt"'), r"his\.txt does not exist; correct"),
        (('file = "his.db"', 'url = "mysql://h/d"'), "begins with 'mysql', and only postgresql://"),
        (('file = "his.db"', 'url = "postgresql://u:hunter2@h/d"'), "url holds a password"),
        (('file = "his.db"', 'url = "mssql+pymssql://h/d"'), "write mssql://"),
        (("select * from a;", "select s, t, v, x'00' as x, u from a"), "bytes or lists, and must"),
    ],
)
def test_every_mistake_is_one_sentence(
    change: tuple[str, str], sentence: str, tmp_path: Path
) -> None:
    text = write_sqlite(tmp_path)
    assert change[0] in text
    with pytest.raises(ConsiliumError, match=sentence) as caught:
        read(text.replace(*change), tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("postgresql://h/d", r"pip install 'consilium-fl\[sql\]'"),
        ("mssql://h/d", "pip install 'pyodbc'"),
        ("oracle://h/d", "pip install 'oracledb'"),
    ],
)
def test_a_missing_driver_ends_in_the_command_that_installs_it(
    address: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = chosen(SETTINGS.format(where=f'url = "{address}"', query="select 1"), tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=command), database.open_database(settings):
        pass


def test_a_wrong_password_is_told_and_never_shown(postgresql: Server, tmp_path: Path) -> None:
    text = write_postgresql(tmp_path, postgresql)
    (tmp_path / "password").write_text("wrong-" + postgresql.password)
    settings = chosen(text, tmp_path)
    assert postgresql.password not in repr(settings)
    with pytest.raises(DataError, match=r"cannot be opened: .*authentication failed") as caught:
        read(text, tmp_path)
    assert postgresql.password not in str(caught.value)
    (tmp_path / "password").chmod(0o640)
    with pytest.raises(SettingsError, match="mode 640"):
        read(text, tmp_path)


UTC = dt.timezone(dt.timedelta(hours=1))


@pytest.mark.parametrize(
    ("cells", "kind", "first"),
    [
        ([None, None], pl.Null, None),
        ([True, None], pl.Boolean, True),
        ([Decimal("5000.00"), 1], pl.Int64, 5000),
        ([Decimal("9007199254740993"), 1.0], pl.Float64, 9007199254740992.0),
        ([Decimal("9007199254740993"), None], pl.Int64, 9007199254740993),
        ([2**70, 1], pl.String, str(2**70)),
        ([1, 0.5, Decimal("nan")], pl.Float64, 1.0),
        ([dt.date(2020, 2, 29), None], pl.Date, dt.date(2020, 2, 29)),
        ([dt.date(2020, 2, 29), dt.datetime(2020, 1, 1, 1)], pl.Datetime("us"),
         dt.datetime(2020, 2, 29)),
        ([dt.datetime(2020, 1, 1, 1, tzinfo=UTC)], pl.Datetime("us", "UTC"),
         dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
        ([dt.timedelta(hours=1)], pl.Duration("us"), dt.timedelta(hours=1)),
        ([uuid.UUID(int=7)], pl.String, "00000000-0000-0000-0000-000000000007"),
        (["<5", 17], pl.String, "<5"),
    ],
)  # fmt: skip  # a case a line
def test_cells_keep_what_they_are(cells: list, kind: pl.DataType, first: object) -> None:
    series = column("x", cells, "here")
    assert series.dtype == kind
    assert series[0] == first


def test_times_with_a_zone_and_without_in_one_column_are_refused() -> None:
    now = dt.datetime(2020, 1, 1)
    with pytest.raises(DataError, match="with a zone and without"):
        column("x", [now, now.replace(tzinfo=dt.UTC)], "here")


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_number_of_rows(tmp_path: Path) -> None:
    """A reading of six million rows peaks below what they would take in memory at once."""
    import subprocess
    import sys

    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(str(tmp_path / "his.duckdb")) as connection:
        connection.execute("create table t as select i, i::varchar v from range(6000000) r(i)")
    code = (
        "import pathlib, resource, sys\n"
        "from consilium.client.sources.own.databases import database\n"
        "from consilium.client.sources.own.settings.systems import DatabaseSettings\n"
        "s = DatabaseSettings(source='sql', file=pathlib.Path(sys.argv[1]))\n"
        "with database.open_database(s) as d:\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    n = sum(len(rows) for _, rows in d.stream('select * from t', 'a query'))\n"
        "print(n, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "his.duckdb"],
        capture_output=True,
        check=True,
        text=True,
    )
    rows, mib = map(int, done.stdout.split())
    assert rows == 6_000_000
    assert mib < 300, mib


def test_preflight_asks_the_database_for_its_tables(tmp_path: Path) -> None:
    text = write_sqlite(tmp_path)
    assert ask_source(chosen(text, tmp_path))[-1] == f"{tmp_path / 'his.db'} answers, and has stays"
    with pytest.raises(DataError, match="table nope is not there; correct"):
        ask_source(chosen(text.replace('"stays"', '"nope"'), tmp_path))
