"""Whatever text comes prints as it is: no markup, no pictures, no control characters, no cut."""

import ast
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.service.terminal import Table, Terminal, as_shown, one_line, styled

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = (
    "[data]",
    "[red]x[/red]",
    "[/]",
    "[/red]",
    ":heart:",
    "\\[data]",
    "[link=http://x]y",
    "[[",
)
ROOMS = ("client", "server", "shared", "simulations")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\t"), max_size=30)


def printed(*objects: object, width: int = 4000) -> str:
    console = Terminal()
    console.file, console.width = io.StringIO(), width
    console.print(*objects)
    return console.file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_prints_as_it_is_alone_in_a_table_in_a_style_and_as_a_heading(text: str) -> None:
    table = Table(text, title=text)
    table.add_column(text, justify="right", no_wrap=True)
    table.add_row(text, text)
    assert printed(text) == f"{text}\n"
    assert printed(styled(text, "red")) == f"{text}\n"
    assert printed(table).count(text) == 5
    console = Terminal()
    console.file, console.width = io.StringIO(), 40
    console.heading(text)
    console.print(text, markup=True, emoji=True, highlight=True)
    assert console.file.getvalue().count(text) == 2


@given(TEXTS)
def test_any_text_prints_as_shown(text: str) -> None:
    assert printed(text) == as_shown(text) + "\n"


def test_a_text_cannot_command_the_terminal_or_turn_its_direction() -> None:
    text = "\x1b[2J\x9b1A\r\b\x07\u202eabc\u2066"
    assert as_shown(text) == r"\x1b[2J\x9b1A\r\x08\x07\u202eabc\u2066"
    assert one_line("a\nverdict: ready") == r"a\nverdict: ready"
    assert printed(text) == as_shown(text) + "\n"


@pytest.mark.parametrize("width", [12, 20, 40, 80])
def test_a_narrow_terminal_cuts_no_cell(width: int) -> None:
    words = [f"{letter}{number}" for letter in "abcd" for number in range(10, 40)]
    table = Table(box=None)
    table.add_column("x", no_wrap=True)
    table.add_column("y", no_wrap=True)
    table.add_row("".join(words), "short")
    found = printed(table, width=width)
    assert "…" not in found
    letters = [character for character in found if character.isalnum()]
    assert sorted(letters) == sorted("xy" + "".join(words) + "short")
    assert max(map(len, found.splitlines())) <= width


def test_nobody_makes_another_console_or_table() -> None:
    makers = {"Console", "Table", "Text"}
    for name, source in sources("from rich"):
        if name == "shared/service/terminal.py":
            continue
        tree = ast.parse(source)
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich.")
            for alias in node.names
        }
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not imported & called & makers, name


@pytest.mark.slow
def test_every_text_file_is_read_and_written_in_a_named_encoding() -> None:
    """Else a file written under one locale is another text under the next."""
    faults = [
        f"{name}:{node.lineno}"
        for name, source in sources("read_text(", "write_text(", "open(")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _opens_text(node)
    ]
    assert not faults


def sources(*holding: str) -> Iterator[tuple[str, str]]:
    """Name and text of every file of ours that holds one of these texts."""
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            source = file.read_text("utf-8")
            if any(text in source for text in holding):
                yield file.relative_to(ROOT).as_posix(), source


def _opens_text(call: ast.Call) -> bool:
    """Tell whether a call opens a text file and leaves the encoding to the locale."""
    if not isinstance(call.func, ast.Attribute):
        return False
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    given = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    if call.func.attr == "read_text":
        return not given
    if call.func.attr == "write_text":
        return len(call.args) < 2
    named = isinstance(call.func.value, ast.Name) and call.func.value.id in ("path", "file")
    modes = [text for text in given if isinstance(text, str)]
    return call.func.attr == "open" and named and not any("b" in mode for mode in modes)
