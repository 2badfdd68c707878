"""The pictures of both pages are those that the script takes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.needs import missing

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.slow
def test_the_script_takes_the_pictures_that_the_page_shows(tmp_path: Path) -> None:
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        missing("chromium", "chromium")
    shown = re.findall(r"!\[[^]]+\]\(images/([\w-]+\.png)\)", (DOCS / "web-page.md").read_text())
    script = [sys.executable, str(DOCS / "web_screens.py"), "--out", str(tmp_path)]
    root = str(DOCS.parent)
    subprocess.run(script, check=True, cwd=root, env=os.environ | {"PYTHONPATH": root})
    assert sorted(shown) == sorted(file.name for file in tmp_path.iterdir())
    for name in shown:
        taken, kept = (Image.open(place / name) for place in (tmp_path, DOCS / "images"))
        assert taken.width == kept.width
        assert 0.8 < taken.height / kept.height < 1.25  # fonts differ, what is shown does not
