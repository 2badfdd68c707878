"""Every shape in a name is on the one page that says what the letters mean."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "shapes.md"
FOLDERS = ("client", "server", "shared", "simulations", "benchmarks", "tests")
SUFFIX = re.compile(r"[a-z0-9]_([0-9]*[A-Z][A-Z0-9]*)$")
ANY_SHAPE = re.compile(r"[a-z0-9]_[0-9]*[A-Z][A-Z0-9]*\b")
NOT_SHAPES = {"do_GET", "do_POST"}  # names that http.server asks for


def names_in(source: str) -> Iterator[str]:
    """Names that code binds or reads: of variables, arguments, attributes, fields, functions."""
    for node in ast.walk(ast.parse(source)):
        for field in ("id", "arg", "attr", "name", "asname"):
            if isinstance(name := getattr(node, field, None), str):
                yield name


def shapes_in(source: str) -> dict[str, str]:
    """Each name that ends in a shape, and the shape."""
    if not ANY_SHAPE.search(source):
        return {}  # most files, and a search is faster than a parse
    return {
        name: match[1]
        for name in set(names_in(source)) - NOT_SHAPES
        if not name.isupper() and (match := SUFFIX.search(name))
    }


def legend() -> list[str]:
    return re.findall(r"^\| `([A-Z])` \|", PAGE.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    modules = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in modules}


@pytest.fixture(scope="module")
def shapes(sources) -> dict[str, dict[str, str]]:
    return {path: shapes_in(source) for path, source in sources.items()}


def test_each_letter_has_one_line_in_order():
    assert len(legend()) > 20
    assert legend() == sorted(set(legend()))


def test_every_letter_of_every_shape_is_in_the_legend(shapes):
    known = {*legend(), *"0123456789"}
    unknown = {
        f"{path}: {name}"
        for path, names in shapes.items()
        for name, shape in names.items()
        if not set(shape) <= known
    }
    assert not unknown, f"{PAGE.name} does not say what these mean"


def test_every_letter_of_the_legend_is_used(shapes):
    used = {letter for names in shapes.values() for shape in names.values() for letter in shape}
    assert set(legend()) <= used


def test_no_module_has_a_legend_of_its_own(sources):
    legend_line = re.compile(r'^(""")?Legend\b', re.MULTILINE | re.IGNORECASE)
    assert not [path for path, source in sources.items() if legend_line.search(source)]


def test_shapes_of_names_arguments_fields_and_attributes_are_seen():
    source = "def f(x_NTF, *, w_Y=1):\n    self.y_2B, z_N1 = x_NTF, TIMEOUT_S\n    do_GET(k_J=1)\n"
    assert shapes_in(source) == {"x_NTF": "NTF", "w_Y": "Y", "y_2B": "2B", "z_N1": "N1", "k_J": "J"}
