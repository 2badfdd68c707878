"""What happens when the kernel cannot be had, or another one is asked for."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from consilium.shared.kernels import build
from tests.needs import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
needs_kernel = pytest.mark.skipif(
    build.kernel_status().variant is None, reason=build.kernel_status().sentence
)

STATUS = """
import torch
from consilium.shared.kernels.build import kernel_status
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.model.recurrent import LSTM
print(kernel_status())
LSTM(3, 4)(torch.zeros(2, 5, 3)).sum().backward()
assert len(Keystream(bytes(32)).standard_normal(5)) == 5
"""


def status_with(**environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", STATUS],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    ).stdout


@pytest.mark.slow
def test_it_can_be_turned_off():
    assert "CONSILIUM_KERNEL is off" in status_with(CONSILIUM_KERNEL="off")


@pytest.mark.slow
@needs_kernel
def test_a_variant_can_be_asked_for():
    assert "portable (CONSILIUM_KERNEL asks for it)" in status_with(CONSILIUM_KERNEL="portable")


@pytest.mark.slow
def test_an_unknown_choice_is_reported_and_everything_still_works():
    said = status_with(CONSILIUM_KERNEL="fast")
    assert "variant=None" in said
    assert "must be one of off, portable, avx2, avx512" in said


def test_without_a_compiler_everything_still_works(tmp_path, monkeypatch):
    if list(Path(build.__file__).parent.glob("recurrent-*.so")):
        pytest.skip("a built kernel lies beside its source")
    said = status_with(XDG_CACHE_HOME=str(tmp_path), PATH=str(tmp_path), CC="nowhere")
    assert "variant=None" in said
    assert "no C compiler" in said


@pytest.mark.slow
def test_a_failing_compiler_is_reported_and_everything_still_works(tmp_path):
    if list(Path(build.__file__).parent.glob("recurrent-*.so")):
        pytest.skip("a built kernel lies beside its source")
    said = status_with(XDG_CACHE_HOME=str(tmp_path), CC="/bin/false")
    assert "plain PyTorch" in said


def test_where_no_home_folder_can_be_written_a_folder_of_ones_own_takes_the_kernel(
    tmp_path, monkeypatch
):
    """As a service account has it: no home folder, or one that is there and read-only."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path))
    for home in ("/proc/nowhere", "/dev/null"):
        monkeypatch.setenv("HOME", home)
        (*refused, own) = build._caches()
        assert own == tmp_path / f"consilium-{os.getuid()}"
        for folder in refused:
            with pytest.raises(OSError):
                build._make_private(folder)
        build._make_private(own)
        assert own.stat().st_mode & 0o777 == 0o700


def test_an_account_without_a_home_folder_has_a_place_all_the_same(tmp_path, monkeypatch):
    def nobody() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(build.Path, "home", nobody)
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path}/given:{tmp_path}/other")
    given, own = build._caches()
    assert (given, own.name) == (tmp_path / "given", f"consilium-{os.getuid()}")


@pytest.mark.parametrize("trap", ["link", "open"])
def test_a_folder_that_others_can_write_takes_no_kernel(tmp_path, trap):
    folder = tmp_path / "consilium-0"
    if trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(PermissionError, match="another account can write it"):
        build._make_private(folder)


def test_where_no_folder_can_take_the_kernel_the_log_says_so_once(tmp_path, monkeypatch, caplog):
    if list(Path(build.__file__).parent.glob("recurrent-*.so")):
        pytest.skip("a built kernel lies beside its source")
    monkeypatch.delenv(build.CHOICE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: "/proc")
    load = functools.cache(build.load_kernel.__wrapped__)
    for _ in range(2):
        library, status = load()
    assert library is None
    assert "no folder can take the compiled kernel: /proc/nowhere/consilium" in status.sentence
    assert [record.message for record in caplog.records] == [status.sentence]


@pytest.mark.slow
@needs_kernel
def test_a_library_that_others_could_have_written_is_built_anew(tmp_path):
    first = status_with(XDG_CACHE_HOME=str(tmp_path))
    assert str(tmp_path) in first or "shared/kernels/recurrent" in first
    for built in (tmp_path / "consilium").glob("*.so"):
        built.write_bytes(b"not a library")
        built.chmod(0o666)
        assert "variant=None" not in status_with(XDG_CACHE_HOME=str(tmp_path))
        assert built.stat().st_mode & 0o022 == 0
