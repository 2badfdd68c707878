"""A release is the same bytes wherever it is made; a bundle installs without a network."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.needs import missing

ROOT = Path(__file__).resolve().parents[1]
CYCLONEDX = Path(sys.prefix) / "release" / "bin" / "cyclonedx-py"
SLOW_S = 900

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SLOW_S)]


def ran(*command, **how):
    return subprocess.run(
        [*map(str, command)], check=True, capture_output=True, text=True, timeout=SLOW_S, **how
    )


def released(folder, cyclonedx, **how):
    """The files of a release that is made in a clone of this repository."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("a release is made from a commit, and this is no clone")
    clone, out = folder / "clone", folder / "out"
    ran("git", "clone", "--quiet", "--no-hardlinks", ROOT, clone)
    (clone / "consilium" / "not_committed.py").write_text("")
    ran(clone / ".ci" / "release", sys.executable, cyclonedx, out, **how)
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def cyclonedx(tmp_path_factory):
    """The program that writes bills of materials, or a stand-in that writes an empty one."""
    if CYCLONEDX.exists():
        return CYCLONEDX
    stand_in = tmp_path_factory.mktemp("cyclonedx") / "cyclonedx-py"
    stand_in.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[-2], 'w').write('{{}}')\n")
    stand_in.chmod(0o755)
    return stand_in


@pytest.fixture(scope="module")
def release(tmp_path_factory, cyclonedx):
    return released(tmp_path_factory.mktemp("one"), cyclonedx)


def test_another_folder_umask_zone_and_locale_give_the_same_bytes(release, cyclonedx, tmp_path):
    elsewhere = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "5"}
    again = released(tmp_path, cyclonedx, umask=0o077, env=elsewhere)
    assert sorted(again) == sorted(release)
    assert len(release) == 4
    assert [name for name in release if again[name] != release[name]] == []


def test_the_checksums_are_those_of_all_files_and_only_what_is_committed_is_in_them(release):
    sums = dict(reversed(line.split("  ")) for line in release["SHA256SUMS"].decode().splitlines())
    files = {name: content for name, content in release.items() if name != "SHA256SUMS"}
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert not any(b"not_committed" in content for content in files.values())


def test_the_bill_of_materials_has_every_pinned_distribution(release):
    if not CYCLONEDX.exists():
        missing("cyclonedx", ".venv/.release", how="in the repository: make")
    (name,) = [name for name in release if name.endswith(".cdx.json")]
    bill = json.loads(release[name])
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "consilium-fl"
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = {tuple(line.split("==")) for line in lock if line and not line.startswith("#")}
    assert {(one["name"], one["version"]) for one in bill["components"]} == pinned


def tiny_wheel(folder, name, *, needs=""):
    """A wheel of one module."""
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    needed = f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}.py": "HERE = True\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def test_a_bundle_installs_what_is_in_it_and_nothing_else(tmp_path):
    registry = tmp_path / "registry"
    registry.mkdir()
    tiny_wheel(registry, "needed")
    project, lock = tiny_wheel(tmp_path, "project", needs="needed"), tmp_path / "lock"
    lock.write_text("needed==1.0\n")
    nowhere = {**os.environ, "PIP_NO_INDEX": "1", "PYTHON": sys.executable}
    ran(
        ROOT / ".ci" / "bundle", sys.executable, project, lock, tmp_path / "out",
        env={**nowhere, "PIP_FIND_LINKS": str(registry)},
    )  # fmt: skip  # options beside their values
    (bundle,) = (tmp_path / "out").glob("project-1.0-python*.tar")
    ran("tar", "-x", "-f", bundle, "-C", tmp_path)
    folder = tmp_path / bundle.stem
    env = tmp_path / "env"
    assert "installed" in ran(folder / "install.sh", env, env=nowhere).stdout
    ran(env / "bin" / "python", "-c", "import needed, project")

    def refused(*arguments, **environment):
        done = subprocess.run(
            [folder / "install.sh", *arguments], env={**nowhere, **environment},
            capture_output=True, text=True, timeout=SLOW_S, check=False,
        )  # fmt: skip  # options beside their values
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        return done.stderr

    assert "give the folder of the new environment" in refused()
    assert "exists; name a folder that does not" in refused(env)
    assert "these wheels are for Python" in refused(tmp_path / "new", PYTHON="/bin/false")
    with (folder / "wheels" / project.name).open("ab") as file:
        file.write(b"x")
    assert "the bundle was changed or is not whole" in refused(tmp_path / "new")
    assert not (tmp_path / "new").exists()
