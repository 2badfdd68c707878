"""A wheel carries the compiled kernel where there is a compiler, and is whole without one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("client", "server", "shared", "simulations", "studies")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
STATUS = "from consilium.shared.kernels.build import kernel_status; print(kernel_status().sentence)"


def wheel(folder: Path, **environment: str) -> Path:
    """Build a wheel from a copy of the sources, in the tests' own environment."""
    source, out = folder / "source", folder / "out"
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("*.so", "*.pyc"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--quiet", "--wheel-dir", str(out), str(source)],
        env={**os.environ, **environment},
        check=True,
        timeout=240,
    )
    (built,) = out.iterdir()
    return built


def status_of(built: Path, folder: Path) -> str:
    """Install the wheel by itself and ask which kernel it uses, with no compiler at hand."""
    installed = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, "--target", str(installed), str(built)], check=True, timeout=240)
    nothing = folder / "nothing"
    nothing.mkdir()
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
        timeout=120,
    ).stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_wheel_built_with_a_compiler_needs_none_where_it_is_installed(tmp_path):
    built = wheel(tmp_path)
    assert "-py3-none-any" not in built.name
    said = status_of(built, tmp_path)
    assert "compiled kernel" in said
    assert str(tmp_path / "installed") in said


@pytest.mark.slow
def test_a_wheel_built_without_a_compiler_is_for_every_platform_and_works(tmp_path):
    built = wheel(tmp_path, CC="/bin/false")
    assert built.name.endswith("-py3-none-any.whl")
    assert "no C compiler was found" in status_of(built, tmp_path)
