"""A page of docs/data as something to run: its files, its settings, and its consoles.

How a page is written, so that it is run:

- A paragraph that is a file's name in backticks and a colon, before a fenced block: the block is
  that file. ``study.toml`` and ``cohort.py`` of docs/data lie beside it, and
  the project's folder ``studies``.
- A block ``console``: lines that begin with ``$ `` are commands, the lines below are what they
  print. A line ``...`` stands for any lines, ``...`` in a line for any part of it.
  ``consilium-site`` and ``python FILE`` run in this process, anything else in the shell.
- A line below its command such as ``(exit 1)`` is how it ends; 0 otherwise.
- A table whose first heading is a table of the settings, such as ``[data.stays]``, explains its
  keys, the first column's. ``[data] of `fhir` `` says of which source, ``[data.stays] in `edf` ``
  likewise; otherwise those that the page's own site.toml names.
"""

import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from consilium.client.cli import app
from consilium.shared.service.command_line import run_command

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "data"
GIVEN = ("study.toml", "cohort.py")
BLOCK = re.compile(r"(?:^`([\w./ -]+)`:\n+)?^```([\w-]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
KEYS = re.compile(
    r"^\| `\[+([\w.]+)\]+`(?: (?:of|in) (`.*?`))? \|[^\n]*\n\|[-| :]+\|\n((?:\|[^\n]*\n)+)",
    re.MULTILINE,
)
SOURCE = re.compile(r'^source = "([\w-]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Console:
    """A command, the lines that it is said to print, and its exit status."""

    command: str
    expected: tuple[str, ...]
    status: int


@dataclass(frozen=True)
class Page:
    """A page, read."""

    name: str
    text: str

    @property
    def steps(self) -> Iterator[tuple[str, str] | Console]:
        """The files, as name and content, and the commands, in the page's order."""
        for name, kind, body in BLOCK.findall(self.text):
            if name:
                yield name, body
            elif kind == "console":
                yield from consoles(body)

    @property
    def sources(self) -> set[str]:
        """The sources that the page's site.toml name."""
        return {one for text in self.settings for one in SOURCE.findall(text)}

    @property
    def settings(self) -> list[str]:
        """The page's settings files; a study is none."""
        blocks = [body for _, kind, body in BLOCK.findall(self.text) if kind == "toml"]
        return [body for body in blocks if SOURCE.search(body) and "schema = 2" not in body]

    @property
    def keys(self) -> dict[str, set[str]]:
        """The keys that the page explains, by source, as ``data.stays.file``."""
        explained: dict[str, set[str]] = {source: set() for source in self.sources}
        for table, sources, rows in KEYS.findall(self.text):
            named = re.findall(r"`([\w-]+)`", sources) or self.sources
            cells = [row.split("|")[1] for row in rows.splitlines()]
            names = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
            for source in named:
                explained.setdefault(source, set()).update(f"{table}.{key}" for key in names)
        return explained


def pages() -> list[Page]:
    """All pages of docs/data."""
    return [Page(file.stem, file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.md"))]


def consoles(body: str) -> Iterator[Console]:
    """Cut a block into its commands."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, *lines = part.rstrip("\n").split("\n")
        while command.endswith("\\"):
            command = command[:-1] + lines.pop(0)
        status = re.fullmatch(r"\(exit (\d+)\)", lines[-1]) if lines else None
        yield Console(
            command, tuple(lines[:-1] if status else lines), int(status[1]) if status else 0
        )


def run_page(
    page: Page,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    replaced: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Make the page's files in the folder, run its commands there, and compare what they print.

    Args:
        page: the page.
        folder: an empty folder.
        monkeypatch: changes the folder and the width of the terminal for this test.
        replaced: what stands in the page's files, and what takes its place here, such as the
            address of a database.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    for name in GIVEN:
        shutil.copy(FOLDER / name, folder)
    (folder / "studies").symlink_to(ROOT / "studies")
    for step in page.steps:
        if isinstance(step, Console):
            run_step(page, step, monkeypatch)
            continue
        name, body = step
        for old, new in replaced.items():
            body = body.replace(old, new)
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body, encoding="utf-8")


def run_step(page: Page, step: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command; fail with what it printed if that is not what the page says."""
    told, status = run_here(step.command, monkeypatch)
    lines = [line.rstrip() for line in told.splitlines()]
    where = f"{page.name}: $ {step.command}\n{told}"
    assert status == step.status, where
    assert matches(lines, [line.rstrip() for line in step.expected]), where


def run_here(command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Run a command; return what it printed on both streams, and its exit status."""
    words = shlex.split(command)
    out = io.StringIO()
    if words[0] == "consilium-site":
        monkeypatch.setattr(sys, "argv", words)
        with redirect_stdout(out), redirect_stderr(out), pytest.raises(SystemExit) as ended:
            run_command(app, name="consilium-site")
        return out.getvalue(), int(ended.value.code or 0)
    if words[0] == "python":
        monkeypatch.syspath_prepend(str(Path.cwd()))
        sys.modules.pop("cohort", None)
        with redirect_stdout(out):
            runpy.run_path(words[1], run_name="__main__")
        sys.modules.pop("cohort", None)
        return out.getvalue(), 0
    done = subprocess.run(  # what the pages of this project say
        ["/bin/sh", "-c", command], capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    return (done.stdout + done.stderr).removeprefix("\ufeff"), done.returncode


def matches(lines: list[str], expected: list[str]) -> bool:
    """Tell whether the lines are those expected; ``...`` is any lines, or any part of a line."""
    if not expected:
        return not lines
    first, *rest = expected
    if first == "...":
        return any(matches(lines[place:], rest) for place in range(len(lines) + 1))
    pattern = ".*".join(map(re.escape, first.split("...")))
    return bool(lines) and bool(re.fullmatch(pattern, lines[0])) and matches(lines[1:], rest)


def keys_of(model: type[BaseModel], table: str = "data") -> set[str]:
    """Every key of a settings model and of the tables in it, as ``data.stays.file``.

    A table whose names the hospital chooses is ``data.variables.NAME``.
    """
    found = set()
    for name, field in model.model_fields.items():
        key = field.alias or name
        found.add(f"{table}.{key}")
        for inner, chosen in _models(field.annotation):
            found |= keys_of(inner, f"{table}.{key}.NAME" if chosen else f"{table}.{key}")
    return found


def _models(annotation: Any, *, chosen: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """Models inside an annotation, and whether they are the values of a dictionary."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, chosen
        return
    for part in get_args(annotation):
        yield from _models(part, chosen=chosen or getattr(annotation, "__origin__", None) is dict)
