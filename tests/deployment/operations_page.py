"""What docs/operations.md says that the programs say: the sentences, placeholders in brackets."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
FAILURES = PAGE[PAGE.index("## The twelve likeliest failures") :]
QUOTED = re.findall(r"^    (.+)$", FAILURES, flags=re.M)
_LOSSES = PAGE[PAGE.index("| it says | lost or older |") : PAGE.index("**Write off.**")]
LOSSES = [
    sentence
    for row in _LOSSES.splitlines()[2:]
    for sentence in re.findall(r"`([^`]+)`", row.split("|")[1:2][0] if "|" in row else "")
]


def pieces(quoted: str) -> list[str]:
    """What stands between the placeholders of a sentence."""
    parts = [part.strip(" (),;") for part in re.split(r"<[^>]*>", quoted)]
    return [part for part in parts if len(part) > 3]


def says(said: str, quoted: str) -> bool:
    """Whether a sentence is, or holds, the one that the page quotes."""
    pattern = ".*".join(map(re.escape, re.split(r"<[^>]*>", quoted)))
    return re.search(pattern, said) is not None
