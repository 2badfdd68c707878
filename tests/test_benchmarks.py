"""Benchmarks are run by hand; what they import must still be there when someone does."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
IMPORT_ALL = """
import runpy, sys

sys.path.insert(0, sys.argv[1])
for script in sys.argv[2:]:
    runpy.run_path(script, run_name="imported")
    print(script)
"""


@pytest.mark.slow
def test_every_benchmark_finds_what_it_imports() -> None:
    scripts = [str(path) for path in sorted(FOLDER.glob("*.py"))]
    assert len(scripts) >= 5
    command = [sys.executable, "-c", IMPORT_ALL, str(FOLDER), *scripts]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == scripts
