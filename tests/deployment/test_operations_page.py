"""The runbook says what the programs say, word for word, and names commands that there are."""

import re

import click
import pytest
import typer

from consilium.client.cli import app as site
from consilium.server.cli import app as coordinator
from consilium.server.service.monitor import metrics
from tests.deployment.operations_page import FAILURES, LOSSES, PAGE, QUOTED, ROOT, pieces
from tests.server.service.test_monitor import STATUS

COMMANDS = {"consilium-site": site, "consilium-coordinator": coordinator}


def sentences() -> str:
    """All source text with literals that stand side by side joined, as Python joins them."""
    files = [p for name in ("client", "server", "shared") for p in (ROOT / name).rglob("*.py")]
    text = "\n".join(path.read_text() for path in files)
    text = text.replace("{AUDIT_FILE}", "audit.jsonl").replace("{JOURNAL_FILE}", "journal.sqlite")
    return re.sub(r'"\s*\n\s*f?"', "", text)


SOURCE = sentences()


@pytest.mark.parametrize("quoted", [*QUOTED, *LOSSES])
def test_each_message_of_the_runbook_is_one_the_code_can_say(quoted):
    assert pieces(quoted)
    for piece in pieces(quoted):
        assert piece in SOURCE, piece


def test_the_runbook_has_twelve_failures_each_with_a_message():
    sections = FAILURES.split("\n### ")[1:]
    assert [section.split(".")[0] for section in sections] == [str(n) for n in range(1, 13)]
    assert all(re.search(r"^    \S", section, flags=re.M) for section in sections)


def words_of(program: str) -> dict[str, click.Command]:
    """A program's commands by what is typed, those within a group after its name."""
    top = typer.main.get_command(COMMANDS[program])
    found = dict(top.commands)
    for name, group in top.commands.items():
        found |= {f"{name} {inner}": one for inner, one in getattr(group, "commands", {}).items()}
    return found


def test_every_command_of_the_runbook_is_one_of_its_program_with_its_options():
    commands = {program: words_of(program) for program in COMMANDS}
    named = re.findall(r"(consilium-(?:site|coordinator))\s+([a-z][a-z -]*[a-z])([^`\n]*)", PAGE)
    assert len(named) > 25
    for program, words, rest in named:
        typed = " ".join(words.split(" ")[:2])
        typed = typed if typed in commands[program] else words.split(" ")[0]
        assert typed in commands[program], f"{program} {words}"
        options = {o for one in commands[program][typed].params for o in one.opts}
        assert set(re.findall(r"--[a-z][a-z-]+", words + rest)) <= options, f"{program} {words}"


def test_every_measurement_of_the_runbook_is_one_that_is_written():
    named = set(re.findall(r"consilium_[a-z_]+", PAGE))
    at_sites = (ROOT / "client" / "service" / "measurements.py").read_text()
    assert len(named) >= 6
    assert named <= {one.name for one in metrics(STATUS, [])} | set(
        re.findall(r'"(consilium_[a-z_]+)"', at_sites)
    )


def test_what_a_failure_quotes_within_its_text_is_no_sentence():
    """Sentences stand in a block or in the table of losses, where tests read them."""
    text = (PAGE[PAGE.index("## After a loss") : PAGE.index("## Upgrade")] + FAILURES).split()
    spans = {span for span in re.findall(r"`([^`]+)`", " ".join(text)) if span.count(" ") >= 3}
    assert not {one for one in spans - set(LOSSES) if not re.match(r"consilium-|\[", one)}
