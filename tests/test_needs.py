"""A test that lacks a program skips, and fails where the program has to be there."""

from pathlib import Path

import pytest

from tests.needs import browse


def test_a_lack_skips_unless_the_program_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for required in ("", "postgresql"):
        monkeypatch.setenv("CONSILIUM_REQUIRE", required)
        with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
            browse("about:blank", tmp_path)
    monkeypatch.setenv("CONSILIUM_REQUIRE", "chromium postgresql")
    with pytest.raises(pytest.fail.Exception, match="CONSILIUM_REQUIRE names it"):
        browse("about:blank", tmp_path)
