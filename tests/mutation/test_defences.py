"""Remove one defence at a time from a copy of the sources: its test must fail."""

import compileall
import json
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutation.defences import DEFENCES

ROOT = Path(__file__).parents[2]
CODE = ("client", "server", "shared", "simulations")
COPIED = ("consilium", *CODE, "tests", "docs", "pyproject.toml")


class Copy:
    """A copy of the sources, and a process that runs its tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = folder / "tests" / "mutation" / "fork_tests.py"
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def run(self, *tests: str) -> tuple[int, str]:
        """Return the exit status of pytest, 1 if a test failed, and what it printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(tests) + "\n")
        self._process.stdin.flush()
        status, printed = json.loads(self._process.stdout.readline())
        return status, printed

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    folder = tmp_path_factory.mktemp("sources")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, symlinks=True, ignore=skipped)
        else:
            shutil.copy(source, folder / name)
    # Compiled files that are held against the source's hash: an altered source is read anew.
    by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
    for name in CODE:
        assert compileall.compile_dir(folder / name, quiet=1, invalidation_mode=by_hash)
    made = Copy(folder)
    yield made
    made.close()


@pytest.mark.slow
def test_with_every_defence_in_place_the_tests_pass(copy: Copy) -> None:
    code, output = copy.run(*sorted({defence.test for defence in DEFENCES}))
    assert code == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.name)
def test_without_the_defence_its_test_fails(copy: Copy, defence) -> None:
    path = copy.folder / defence.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(defence.line, defence.removed), encoding="utf-8")
    try:
        code, output = copy.run(defence.test)
    finally:
        path.write_text(whole, encoding="utf-8")
    assert code == 1, output
    assert "FAILED " in output, output  # by its own assertions, not for want of a test


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.name)
def test_each_defence_is_one_line_of_the_sources(defence):
    assert (ROOT / defence.file).read_text(encoding="utf-8").count(defence.line) == 1


def test_the_threat_model_lists_every_defence_with_its_test():
    table = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    for defence in DEFENCES:
        row = f"| {defence.name} | `{defence.file}` |"
        assert row in table
        line = next(line for line in table.splitlines() if line.startswith(row))
        assert f"`{defence.test.rpartition('::')[2]}`" in line
