"""Find, build and load the compiled kernel; say in one sentence what is in use and why.

The kernel is looked for beside its source (put there by a build), then among those compiled before
for the same source, compiler flags and kind of machine, then it is compiled with the C compiler
named by ``CC`` (default: cc, gcc or clang, whichever there is). ``CONSILIUM_KERNEL=off`` leaves it
out, and ``portable``, ``avx2`` or ``avx512`` asks for that variant instead of the best one. Nothing
fails without it: the cells run in plain PyTorch with the same results.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCES = ("recurrent.c", "lanes.h", "cells.h", "sums.h", "rows.h", "normal.h", "done.h")
FLAGS = (
    *("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread"),
    *("-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi"),
)
HERE = Path(__file__).resolve().parent
VARIANTS = ("portable", "avx2", "avx512")
COMPILE_TIMEOUT_S = 120.0
CHOICE = "CONSILIUM_KERNEL"


@dataclass(frozen=True)
class KernelStatus:
    """Which variant of the kernel is in use (None: plain PyTorch), and why, in one sentence."""

    variant: str | None
    sentence: str


@functools.cache
def load_kernel() -> tuple[ctypes.CDLL | None, KernelStatus]:
    """Return the kernel's library, or None, and the status; done once in a process."""
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "off", *VARIANTS):
        known = ", ".join(("off", *VARIANTS))
        return _without(f"{CHOICE} is {choice!r}; it must be one of {known}, or unset")
    if choice == "off":
        return _without(f"{CHOICE} is off")
    try:
        path = _find_or_build()
        library = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return _without(reason)
    library.consilium_keep_memory()
    _share_threads(library)
    best = library.consilium_level()
    if choice and VARIANTS.index(choice) > best:
        return _without(f"{CHOICE} is {choice}, this processor has {VARIANTS[best]} at most")
    variant = choice or VARIANTS[best]
    why = f"{CHOICE} asks for it" if choice else "the best for this processor"
    sentence = f"recurrent cells run in the compiled kernel, variant {variant} ({why}), from {path}"
    return library, KernelStatus(variant, sentence)


def _without(reason: str) -> tuple[None, KernelStatus]:
    return None, KernelStatus(None, f"recurrent cells run in plain PyTorch: {reason}")


def kernel_status() -> KernelStatus:
    """Say which variant is in use and why, building the kernel if need be."""
    return load_kernel()[1]


def _share_threads(library: ctypes.CDLL) -> None:
    """Let the kernel use the threads of PyTorch's OpenMP library, where there is one."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux: the kernel starts threads of its own
        return
    mapped = {line.split(maxsplit=5)[5] for line in maps if "/" in line}
    for path in sorted(mapped, key=lambda path: ("torch" not in path, path)):
        if Path(path).name.startswith(("libgomp", "libiomp5")):
            parallel = ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p)
            library.consilium_share_threads(parallel)
            return


def compile_into(folder: Path) -> Path:
    """Compile the kernel into a folder, and return the file; the build of a wheel calls this.

    Raises:
        OSError: there is no compiler, or the folder cannot be written.
        subprocess.SubprocessError: the compiler fails.
    """
    return _compile(HERE / SOURCES[0], folder / _file_name())


def _file_name() -> str:
    sources = [(HERE / name).read_bytes() for name in SOURCES]
    parts = [*sources, " ".join(FLAGS).encode(), platform.machine().encode()]
    return f"recurrent-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"


def _find_or_build() -> Path:
    name = _file_name()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consilium"
    for place in (HERE / name, cache / name):
        if place.exists() and _is_trusted(place):
            return place
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    return compile_into(cache)


def _is_trusted(place: Path) -> bool:
    """Whether only this user, or root, can have written the file."""
    status = place.stat()
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & 0o022


def _compile(source: Path, target: Path) -> Path:
    """Compile to a temporary file and move it into place, so that racing processes both win."""
    names = (os.environ.get("CC") or "cc", "gcc", "clang")
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    if compiler is None:
        raise FileNotFoundError("no C compiler was found; install gcc or clang to be faster")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        built = Path(scratch) / target.name
        subprocess.run(  # noqa: S603 - a compiler found on PATH, on our own source
            [compiler, *FLAGS, str(source), "-o", str(built), "-lm"],
            check=True,
            capture_output=True,
            timeout=COMPILE_TIMEOUT_S,
        )
        built.chmod(0o755)
        built.replace(target)
    return target
