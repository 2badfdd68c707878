"""The runbook quotes what the programs say, word for word."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
FAILURES = PAGE[PAGE.index("## The twelve likeliest failures") :]
QUOTED = re.findall(r"^    (.+)$", FAILURES, flags=re.M)


def sentences() -> str:
    """All source text with literals that stand side by side joined, as Python joins them."""
    files = [p for name in ("client", "server", "shared") for p in (ROOT / name).rglob("*.py")]
    text = "\n".join(path.read_text() for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


SOURCE = sentences()


def pieces(quoted: str) -> list[str]:
    parts = [part.strip(" (),;") for part in re.split(r"<[^>]*>", quoted)]
    return [part for part in parts if len(part) > 3]


@pytest.mark.parametrize("quoted", QUOTED)
def test_each_message_of_the_runbook_is_one_the_code_can_say(quoted):
    assert pieces(quoted)
    for piece in pieces(quoted):
        assert piece in SOURCE, piece


def test_the_runbook_has_twelve_failures_each_with_a_message():
    sections = FAILURES.split("\n### ")[1:]
    assert [section.split(".")[0] for section in sections] == [str(n) for n in range(1, 13)]
    assert all(re.search(r"^    \S", section, flags=re.M) for section in sections)
