"""Every command, given a hostile text wherever it takes one, on any terminal: a sentence."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import typer

from consilium.client.cli import app as site
from consilium.server.cli import app as coordinator
from consilium.shared.service.command_line import command_of, run_command
from consilium.shared.service.terminal import as_shown
from consilium.shared.study.definition import load_study
from consilium.simulations.cli import app as simulate
from consilium.simulations.commands import console as announced
from tests.needs import PATIENCE_S

APPS = {
    "consilium-site": site,
    "consilium-coordinator": coordinator,
    "consilium-simulate": simulate,
}
HOSTILE = "[red]x[/red] [/] :heart: [data] \x1b[2Jε"
SHOWN = as_shown(HOSTILE)
WORK = {"consilium-simulate demo", "consilium-simulate doctor", "consilium-site variables"}


def commands() -> Iterator[tuple[str, tuple[str, ...], click.Command]]:
    """Every command of every app: the app's name, the words, the command."""
    for name, app in APPS.items():
        yield from ((name, words, found) for words, found in _below(command_of(app), ()))


def _below(
    command: click.Command, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
        return
    for name, one in below.items():
        yield from _below(one, (*words, name))


COMMANDS = list(commands())
IDS = [" ".join((name, *words)) for name, words, _ in COMMANDS]
FAILING = [one for one, name in zip(COMMANDS, IDS, strict=True) if name not in WORK]


def run(
    monkeypatch: pytest.MonkeyPatch,
    app: str,
    *words: str,
    encoding: str = "utf-8",
    width: int = 2000,
) -> SimpleNamespace:
    """Run a command as its console script does, its output in an encoding, as a pipe has it."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="") for _ in range(2))
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(APPS[app], "rich_markup_mode", "rich")  # a run may have set it
    monkeypatch.setattr(sys, "argv", [app, *words])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HOSTILE.encode()), "utf-8"))
    with monkeypatch.context() as here:
        here.setattr(sys, "stdout", out)
        here.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as ended:
            run_command(APPS[app], name=app)
    for stream in (out, err):
        stream.flush()
    texts = [stream.buffer.getvalue().decode(encoding) for stream in (out, err)]  # type: ignore[attr-defined]
    return SimpleNamespace(out=texts[0], told="".join(texts), status=ended.value.code)


def hostile_calls(command: click.Command) -> Iterator[list[str]]:
    """Arguments that are hostile wherever a text or a path is taken, an option at a time."""
    arguments = [HOSTILE for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option)]
    needed = [word for one in options if one.required for word in (one.opts[0], HOSTILE)]
    yield [*needed, *arguments]
    for one in options:
        if not one.is_flag and not one.required:
            yield [one.opts[0], HOSTILE, *needed, *arguments]


@pytest.mark.sampled(11)
@pytest.mark.parametrize(
    ("app", "words", "command"), FAILING, ids=[name for name in IDS if name not in WORK]
)
def test_a_hostile_text_ends_every_command_in_a_sentence_that_shows_it(
    app: str,
    words: tuple[str, ...],
    command: click.Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in hostile_calls(command):
        done = run(monkeypatch, app, *words, *given)
        assert "Traceback" not in done.told
        assert "\x1b" not in done.told
        assert done.told.strip(), given
        if HOSTILE in given and "x[" in done.told:
            assert SHOWN in done.told, given


@pytest.mark.sampled(18)
@pytest.mark.parametrize(("app", "words", "command"), COMMANDS, ids=IDS)
def test_help_says_every_word_of_every_option(
    app: str, words: tuple[str, ...], command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoding in ("utf-8", "cp1252"):
        done = run(monkeypatch, app, *words, "--help", encoding=encoding, width=2000)
        plain = re.sub(r"[^\w\[\]]+", " ", done.told)
        for one in command.params:
            told = getattr(one, "help", None) or ""
            assert re.sub(r"[^\w\[\]]+", " ", told).strip() in plain, told
        assert done.status == 0
    assert "┌" not in done.told
    assert "\\u" not in done.told


STUDY = """schema = 1
name = "first-day"
title = '{title}'
rounds = 20
sites = ["north", "south", "west"]
variables = ["HR", "Age"]
[data]
source = "hospital"
label = '{label}'
window_h = 24
minimum_patients = 2
[training]
local_steps = 1
[privacy]
mode = "distributed"
epsilon = 8.0
"""
SETTINGS = """[data]
source = "tables"
units = {{ "[bpm]" = "/min" }}
[data.stays]
file = "stays.csv"
patient = "person"
[[data.events]]
file = "results.csv"
stay = "person"
hours = "hour"
variable = "item"
value = "value"
unit = "unit"
[data.variables.Age]
column = '{age}'
unit = "a"
"""
TITLE = "[bold]Death[/] [red]in[/red] :hospital: [data]"
LABEL = "[died] [/]"


def records(folder: Path, *, unit: str = "[bpm]", age: str = "age") -> None:
    (folder / "study.toml").write_text(STUDY.format(title=TITLE, label=LABEL))
    (folder / "site.toml").write_text(SETTINGS.format(age=age))
    stays = "".join(f"{n},{50 + n},{n % 2}\n" for n in range(30))
    (folder / "stays.csv").write_text(f"person,age,{LABEL}\n{stays}")
    rows = "".join(f"{n},{h},HR,{70 + n + h},{unit}\n" for n in range(30) for h in range(24))
    (folder / "results.csv").write_text(f"person,hour,item,value,unit\n{rows}")


CHECK = ("check", "study.toml", "--settings", "site.toml")


@pytest.mark.sampled(6)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "latin-1", "cp437"])
@pytest.mark.parametrize("width", [20, 80, 2000])
def test_what_stands_in_study_and_records_prints_as_it_is_on_any_terminal(
    encoding: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    records(tmp_path)
    done = run(monkeypatch, "consilium-site", *CHECK, encoding=encoding, width=width)
    assert done.status == 0, done.told
    assert TITLE in done.out
    assert f"with {LABEL}" in done.out
    assert "verdict: ready" in done.out
    done = run(monkeypatch, "consilium-site", *CHECK, "--json", encoding=encoding, width=width)
    assert json.loads(done.out)["verdict"].startswith("ready")
    records(tmp_path, age=HOSTILE.replace("\x1b", ""))
    done = run(monkeypatch, "consilium-site", *CHECK, encoding=encoding, width=width)
    assert done.status == 1
    assert "[red]x[/red] [/] :heart: [data] [2J" in done.told
    assert len(done.told.splitlines()) == 1


def test_a_unit_with_brackets_is_quoted_as_the_records_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    records(tmp_path, unit="[red]")
    done = run(monkeypatch, "consilium-site", *CHECK)
    assert done.status == 1
    assert "[red]" in done.told
    assert "[data.variables" in done.told or "site.toml" in done.told


def test_a_study_is_shown_as_it_stands_by_every_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    records(tmp_path)
    run(monkeypatch, "consilium-site", "init")
    for words in (("review", "study.toml"), CHECK):
        for encoding in ("utf-8", "cp1252"):
            done = run(monkeypatch, "consilium-site", *words, encoding=encoding)
            assert TITLE in done.told, done.told
    with announced.console.capture() as shown:
        announced.announce(load_study(tmp_path / "study.toml"))
    assert TITLE in shown.get()


def test_a_pipe_that_is_closed_early_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Closed(io.TextIOWrapper):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    app = typer.Typer()

    @app.command()
    def shout() -> None:
        print("aloud")  # noqa: T201 - as the commands do that print for pipes

    with monkeypatch.context() as here:
        here.setattr(sys, "argv", ["shout"])
        here.setattr(sys, "stdout", Closed(io.BytesIO(), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            run_command(app, name="shout")
    assert ended.value.code == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"LANG": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "de_DE.ISO-8859-1"},
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"COLUMNS": "15"},
        {"TERM": "dumb", "NO_COLOR": "1"},
        {"FORCE_COLOR": "1"},
    ],
    ids=lambda environment: " ".join(f"{name}={value}" for name, value in environment.items()),
)
def test_processes_under_other_locales_end_in_sentences(
    environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("polars")
    records(tmp_path)
    for words, status in (
        (("consilium-site", *CHECK), 0),
        (("consilium-site", "check", "ε.toml"), 1),
        (("consilium-site", "variables"), 0),
        (("consilium-coordinator", "check", "study.toml"), 0),
        (("consilium-site", "chekc"), 2),
    ):
        module = {"site": "client", "coordinator": "server", "simulate": "simulations"}
        name = module[words[0].removeprefix("consilium-")]
        done = subprocess.run(
            [sys.executable, "-m", f"consilium.{name}", *words[1:]],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        told = (done.stdout + done.stderr).decode("latin-1")
        assert "Traceback" not in told, told
        assert done.returncode == status, told
    assert "chekc" in "".join(re.findall(r"\w", told))
