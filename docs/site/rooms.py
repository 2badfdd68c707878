"""Pages of the Python reference: the public names, then a page for each room."""

import ast
import inspect
from pathlib import Path

import consilium

PACKAGES = ("simulations", "client", "server", "shared")


def room_pages(root: Path) -> dict[str, str]:
    """Return a page for each room and one that lists them, by path."""
    pages = {"rooms/consilium.rst": _public()}
    entries = ["consilium"]
    listed = ["", "- :doc:`consilium`: what a script or a notebook imports"]
    for package in PACKAGES:
        folders = sorted(file.parent for file in (root / package).rglob("__init__.py"))
        listed.append("")
        for folder in folders:
            name = ".".join(("consilium", *folder.relative_to(root).parts))
            pages[f"rooms/{name}.rst"] = _room(name, folder)
            entries.append(name)
            listed.append(f"- :doc:`{name}`: {_first_sentence(folder / '__init__.py')}")
    tree = [".. toctree::", "   :hidden:", "", *(f"   {entry}" for entry in entries)]
    head = _title("Rooms", "=") + (
        "\nEvery folder with an ``__init__.py`` is a room; its docstring says what lives there and "
        "what may enter.\n"
    )
    pages["rooms/index.rst"] = head + "\n".join([*listed, "", *tree]) + "\n"
    return pages


def _public() -> str:
    """Return the page of the names that ``import consilium`` gives.

    References lead to their rooms' pages, which have them, too.
    """
    lines = [_title("consilium", "="), ".. automodule:: consilium", "   :no-members:", ""]
    for name in getattr(consilium, "__all__", ()):
        value = getattr(consilium, name)
        if inspect.isclass(value):
            kind = "exception" if issubclass(value, BaseException) else "class"
            lines += [f".. auto{kind}:: consilium.{name}", "   :members:", "   :no-index:", ""]
        elif callable(value):
            lines += [f".. autofunction:: consilium.{name}", "   :no-index:", ""]
    return "\n".join(lines) + "\n"


def _room(name: str, folder: Path) -> str:
    lines = [_title(name, "="), f".. automodule:: {name}", "   :no-members:", ""]
    for file in sorted(folder.glob("*.py")):
        if file.name.startswith("__"):
            continue
        module = f"{name}.{file.stem}"
        lines += [_title(file.stem, "-"), f".. automodule:: {module}"]
        lines += ["   :members:", "   :show-inheritance:", ""]
    return "\n".join(lines) + "\n"


def _title(words: str, under: str) -> str:
    return f"{words}\n{under * len(words)}\n"


def _first_sentence(file: Path) -> str:
    told = ast.get_docstring(ast.parse(file.read_text())) or ""
    return told.split("\n\n")[0].replace("\n", " ")
