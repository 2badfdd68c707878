"""Remove one defence at a time from a copy of the sources: its test must fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.defences import DEFENCES

ROOT = Path(__file__).parents[2]
COPIED = ("consilium", "client", "server", "shared", "simulations", "tests", "pyproject.toml")


def run_tests(folder, *tests):
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *tests],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, symlinks=True, ignore=skipped)
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.mark.slow
def test_with_every_defence_in_place_the_tests_pass(copy):
    code, output = run_tests(copy, *sorted({defence.test for defence in DEFENCES}))
    assert code == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.name)
def test_without_the_defence_its_test_fails(copy, defence):
    path = copy / defence.file
    whole = path.read_text()
    path.write_text(whole.replace(defence.line, defence.removed))
    try:
        code, output = run_tests(copy, defence.test)
    finally:
        path.write_text(whole)
    assert code == 1, output


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.name)
def test_each_defence_is_one_line_of_the_sources(defence):
    assert (ROOT / defence.file).read_text().count(defence.line) == 1


def test_the_threat_model_lists_every_defence_with_its_test():
    table = (ROOT / "docs" / "threat-model.md").read_text()
    for defence in DEFENCES:
        row = f"| {defence.name} | `{defence.file}` |"
        assert row in table
        line = next(line for line in table.splitlines() if line.startswith(row))
        assert f"`{defence.test.rpartition('::')[2]}`" in line
