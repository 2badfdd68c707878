"""Records that no source was made for, through the public interface alone: files and options."""

import csv
import io
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from consilium.simulations.cli import app
from tests.simulations.own_tables import STUDY, write_tables

DATA = Path(__file__).parents[3] / "shared" / "data"
MOLECULES = STUDY.replace('"hospital"', '"molecules"\nclock = "position"').partition("[variables]")[
    0
]
MOLECULES = (
    MOLECULES.replace('label = "died"', 'label = "HIV_active"')
    + """
[tokens]
names = ["token"]
vocabulary = ["C", "c", "O", "N"]
[variables]
branch = { unit = "1", low = 0, high = 40, center = 1, spread = 1 }
ring = { unit = "1", low = 0, high = 40, center = 1, spread = 1 }
"""
)


def needed(*names: str) -> Path:
    path = DATA.joinpath(*names)
    if not path.exists():
        pytest.skip(f"the records {path.name} are not beside the repository")
    return path


def perform(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, str(result.exception)
    return result.output


@pytest.fixture
def only_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run end when its persons are dealt out; what trains is tested elsewhere."""
    monkeypatch.setattr("consilium.simulations.runs.simulate.simulate", lambda *_, **__: {})
    monkeypatch.setattr("consilium.simulations.commands.console.show_result", lambda *_: None)


def persons_told(output: str) -> int:
    """The number of persons that a run's output counts."""
    sentence = next(line for line in output.splitlines() if line.startswith("Persons: "))
    words = sentence.replace(",", " ").replace(";", " ").split()
    return sum(int(word) for word in words if word.isdecimal())


@pytest.mark.slow
def test_a_file_of_molecules_of_any_name_is_trained_on_in_one_command(tmp_path: Path) -> None:
    study, data = tmp_path / "hiv.toml", tmp_path / "HIV.csv"
    study.write_text(MOLECULES)
    shapes = ("CC(=O)O", "c1ccccc1O", "CCN(CC)CC", "O=C(N)c1ccccc1")
    lines = [f"{'C' * (n % 30)}{shapes[n % 4]},{int(n % 4 == 1)}" for n in range(120)]
    data.write_text("\n".join(["smiles,HIV_active", *lines]) + "\n")
    out = tmp_path / "out"
    told = perform("run", study, "--data", data, "--sites", "3", "--out", out, "--no-alone")
    assert persons_told(told) == 60  # lines with the same SMILES are one
    assert (out / "run.json").exists()


def test_a_real_file_of_molecules_under_another_name(tmp_path: Path, only_dealt: None) -> None:
    lines = needed("molecules", "clintox.csv").read_text().splitlines()[:500]
    (tmp_path / "HIV.csv").write_text("\n".join(lines) + "\n")
    study = tmp_path / "hiv.toml"
    study.write_text(MOLECULES.replace("HIV_active", "CT_TOX"))
    told = perform("run", study, "--data", tmp_path / "HIV.csv", "--sites", "4", "--out", "o")
    assert persons_told(told) > 480


def test_visits_in_days_of_a_table_that_no_source_was_made_for(
    tmp_path: Path, only_dealt: None
) -> None:
    table = pl.read_csv(needed("pbc_sequential", "pbcseq.csv"), null_values=["NA"])
    table = table.with_columns(
        (pl.col("day") * 24.0).alias("hours"),
        ((pl.col("status") == 2) & (pl.col("futime") <= 3650)).cast(pl.Int8).alias("died"),
    )
    table.unique("id", maintain_order=True).write_csv(tmp_path / "people.csv")
    table.select("id", "hours", "bili").write_csv(tmp_path / "visits.csv")
    study = STUDY.replace("window_h = 8", "window_h = 8760\nstep_h = 730").partition("HR = ")[0]
    (tmp_path / "study.toml").write_text(
        study + 'bili = { unit = "mg/dL", low = 0.05, high = 80, center = 1.5, spread = 1 }\n'
    )
    (tmp_path / "records.toml").write_text(
        '[data]\nsource = "tables"\n[data.stays]\nfile = "people.csv"\npatient = "id"\n'
        '[[data.events]]\nfile = "visits.csv"\nlayout = "wide"\nstay = "id"\nhours = "hours"\n'
        '[data.variables]\nbili = { unit = "mg/dL" }\n'
    )
    records = ("--records", tmp_path / "records.toml", "--out", "o")
    told = perform("run", tmp_path / "study.toml", *records, "--sites", "4")
    assert persons_told(told) == 312
    assert persons_told(perform("run", tmp_path / "study.toml", *records)) == 312


@pytest.mark.slow
def test_an_omop_extract_all_of_whose_times_are_midnight(tmp_path: Path, only_dealt: None) -> None:
    archive = needed("omop_synthea", "Synthea27Nj_5.4.zip")
    with zipfile.ZipFile(archive) as files, closing(sqlite3.connect(tmp_path / "cdm.db")) as made:
        for name in files.namelist():
            if name.endswith(".csv") and "/" not in name and "RELATIONSHIP" not in name:
                with files.open(name) as file:
                    header, *rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig"))
                kinds = ", ".join(
                    f'"{c.lower()}" {"INTEGER" if c.lower().endswith("_id") else "NUMERIC"}'
                    for c in header
                )
                made.execute(f'CREATE TABLE "{name[:-4].lower()}" ({kinds})')
                marks = ", ".join("?" * len(header))
                values = [[cell or None for cell in row] for row in rows]
                made.executemany(f'INSERT INTO "{name[:-4].lower()}" VALUES ({marks})', values)  # noqa: S608
        made.commit()
    study = STUDY.partition("HR = ")[0] + "Age = {}\nGender = {}\n"
    (tmp_path / "study.toml").write_text(study)
    (tmp_path / "records.toml").write_text(
        '[data]\nsource = "omop"\nfile = "cdm.db"\nstay_concepts = [9202]\n'
        '[data.outcome]\nkind = "readmission"\nwithin_days = 60\n[test]\nfraction = 0.3\n'
    )
    told = perform(
        "run", tmp_path / "study.toml", "--records", tmp_path / "records.toml", "--out", "o"
    )
    assert 20 <= persons_told(told) <= 28


@pytest.mark.slow
def test_compare_and_leave_one_out_take_the_same_records(tmp_path: Path) -> None:
    tables = write_tables(tmp_path / "own", persons=120)
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    options = ("--records", tables / "records.toml", "--sites", "4", "--test", "0.3")
    told = perform("run", study, *options, "--out", tmp_path / "run", "--external")
    assert "without site-1" in told
    told = perform("compare", study, *options, "--out", tmp_path / "compared", "--epsilon", "8")
    assert "federated-private" in told
    told = perform("compare", study, *options, "--out", tmp_path / "ways", "--strategies", "fedavg")
    assert "fedavg" in told


@pytest.mark.slow
def test_a_folder_of_studies_is_compared_on_the_records_beside_them(tmp_path: Path) -> None:
    write_tables(tmp_path / "studies" / "records", persons=120)
    records = tmp_path / "studies" / "records" / "records.toml"
    records.rename(records.with_name("own.toml"))
    (tmp_path / "studies" / "own.toml").write_text(STUDY)
    out = tmp_path / "out"
    told = perform("studies", "--data", tmp_path, "--folder", tmp_path / "studies", "--out", out)
    assert "own" in told
    assert "| own |" in (out / "table.md").read_text()
