"""Docstrings are text that the documentation's builder reads without a complaint."""

import importlib
import inspect
import io
import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

import consilium
from tests.needs import missing

# Roles and names of the whole site, which only its builder knows.
OF_THE_SITE = ("Unknown interpreted text role", "No role entry", "Undefined substitution")


def docstrings() -> Iterator[tuple[str, str]]:
    """Each docstring of more than a line, by the name of what it describes."""
    for found in pkgutil.walk_packages(consilium.__path__, "consilium."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        yield from shown(found.name, module)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", "") != found.name:
                continue
            yield from shown(f"{found.name}.{name}", value)
            if inspect.isclass(value):
                for own, part in vars(value).items():
                    if inspect.isfunction(part) or isinstance(part, property):
                        yield from shown(f"{found.name}.{name}.{own}", part)


def shown(name: str, value: object) -> Iterator[tuple[str, str]]:
    text = getattr(value, "__doc__", None)
    if isinstance(text, str) and "\n" in text:
        yield name, inspect.cleandoc(text)


def complaints(text: str) -> list[str]:
    """What the builder says of a docstring by itself."""
    from docutils.core import publish_doctree
    from sphinx.ext.napoleon import Config, GoogleDocstring

    lines = GoogleDocstring(text, Config(napoleon_use_ivar=True, napoleon_use_rtype=False)).lines()
    said = io.StringIO()
    publish_doctree(
        "\n".join(lines),
        settings_overrides={"warning_stream": said, "report_level": 2, "halt_level": 5},
    )
    told = [line for line in said.getvalue().splitlines() if "<string>" in line]
    return [line for line in told if not any(known in line for known in OF_THE_SITE)]


@pytest.mark.slow
def test_the_documentation_reads_every_docstring_without_a_complaint() -> None:
    if find_spec("sphinx") is None:
        missing("sphinx", ".venv/.docs", how="make")
    found = dict(docstrings())
    assert len(found) > 1000
    wrong = {name: told for name, text in found.items() if (told := complaints(text))}
    assert wrong == {}
    assert complaints("One.\n\nname: of two\n  lines,\nand: more.")
