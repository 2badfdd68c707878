"""A wheel holds one name, the compiled kernel where there is a compiler, and a tag that is true."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("client", "server", "shared", "simulations", "studies")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "Makefile", "requirements.lock")
STATUS = "from consilium.shared.kernels.build import kernel_status; print(kernel_status().sentence)"
SLOW_S = 1200

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SLOW_S)]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def sources(folder):
    """A copy of what a wheel is made from, with the links as links."""
    for part in (*ROOMS, "consilium"):
        shutil.copytree(
            ROOT / part,
            folder / part,
            symlinks=True,
            ignore=shutil.ignore_patterns("*.so", "*.pyc", "__pycache__"),
        )
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


def wheel(source, out, **environment):
    """Build a wheel from a folder or a source archive, in the tests' own environment."""
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run(
        [*pip, "--wheel-dir", str(out), str(source)],
        env={**os.environ, **environment},
        check=True,
        timeout=SLOW_S,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def from_tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    return wheel(sources(folder / "source"), folder / "out")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What 'make wheel' leaves: the source archive, and the wheel made from it."""
    source = sources(tmp_path_factory.mktemp("made") / "source")
    ready = f"{sys.prefix}/.run"  # this environment is not to be made again
    command = ["make", "-o", ready, "wheel", f"VENV={sys.prefix}"]
    subprocess.run(command, cwd=source, check=True, timeout=SLOW_S)
    (archive,) = (source / "dist").glob("*.tar.gz")
    (built,) = (source / "dist").glob("*.whl")
    return archive, built


def contents(built):
    """Every file of a wheel by its name, without the list of its digests."""
    with zipfile.ZipFile(built) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/RECORD")]
        return {name: archive.read(name) for name in names}


def status_of(built, folder):
    """Install the wheel by itself and ask which kernel it uses, with no compiler at hand."""
    installed, nothing = folder / "installed", folder / "nothing"
    nothing.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, "--target", str(installed), str(built)], check=True, timeout=SLOW_S)
    return subprocess.run(
        [sys.executable, "-c", STATUS],
        cwd=folder,
        env={
            "PYTHONPATH": str(installed),
            "PATH": str(nothing),
            "CC": "nowhere",
            "XDG_CACHE_HOME": str(nothing),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=SLOW_S,
    ).stdout


@needs_compiler
def test_a_wheel_built_with_a_compiler_needs_none_where_it_is_installed(from_tree, tmp_path):
    assert "-py3-none-any" not in from_tree.name
    said = status_of(from_tree, tmp_path)
    assert "compiled kernel" in said
    assert str(tmp_path / "installed") in said


def test_a_wheel_built_without_a_compiler_is_for_every_platform_and_works(tmp_path):
    built = wheel(sources(tmp_path / "source"), tmp_path / "out", CC="/bin/false")
    assert built.name.endswith("-py3-none-any.whl")
    assert "no C compiler was found" in status_of(built, tmp_path)


@needs_compiler
def test_the_tag_names_a_c_library_as_new_as_the_kernel_needs(made):
    _, built = made
    tag = re.search(r"-py3-none-manylinux_(\d+)_(\d+)_(x86_64|aarch64)\.whl$", built.name)
    assert tag, built.name
    (kernel,) = [file for name, file in contents(built).items() if name.endswith(".so")]
    needed = re.findall(rb"GLIBC_(\d+)\.(\d+)", kernel)
    assert needed
    assert max((int(a), int(b)) for a, b in needed) <= (int(tag[1]), int(tag[2]))


def test_the_wheels_top_level_holds_one_name(made):
    tops = {name.partition("/")[0] for name in contents(made[1])}
    assert len(tops) == 2
    assert "consilium" in tops
    (other,) = tops - {"consilium"}
    assert re.fullmatch(r"consilium_fl-[\w.+]+\.dist-info", other)


def test_the_wheel_holds_every_file_of_the_rooms(made):
    held = set(contents(made[1]))
    for room in ROOMS:
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and file.suffix not in (".pyc", ".so"):
                assert f"consilium/{file.relative_to(ROOT).as_posix()}" in held
    assert "consilium/py.typed" in held


def test_the_source_archive_holds_files_and_no_links(made):
    with tarfile.open(made[0]) as archive:
        members = archive.getmembers()
    assert not [one.name for one in members if one.issym() or one.islnk()]
    assert any(one.name.endswith("/consilium/client/cli.py") and one.isfile() for one in members)


def test_a_wheel_from_the_source_archive_equals_one_from_the_tree(made, from_tree):
    assert made[1].name == from_tree.name
    assert contents(made[1]) == contents(from_tree)


@pytest.fixture(scope="module")
def installed(made, tmp_path_factory):
    """A new environment with the wheel; the tests' own libraries, and not the tests' consilium."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, str(made[1])], check=True, timeout=SLOW_S)
    # A path in a .pth file is searched; the .pth files in it (an editable install) are not read.
    site = next((folder / "lib").glob("python*")) / "site-packages"
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder


@pytest.fixture
def notebook(tmp_path):
    """A folder of a user whose own modules are named as our rooms are."""
    for name in ("client", "server", "shared", "simulations", "studies"):
        (tmp_path / f"{name}.py").write_text(f"MINE = {name!r}\n", encoding="utf-8")
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return tmp_path, {**environment, "PYTHONPATH": str(tmp_path)}


def test_a_users_own_client_and_server_stand_beside_the_installed_package(installed, notebook):
    folder, environment = notebook
    code = "import consilium, client, server, shared; print(consilium.__file__, client.MINE)"
    said = subprocess.run(
        [installed / "bin" / "python", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=SLOW_S,
    ).stdout
    assert said.startswith(str(installed))
    assert said.endswith("client\n")


def test_the_demo_runs_from_an_installed_wheel_beside_a_users_own_client(installed, notebook):
    folder, environment = notebook
    demo = [installed / "bin" / "consilium-simulate", "demo", "--out", "run", "--workers", "2"]
    subprocess.run(demo, cwd=folder, env=environment, check=True, timeout=SLOW_S)
    assert (folder / "run" / "report.html").is_file()
    assert (folder / "run" / "model.safetensors").is_file()
