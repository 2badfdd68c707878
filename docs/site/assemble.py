"""Write the sources of the documentation site into a folder, for Sphinx to build.

    python docs/site/assemble.py FOLDER

The pages are README.md, the pages of ``docs`` and a few others, as they stand; the reference of the
commands and of the rooms is made from the code each time, so it cannot be older than the code.
"""

import re
import shutil
import sys
from collections.abc import Sequence
from os.path import relpath
from pathlib import Path

from commands import command_pages
from rooms import room_pages

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")

TREES = {
    "For hospitals": (
        "web-page",
        "vouching",
        "coming-back",
        "joining",
        "data",
        "check",
        "opt-outs",
        "bedside",
        "audit",
    ),
    "For researchers": (
        "python",
        "studies",
        "models-from-outside",
        "strategies",
        "tuning",
        "clusters",
        "run-json",
    ),
    "For operators": ("operations", "releases", "scale"),
    "What is protected": ("threat-model", "privacy", "protocol"),
    "Reference": ("commands/index", "rooms/index"),
    "The project": ("decisions/README", "contributing", "security", "changelog"),
}


def site_paths() -> dict[str, str]:
    """Return where each page of the repository stands in the site, by its path from the root."""
    paths = {
        "README.md": "index.md",
        "CONTRIBUTING.md": "contributing.md",
        "SECURITY.md": "security.md",
        "CHANGELOG.md": "changelog.md",
    }
    for file in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs" / "images").iterdir()]:
        paths[file.relative_to(ROOT).as_posix()] = file.relative_to(ROOT / "docs").as_posix()
    return paths


def as_in_site(text: str, page: str, paths: dict[str, str]) -> str:
    """Return a page's text with its links turned; those to files outside the site become text.

    Args:
        text: Markdown.
        page: the page's path from the root.
        paths: as :func:`site_paths` returns them.
    """

    def turned(found: re.Match[str]) -> str:
        image, words, target, anchor = (
            found[1],
            as_in_site(found[2], page, paths),
            found[3],
            found[4],
        )
        named = (ROOT / page).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()
        if named not in paths:
            return words
        here = Path(paths[page]).parent
        return f"{image}[{words}]({relpath(paths[named], here)}{anchor or ''})"

    # There is no renderer of diagrams that works without a script from elsewhere: they stay text.
    return LINK.sub(turned, text).replace("```mermaid", "```text")


def toctree(pages: Sequence[str], caption: str = "") -> str:
    """Return the lines that put these pages into the site's side bar."""
    head = (
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n"
        if caption
        else "```{toctree}\n:hidden:\n"
    )
    return "\n" + head + "\n" + "\n".join(pages) + "\n```\n"


def trees(paths: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the side bar: ``TREES``, and every page that none of them names with the reference."""
    named = {page for pages in TREES.values() for page in pages}
    top = sorted(place.removesuffix(".md") for place in paths.values() if "/" not in place)
    rest = [page for page in top if page not in named and page != "index"]
    return TREES | {"Reference": (*TREES["Reference"], *rest)}


def assemble(out: Path) -> None:
    """Write all pages into ``out``, which is emptied first."""
    shutil.rmtree(out, ignore_errors=True)
    paths = site_paths()
    for page, place in paths.items():
        target = out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if not page.endswith(".md"):
            shutil.copy(ROOT / page, target)
            continue
        text = as_in_site((ROOT / page).read_text(), page, paths)
        if page == "README.md":
            text += "".join(toctree(pages, caption) for caption, pages in trees(paths).items())
        if page == "docs/decisions/README.md":
            numbers = sorted(file.stem for file in (ROOT / "docs/decisions").glob("[0-9]*.md"))
            text += toctree(numbers)
        if page == "docs/data.md":
            below = sorted(file.stem for file in (ROOT / "docs/data").glob("*.md"))
            text += toctree([f"data/{name}" for name in below])
        target.write_text(text)
    for place, text in {**command_pages(), **room_pages(ROOT)}.items():
        target = out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    shutil.copy(Path(__file__).with_name("conf.py"), out / "conf.py")


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
