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


def test_the_table_of_all_benchmarks_has_a_line_for_each_comparison(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from parts.table import ROWS, add_row, as_text

    monkeypatch.delenv(ROWS, raising=False)
    add_row("not asked for", 1.0, unit="s")
    rows = tmp_path / "rows"
    monkeypatch.setenv(ROWS, str(rows))
    add_row("a round", 0.5, unit="s", rival=16.5, beside="Flower's default path", floor=0.1)
    add_row("memory", 12345.0, unit="MiB")
    assert as_text(rows.read_text().splitlines()).splitlines() == [
        "measure        ours  rival  ratio  floor  beside",
        "a round, s      0.5   16.5  0.03x    0.1  Flower's default path",
        "memory, MiB  12,345",
    ]
