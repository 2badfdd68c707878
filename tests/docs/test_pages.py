"""What the pages name exists: links, files, modules, and each decision in the index by room."""

import ast
import importlib.util
import re
import tomllib
from importlib import import_module
from os.path import normpath
from pathlib import Path
from pkgutil import iter_modules

import pytest

from consilium.shared import enrolment, secure_sum
from consilium.shared.wire.encoding import Message

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "docs/images/record-path.svg"
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = [*TOP, *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))]
FOLDERS = "benchmarks|client|consilium|deploy|docs|examples|server|shared|simulations|studies|tests"

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]*)\)|(?:src|srcset)=\"(?!https?:)([^\"]+)\"")
FILE = re.compile(rf"(?<![\w./-])(?:\.\./)?((?:{FOLDERS})/[\w./-]*\w)/?")
MODULE = re.compile(r"(?<![\w.])consilium(?:\.[a-zA-Z_]\w*)+")
TEST = re.compile(r"`(test_\w+)`")
FROM_THE_COORDINATOR = {
    "ChannelRequest", "KeysRequest", "UpdateRequest", "AgreeRequest", "UnmaskRequest",
    "EnrolReply", "StudyList", "StudyOffer", "StudyProgress", "RecoveryGrant", "SuccessorReply",
    "Invitation", "RosterReply", "RosterVersion", "AgreedRoster",
    "RecoveryKeys",  # a part of RecoveryBinding
    "Vouchers",  # a file that hospitals hand each other
    "SignedKey", "Delivered", "PeerKey",  # what the coordinator shows of RoundKeys and ChannelKey
}  # fmt: skip
NO_MODULES = {"consilium.sources", "consilium.models"}  # groups of entry points
NO_FILES = {"studies/NAME.toml", "consilium/1"}  # a stand-in; the label of a statement


def prose(page: str) -> str:
    return (ROOT / page).read_text()


def anchors(page: str) -> set[str]:
    """The names that a page's headings have as link targets."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {word.strip().replace(" ", "-") for word in words}


def resolve(page: str, target: str) -> str:
    return normpath(Path(page).parent / target)


def test_no_file_holds_the_marks_of_two_versions_that_were_not_joined():
    marks = re.compile(rb"^(<{7}|>{7}|\|{7}) ", flags=re.M)
    folders = [ROOT / name for name in (*FOLDERS.split("|"), ".ci")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    assert len(files) > 1000
    assert [str(path) for path in files if marks.search(path.read_bytes())] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_something(page):
    broken = []
    for inline, source in LINK.findall(prose(page)):
        path, _, anchor = (inline or source).partition("#")
        target = resolve(page, path) if path else page
        if not (ROOT / target).exists() or (anchor and anchor not in anchors(target)):
            broken.append(inline or source)
    assert not broken


@pytest.mark.parametrize("page", [*PAGES, IMAGE])
def test_every_file_that_a_page_names_exists(page):
    named = set(FILE.findall(prose(page))) - NO_FILES
    assert not {name for name in named if not _is_there(name)}


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_a_page_names_exists(page):
    missing = []
    for name in set(MODULE.findall(prose(page))) - NO_MODULES:
        parts = name.split(".")
        module = next(
            ".".join(parts[:n]) for n in range(len(parts), 0, -1) if _is_module(parts[:n])
        )
        value = import_module(module)
        for part in parts[module.count(".") + 1 :]:
            value = getattr(value, part, None)
        if value is None:
            missing.append(name)
    assert not missing


def test_every_test_that_a_page_names_exists():
    sources = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    named = {name for page in PAGES for name in TEST.findall(prose(page))}
    defined = set(re.findall(r"def (test_\w+)", sources))
    assert named
    assert not named - defined


def test_every_decision_is_in_the_index_once_and_under_a_room_that_exists():
    index = prose("docs/decisions/README.md")
    links = re.findall(r"\]\(([^)]+)\)", index)
    files = sorted(file.name for file in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert sorted(links) == files
    for number, name in re.findall(r"\[(\d+)\]\(([^)]+)\)", index):
        assert name.startswith(f"{number}-")
    for room in re.findall(r"^- `([^`]+)`", index, re.MULTILINE):
        assert (ROOT / room / "__init__.py").is_file(), room


def test_the_readme_says_of_every_message_who_sends_it():
    told = re.search(r"## What leaves your building(.*?)\n## ", prose("README.md"), re.DOTALL)
    leaving = set(re.findall(r"^\| `(\w+)` \|", told[1], re.MULTILINE))
    kinds = {
        name
        for room in (enrolment, secure_sum)
        for found in iter_modules(room.__path__, f"{room.__name__}.")
        for module in (import_module(found.name),)
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Message)
        and value.__module__ == module.__name__
    }
    assert leaving | FROM_THE_COORDINATOR == kinds
    assert not leaving & FROM_THE_COORDINATOR


def test_every_function_at_a_path_of_contributing_is_in_its_file():
    ends = re.findall(r"`([\w/]+\.py)`: `([\w.]+)`", prose("CONTRIBUTING.md"))
    assert len(ends) >= 10
    for file, name in ends:
        scope = ast.parse((ROOT / file).read_text()).body
        for part in name.split("."):
            found = [node for node in scope if getattr(node, "name", None) == part]
            assert found, f"{name} in {file}"
            scope = getattr(found[0], "body", [])


def test_the_lock_of_the_docs_pins_what_no_other_lock_pins():
    pinned = [
        {line.partition("==")[0].lower() for line in prose(lock).splitlines() if "==" in line}
        for lock in ("requirements-docs.lock", "requirements.lock", "requirements-dev.lock")
    ]
    group = tomllib.loads(prose("pyproject.toml"))["dependency-groups"]["docs"]
    assert {re.split(r"[><=]", wanted)[0] for wanted in group} <= pinned[0]
    assert not pinned[0] & (pinned[1] | pinned[2])


def _is_there(name: str) -> bool:
    """Tell whether a file or folder is there, or a module named without its ending."""
    return (ROOT / name).exists() or (ROOT / f"{name}.py").exists()


def _is_module(parts: list[str]) -> bool:
    """Tell whether these parts name a module, without running more than its packages."""
    try:
        return importlib.util.find_spec(".".join(parts)) is not None
    except ModuleNotFoundError:
        return False
