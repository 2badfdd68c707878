"""The page about records: what it shows can be written into a site.toml."""

import re
import tomllib
from pathlib import Path

import pytest

from consilium.client.sources.registry import OWN_SYSTEMS, SOURCES, read_data_settings

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_accepted(example: str, tmp_path: Path) -> None:
    read_data_settings(tomllib.loads(example)["data"], where="site.toml", folder=tmp_path)


def test_every_source_is_named_and_every_own_system_has_an_example() -> None:
    table = {name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
             for name in re.findall(r"`([^`]+)`", row)}  # fmt: skip  # reads as one
    assert table - {"source"} == set(SOURCES)
    shown = {tomllib.loads(example)["data"]["source"] for example in EXAMPLES}
    assert shown == OWN_SYSTEMS
