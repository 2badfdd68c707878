"""Programs that some tests need: skipped where one is missing, failed where it has to be there.

``CONSILIUM_REQUIRE="chromium postgresql"`` names what has to be there; `.ci/run` sets it.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

PATIENCE_S = 240.0  # for a program that takes seconds on an idle machine


def missing(program: str, package: str, how: str = "Debian: apt-get install") -> NoReturn:
    """Skip the test, or fail it where the program has to be there."""
    told = f"{program} is not installed ({how} {package})"
    if program in os.environ.get("CONSILIUM_REQUIRE", "").split():
        pytest.fail(f"{told}, and CONSILIUM_REQUIRE names it", pytrace=False)
    pytest.skip(told)


def browse(address: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Open a page in Chromium without a window, with a profile of its own in the folder."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        missing("chromium", "chromium")
    return subprocess.run(
        [found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-dev-shm-usage",  # small in containers; Chromium dies when it is full
         f"--user-data-dir={folder / 'profile'}", *arguments, address],
        capture_output=True, timeout=PATIENCE_S, check=True, text=True,
    )  # fmt: skip  # options beside their values
