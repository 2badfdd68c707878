"""Every room's pages come from templates that escape, and modules write no markup by hand."""

import ast
import fnmatch
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

from consilium.shared.service.pages import page_templates, render_page

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(
    folder
    for part in ("client", "server", "shared", "simulations")
    for folder in (ROOT / part).rglob("templates")
    if folder.is_dir()
)
ROOMS = [f"consilium.{'.'.join(folder.parent.relative_to(ROOT).parts)}" for folder in FOLDERS]
WITH_PAGES = [
    "consilium.client.quality",
    "consilium.client.web",
    "consilium.server.service",
    "consilium.server.web",
    "consilium.shared.service",
    "consilium.shared.web",
    "consilium.simulations.report",
]
MARKUP = re.compile(r"<[/!]?[a-z]+[1-6]?([ >/]|$)", flags=re.I)
DTYPE = re.compile(r"[<>][fiu]\d")  # NumPy's names of types
# The drawings of the report: it cuts Matplotlib's SVG to what stands inside the element.
TAKES_MARKUP = "simulations/report/drawing.py"


def modules() -> list[Path]:
    return sorted(module for folder in FOLDERS for module in folder.parent.glob("*.py"))


def strings_of(module: Path) -> list[str]:
    """All text in a module, that of f-strings included, but for docstrings."""
    tree = ast.parse(module.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    ]


class Parts(HTMLParser):
    """Tags, attributes' values and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str | None] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_rooms_with_pages_are_these() -> None:
    assert ROOMS == WITH_PAGES


@pytest.mark.sampled(1)
@pytest.mark.parametrize("room", WITH_PAGES)
@given(words=st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"])))
def test_whatever_a_template_is_given_stays_text(room: str, words: str) -> None:
    source = "<p title='{{ words }}' lang=\"{{ words }}\">{{ words }}</p>"
    parts = Parts(page_templates(room).from_string(source).render(words=words))
    assert (parts.tags, parts.values, parts.text) == (["p"], [words, words], words)


@pytest.mark.parametrize("room", WITH_PAGES)
def test_every_template_of_a_room_escapes_and_compiles(room: str) -> None:
    templates = page_templates(room)
    assert templates.autoescape is True
    names = templates.list_templates()
    assert {"common/page.html", "common/common.css"} < set(names)
    for name in names:
        templates.get_template(name)
        assert templates.loader is not None
        source = templates.loader.get_source(templates, name)[0]
        assert not re.search(r"\bsafe\b|autoescape|Markup", source), name
        assert not re.search(r"<script|\son\w+=|https?:", source), name


def test_only_what_is_marked_as_markup_is_taken_as_it_is() -> None:
    template = page_templates("consilium.client.quality").from_string("{{ one }} {{ other }}")
    assert template.render(one=Markup("<b>"), other="<b>") == "<b> &lt;b&gt;"


def test_a_value_that_was_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'study' is undefined"):
        render_page("consilium.client.quality", "quality.html")


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_of_a_room_with_pages_writes_or_escapes_markup(module: Path) -> None:
    tree = ast.parse(module.read_text())
    imported = {
        alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    }
    taken = {
        f"{n.module}.{alias.name}"
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom)
        for alias in n.names
    }
    assert "html" not in imported
    assert not any(name.startswith("html.") or name == "markupsafe.escape" for name in taken)
    if str(module.relative_to(ROOT)) == TAKES_MARKUP:
        assert module.read_text().count("Markup(") == 1
        return
    assert not any(name.startswith("markupsafe") for name in imported | taken)
    assert [
        text for text in strings_of(module) if MARKUP.search(text) and not DTYPE.fullmatch(text)
    ] == []


def test_every_template_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["package-data"]
    for room, folder in zip(ROOMS, FOLDERS, strict=True):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        for path in files:
            name = str(path.relative_to(folder.parent))
            same_depth = [p for p in data[room] if p.count("/") == name.count("/")]
            assert any(fnmatch.fnmatch(name, pattern) for pattern in same_depth), name
