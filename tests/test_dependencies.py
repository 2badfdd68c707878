"""What the package imports is what it declares, and what is pinned is what is declared."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("client", "server", "shared", "simulations")
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
GROUPS = tomllib.loads(TEXT)["dependency-groups"]
EXTRAS = PROJECT["optional-dependencies"]
# Which files may import what only an extra installs.
FILES_OF_EXTRAS = {
    "fhir": ("client/bedside/ehr_trust.py", "client/sources/own/fhir/fhir_connection.py"),
    "frames": ("simulations/api/",),
    "hospital": (
        "client/bedside/fhir_stream.py",
        "client/sources/own/",
        "client/sources/recorded/",
        "client/sources/public/eicu_demo.py",
        "simulations/guesses/",
    ),
    "onnx": ("shared/export/onnx_",),
    "ray": (
        "simulations/federation/flower_engine.py",
        "simulations/federation/ray_cluster.py",
        "simulations/runs/sweep.py",
    ),
    "sql": ("client/sources/own/", "simulations/guesses/databases.py"),
    "tensorboard": ("simulations/report/rounds_export.py",),
    "xlsx": ("client/sources/own/tables/table_forms.py", "simulations/guesses/written.py"),
    "zst": ("client/sources/own/tables/table_forms.py",),
}


def named(requirements):
    return {canonicalize_name(Requirement(one).name) for one in requirements}


@functools.cache
def imports():
    """Each import of another distribution in the package: its possible names, and the file."""
    found = []
    files = [ROOT / "consilium" / "__init__.py"]
    for room in ROOMS:
        files += sorted((ROOT / room).rglob("*.py"))
    owners = packages_distributions()
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names or top == "consilium":
                    continue
                if module.startswith("google.protobuf"):  # 'google' is a namespace of many
                    names = {"protobuf"}
                else:
                    names = {canonicalize_name(name) for name in owners[top]}
                found.append((names, file.relative_to(ROOT).as_posix()))
    return found


def undeclared(found, core, extras):
    """The imports that neither the core nor the extra of their file declares."""
    wrong = []
    for names, file in found:
        allowed = set(core)
        for extra, places in FILES_OF_EXTRAS.items():
            if file.startswith(places):
                allowed |= extras[extra]
        if not names & allowed:
            wrong.append(f"{file}: {', '.join(sorted(names))}")
    return wrong


def test_each_import_is_declared_by_the_project_or_the_extra_of_its_file():
    extras = {extra: named(listed) for extra, listed in EXTRAS.items()}
    assert len(imports()) > 200
    assert not undeclared(imports(), named(PROJECT["dependencies"]), extras)


@pytest.mark.parametrize("name", ["scipy", "protobuf", "numpy"])
def test_an_import_without_a_declaration_is_found(name):
    extras = {extra: named(listed) for extra, listed in EXTRAS.items()}
    core = named(PROJECT["dependencies"]) - {name}
    assert any(name in wrong for wrong in undeclared(imports(), core, extras))


def test_a_library_of_an_extra_is_imported_only_where_the_extra_is_meant():
    extras = {extra: named(listed) for extra, listed in EXTRAS.items()}
    moved = [(names, "shared/model/cells.py") for names, _ in imports() if "polars" in names]
    assert undeclared(moved, named(PROJECT["dependencies"]), extras)


@pytest.mark.slow
def test_each_declared_distribution_is_imported_or_says_why_not():
    imported = set().union(*(names for names, _ in imports()))
    declared = [*PROJECT["dependencies"], *(one for listed in EXTRAS.values() for one in listed)]
    for requirement in declared:
        reason = re.search(rf'^    "{re.escape(requirement)}",  # \w', TEXT, re.MULTILINE)
        assert canonicalize_name(Requirement(requirement).name) in imported or reason, requirement


def pins(name):
    """A lock's distributions and their versions."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line)
            assert match, f"{name}: {line!r} is not NAME==VERSION"
            assert canonicalize_name(match[1]) not in found, f"{name}: {match[1]} stands twice"
            found[canonicalize_name(match[1])] = match[2]
    return found


def dev_requirements():
    return [*GROUPS["dev"], *(one for listed in EXTRAS.values() for one in listed)]


def test_the_locks_satisfy_every_declared_requirement():
    run, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert not set(run) & set(dev)
    for pinned, requirements in (
        (run, PROJECT["dependencies"]),
        (run | dev, dev_requirements()),
    ):
        for text in requirements:
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            assert name in pinned, f"{text} is declared and not pinned"
            assert requirement.specifier.contains(pinned[name]), f"{text}, pinned {pinned[name]}"


def pulled(requirements):
    """Every distribution that these requirements pull, by the metadata of what is installed.

    Also each requirement met on the way.
    """
    met, names, waiting = [], set(), [(Requirement(one), "") for one in requirements]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        met.append(requirement)
        names.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                needs = distribution(name).requires or []
            except PackageNotFoundError:
                continue
            waiting += [(Requirement(one), wanted) for one in needs]
    return names, met


def test_nothing_is_pinned_that_no_requirement_pulls():
    run = {*pulled(PROJECT["dependencies"])[0], *named(["setuptools"])}  # it installs the project
    assert not set(pins("requirements.lock")) - run
    assert not set(pins("requirements-dev.lock")) - pulled(dev_requirements())[0]


def test_everything_that_the_dependencies_pull_is_pinned_in_a_version_they_allow():
    pinned = pins("requirements.lock")
    installed = {name: distribution(name).version.partition("+")[0] for name in pinned}
    if installed != pinned:
        pytest.skip("another environment than the lock's: its metadata tell of other versions")
    for requirement in pulled(PROJECT["dependencies"])[1]:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is pulled and not pinned"
        assert requirement.specifier.contains(version), f"{requirement}, pinned {version}"


@pytest.mark.parametrize("place", ["client/x.py", "tests/x.py", "benchmarks/x.py"])
@pytest.mark.parametrize(
    "line",
    [
        "import server",
        "import shared.errors",
        "from client import cli",
        "from simulations.cli import main",
        "import studies",
    ],
)
def test_a_bare_room_name_is_refused_by_the_lint(place, line):
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
    found = subprocess.run(
        [*ruff, "--stdin-filename", place, "-"],
        cwd=ROOT,
        input=line,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "TID251" in found.stdout
    assert "consilium." in found.stdout
