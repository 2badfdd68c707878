"""Preflight asks for the records at any time: files, folders, a database; one sentence each."""

import os
import sqlite3
from pathlib import Path

import pytest

from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.preflight import preflight
from consilium.client.sources.common.named_files import check_readable
from consilium.shared.errors import DataError
from consilium.shared.model.card_check import find_card

TABLES = """source = "tables"
[data.stays]
file = "../stays.csv"
patient = "person"
[[data.events]]
file = "../results/*.csv"
stay = "person"
hours = "hour"
variable = "item"
value = "value"
"""
OMOP = 'source = "omop"\nfile = "../cdm.sqlite"\n'


def told(folder: Path, data: str) -> list[tuple[bool, str]]:
    """What preflight says of the records, before any enrolment."""
    site = SiteFolder.make(folder / "site", site="north")
    (site.path / "site.toml").write_text(f'site = "north"\n[data]\n{data}')
    return [(test.ok, test.told) for test in preflight(site) if test.name == "data"]


def test_each_file_that_is_not_there_is_named_before_any_enrolment(tmp_path: Path) -> None:
    ((ok, sentence),) = told(tmp_path, TABLES)
    assert not ok
    assert "stays.csv is not there; correct the path in [data], or bring the records" in sentence
    (tmp_path / "stays.csv").write_text("person\n1\n")
    ((ok, sentence),) = told(tmp_path, TABLES)
    assert not ok
    assert "no file fits" in sentence
    assert "results/*.csv; correct the pattern in [data]" in sentence
    (tmp_path / "results").mkdir()
    for name in "ab":
        (tmp_path / "results" / f"{name}.csv").write_text("person,hour,item,value\n")
    found = told(tmp_path, TABLES)
    assert [ok for ok, _ in found] == [True, True]
    assert found[0][1].endswith("stays.csv can be read")
    assert found[1][1].endswith("*.csv can be read, 2 files")


def test_an_empty_folder_and_what_cannot_be_opened_are_told(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    with pytest.raises(DataError, match="is an empty folder; bring the records"):
        check_readable(tmp_path / "export")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(DataError, match=r"circle cannot be read \(Too many levels"):
        check_readable(tmp_path / "circle")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_this_account_may_not_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").touch(mode=0o000)
    with pytest.raises(DataError, match=r"stays.csv cannot be read \(Permission denied\)"):
        check_readable(tmp_path / "stays.csv")


def test_a_database_is_asked_before_an_approval(tmp_path: Path) -> None:
    pytest.importorskip("polars")
    with sqlite3.connect(tmp_path / "cdm.sqlite") as database:
        database.execute("create table person (person_id integer)")
    *_, (ok, sentence) = told(tmp_path, OMOP)
    assert not ok
    assert "answers, but has no table visit_occurrence, measurement that this account" in sentence
    with sqlite3.connect(tmp_path / "cdm.sqlite") as database:
        for name in ("visit_occurrence", "measurement"):
            database.execute(f"create table {name} (person_id integer)")
    *_, (ok, sentence) = told(tmp_path, OMOP)
    assert ok
    assert sentence.endswith("answers, and has person, visit_occurrence, measurement")


def test_a_database_that_does_not_answer_is_told_in_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    address = f'source = "omop"\nurl = "postgresql://consilium@/cdm?host={tmp_path}"\n'
    ((ok, sentence),) = told(tmp_path, address)
    assert not ok
    assert "the database of [data] url cannot be opened: " in sentence
    assert sentence.endswith("; check it, and [data] in site.toml")
    assert "\n" not in sentence


def test_what_trains_models_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = SiteFolder.make(tmp_path / "site", site="north")
    policy = site.path / "policy.toml"

    def computation() -> list[tuple[bool, str]]:
        found = [test for test in preflight(site) if test.name == "computation"]
        return [(test.ok, test.told) for test in found]

    assert computation() == [(True, "the processor is used, as [machine] gpu = false says")]
    policy.write_text(policy.read_text().replace("gpu = false", "gpu = true"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    find_card.cache_clear()
    sentence = "PyTorch finds no graphics card here, so the processor is used"
    assert computation() == [(True, sentence)]
    find_card.cache_clear()
    policy.write_text("gpu = maybe")
    assert computation() == []
