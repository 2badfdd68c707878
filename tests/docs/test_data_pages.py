"""Each page of docs/data does what it says, and explains every key of its source, and no other."""

import json
import re
import sqlite3
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from consilium.client.sources.registry import SOURCES, read_data_settings
from tests.client.sources.fhir_server import private_pem
from tests.client.sources.fhir_server import running as fhir_running
from tests.client.sources.postgresql import running
from tests.docs.data_page import FOLDER, ROOT, Page, keys_of, matches, pages, run_here, run_page

PAGES = pages()
INDEX = Page("data", (ROOT / "docs" / "data.md").read_text("utf-8"))
ELSEWHERE = {"omop-database", "fhir-server"}  # run below, with the servers that they need
ALONE = [page for page in PAGES if page.name not in ELSEWHERE]


@pytest.mark.sampled(2)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in ELSEWHERE], ids=lambda p: p.name
)
def test_a_page_does_what_it_says(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(page, tmp_path, monkeypatch)


@pytest.mark.filterwarnings("ignore")
def test_the_page_of_a_database_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    psycopg = pytest.importorskip("psycopg")
    monkeypatch.chdir(tmp_path)
    made = next(step for step in named("omop").steps if isinstance(step, tuple))
    (tmp_path / "make.py").write_text(made[1])
    (tmp_path / "cohort.py").write_text((FOLDER / "cohort.py").read_text())
    run_here("python make.py", monkeypatch)
    with running() as server:
        url = server.url(password=False)
        with (
            sqlite3.connect("cdm.sqlite") as written,
            psycopg.connect(
                server.url(password=True).replace("+psycopg", ""), options="-c search_path=cdm"
            ) as database,
        ):
            database.execute("create schema cdm")
            for table, statement in written.execute("select name, sql from sqlite_master"):
                database.execute(statement)
                rows = written.execute(f"select * from {table}").fetchall()  # noqa: S608 - of this page
                holes = ", ".join(["%s"] * len(rows[0])) if rows else ""
                with database.cursor() as cursor:
                    cursor.executemany(f"insert into {table} values ({holes})", rows)  # noqa: S608
        (tmp_path / "database-password").write_text(server.password)
        shown = "postgresql://consilium@db.example.org/cdm?sslmode=verify-full"
        run_page(named("omop-database"), tmp_path, monkeypatch, {shown: url})


@pytest.mark.filterwarnings("ignore")
def test_the_page_of_a_server_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jwt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = next(step for step in named("fhir").steps if isinstance(step, tuple))
    (tmp_path / "make.py").write_text(made[1])
    (tmp_path / "cohort.py").write_text((FOLDER / "cohort.py").read_text())
    run_here("python make.py", monkeypatch)
    lines = [path.read_text() for path in sorted(tmp_path.rglob("*.ndjson"))]
    resources = [json.loads(line) for text in lines for line in text.splitlines()]
    key = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "fhir-key.pem").touch(mode=0o600)
    (tmp_path / "fhir-key.pem").write_bytes(private_pem(key))
    with fhir_running(tmp_path, resources) as server:
        server.public_key = key.public_key()
        replaced = {
            "https://fhir.example.org/R4": f"{server.address}/fhir",
            "hospital-ca.pem": server.ca.name,
        }
        run_page(named("fhir-server"), tmp_path, monkeypatch, replaced)


def named(name: str) -> Page:
    return next(page for page in PAGES if page.name == name)


def test_every_source_has_a_page_that_explains_each_of_its_keys_and_no_other() -> None:
    explained = {name: set(keys) for name, keys in INDEX.keys.items()}
    common = {key for keys in explained.values() for key in keys}
    for page in PAGES:
        for source, keys in page.keys.items():
            explained.setdefault(source, set()).update(keys)
    faults = []
    for source, kind in SOURCES.items():
        keys = keys_of(kind.settings)
        told = explained.get(source, set())
        faults += [f"{source}: no page explains {key}" for key in sorted(keys - told - common)]
        faults += [f"{source}: there is no key {key}" for key in sorted(told - keys - common)]
    known = {key for kind in SOURCES.values() for key in keys_of(kind.settings)}
    faults += [f"docs/data.md: there is no key {key}" for key in sorted(common - known)]
    assert not faults, "\n".join(faults)
    assert set(explained) <= set(SOURCES)


def test_every_settings_file_of_a_page_is_accepted(tmp_path: Path) -> None:
    shown = [text for page in [INDEX, *PAGES] for text in page.settings]
    assert len(shown) > len(PAGES)
    for example in shown:
        read_data_settings(tomllib.loads(example)["data"], where="site.toml", folder=tmp_path)


def test_the_index_leads_to_every_page_and_names_every_source() -> None:
    assert {f"data/{page.name}.md" for page in PAGES} <= set(
        re.findall(r"\]\(([^)#]+)", INDEX.text)
    )
    named = set(re.findall(r"`([\w-]+)`", INDEX.text))
    assert set(SOURCES) <= named
    assert (FOLDER / "study.toml").is_file()


def test_expected_lines_are_compared_one_by_one_and_dots_stand_for_any() -> None:
    assert matches(["a", "b", "c"], ["a", "...", "c"])
    assert matches(["a"], ["...", "a", "..."])
    assert not matches(["a", "b"], ["a"])
    assert not matches(["a"], ["a", "b"])
    assert not matches(["a", "b"], ["...", "a"])
