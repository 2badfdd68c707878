"""docs/own-records.md: its commands run as they stand, on tables made up for them."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consilium.client import cli as site
from consilium.shared.errors import ConsiliumError
from consilium.simulations import cli as simulate
from consilium.simulations.cohorts.records_file import RecordsFile
from tests.simulations.own_tables import RECORDS, STUDY, write_tables

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-records.md").read_text(encoding="utf-8")
APPS = {"consilium-simulate": simulate.app, "consilium-site": site.app}
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
            for line in block.splitlines()]  # fmt: skip  # reads as one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tables(tmp_path_factory.mktemp("page"))
    (folder / "study.toml").write_text(STUDY)
    for number, name in enumerate(("north", "east", "south")):
        write_tables(folder / name, persons=30, first=1000 * (1 + number))
        text = RECORDS.replace('"stays.csv"', f'"{name}/stays.csv"')
        (folder / f"{name}.toml").write_text(text.replace('"events.csv"', f'"{name}/events.csv"'))
    lines = ["patient_id,time,HR,died,readmitted"]
    for person in range(90):
        lines += [f"{person},0{1 + h}/03/2024 10:00,{70 + person % 20 + h},{int(person % 3 == 0)},"
                  f"{person % 2}" for h in range(4)]  # fmt: skip  # reads as one
    (folder / "visits.csv").write_text("\n".join(lines) + "\n")
    lines = ["patient_id,hours,HR,died"]
    lines += [f"{p},{h},{70 + p % 20 + h},{int(p % 3 == 0)}" for p in range(90) for h in range(4)]
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


def perform(line: str) -> str:
    program, *arguments = shlex.split(line)
    result = CliRunner().invoke(APPS[program], arguments)
    told = result.exception if isinstance(result.exception, ConsiliumError) else result.output
    assert result.exit_code == 0, f"{line}: {told}"
    return result.output


def test_the_page_has_the_commands_that_it_promises() -> None:
    assert len(COMMANDS) == 7
    words = {shlex.split(line)[1] for line in COMMANDS}
    assert words == {"init", "check", "run"}


def test_every_command_that_trains_nothing_runs_and_the_others_deal_persons_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    trained: list[str] = []
    monkeypatch.setattr(
        "consilium.simulations.runs.simulate.simulate",
        lambda study, cohorts, out, **_: trained.append(f"{out}: {', '.join(study.sites)}"),
    )
    monkeypatch.setattr("consilium.simulations.commands.console.show_result", lambda *_: None)
    printed = [perform(line) for line in COMMANDS]
    assert trained == [
        "runs/first: site-1, site-2, site-3",
        "runs/own: north, east, south",
        "runs/dealt: site-1, site-2, site-3, site-4, site-5",
        "runs/wards: east, north, south-wing",
    ]
    for text in printed:
        assert "Persons: " in text or "guesses, each with a comment" in text or "verdict" in text


@pytest.mark.slow
def test_every_command_runs_as_it_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for file in folder.rglob("*"):
        if file.is_file() and file.parent.name not in ("first", "second"):
            target = tmp_path / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    for line in COMMANDS:
        perform(line)
    for name in ("first", "own", "dealt", "wards"):
        assert (tmp_path / "runs" / name / "run.json").exists()


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_the_pages_settings_are_settings(text: str) -> None:
    content = {"data": {"source": "tables"}} | tomllib.loads(text)
    RecordsFile.model_validate(content)


def test_every_option_of_the_page_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    helps = "".join(
        CliRunner().invoke(APPS["consilium-simulate"], [command, "--help"]).output
        for command in ("init", "run", "compare", "studies")
    )
    for option in set(re.findall(r"--[a-z][a-z-]+", PAGE)):
        assert option in helps, option
