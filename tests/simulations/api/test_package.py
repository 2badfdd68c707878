"""``import consilium``: what it offers, how quickly, and that its example is true."""

import ast
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import consilium
from consilium.shared import errors

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
HEAVY = ("torch", "opacus", "sklearn", "matplotlib", "numpy", "pydantic", "flwr", "polars")


def in_a_fresh_process(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_importing_it_imports_none_of_the_large_libraries_and_none_of_our_rooms() -> None:
    code = (
        "import sys; import consilium; dir(consilium); print(sorted(m for m in sys.modules if "
        f"m.split('.')[0] in {HEAVY} or m.startswith('consilium.')))"
    )
    assert in_a_fresh_process(code).strip() == "[]"


def test_importing_it_takes_less_than_three_tenths_of_a_second_of_the_processor() -> None:
    code = (
        "import time; began = time.process_time(); import consilium; "
        "print(time.process_time() - began)"
    )
    assert float(in_a_fresh_process(code)) < 0.3


def test_the_errors_come_without_the_large_libraries() -> None:
    code = (
        "import sys; import consilium; consilium.ConsiliumError; "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert in_a_fresh_process(code).strip() == "[]"


@pytest.mark.parametrize("name", consilium.__all__)
def test_every_name_it_promises_is_there(name: str) -> None:
    assert getattr(consilium, name) is not None
    assert name in dir(consilium)


def test_a_type_checker_is_shown_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse((ROOT / "consilium" / "__init__.py").read_text(encoding="utf-8"))
    shown = {
        (alias.asname, f"{node.module}.{alias.name}")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("consilium.")
        for alias in node.names
    }
    assert {name for name, _ in shown} == set(consilium.__all__)
    assert len(consilium.__all__) == len(set(consilium.__all__))
    for name, source in shown:
        module, _, inside = source.rpartition(".")
        assert getattr(consilium, name) is getattr(sys.modules[module], inside), name


def test_the_whole_tree_of_errors_is_offered() -> None:
    tree = {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, errors.ConsiliumError)
    }
    assert tree <= set(consilium.__all__)


def test_a_name_it_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'consilium' has no attribute 'simulat'"):
        consilium.simulat  # noqa: B018 - the access is what is tested
    with pytest.raises(ImportError):
        from consilium import simulat  # noqa: F401


@pytest.mark.slow
def test_the_example_in_its_docstring_is_true() -> None:
    found = doctest.testmod(consilium, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 5
    assert found.failed == 0


@pytest.mark.slow
def test_mypy_strict_finds_nothing_in_a_researchers_script_and_every_mistake_in_another() -> None:
    mistakes = HERE / "user_mistakes.py"
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(HERE / "user_script.py"),
         str(mistakes)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )  # fmt: skip  # reads as the command it is
    found = re.findall(r"^(\S+?):(\d+): error: .*\[([a-z-]+)\]$", checked.stdout, re.MULTILINE)
    lines = mistakes.read_text(encoding="utf-8").splitlines()
    expected = {
        (str(n), line.partition("# ")[2]) for n, line in enumerate(lines, 1) if "# " in line
    }
    assert {Path(file).name for file, _, _ in found} == {mistakes.name}, checked.stdout
    assert {(line, kind) for _, line, kind in found} == expected
    assert checked.stderr == ""
