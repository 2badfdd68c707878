"""Find, build and load the compiled kernel; say in one sentence what is in use and why.

The kernel is looked for beside its source (put there by a build), then among those compiled before
for the same source, compiler flags and kind of machine, then it is compiled with the C compiler
named by ``CC`` (default: cc, gcc or clang, whichever there is). Compiled ones are kept in the first
of these folders that can be written and that nobody else can write: ``consilium`` in
``XDG_CACHE_HOME``, or else the one that systemd gives a service (``CACHE_DIRECTORY``) and
``~/.cache``; and at last a folder of this account's own under the folder for temporary files.

``CONSILIUM_KERNEL=off`` leaves the kernel out, and ``portable``, ``avx2`` or ``avx512`` asks for
that variant instead of the best one. Nothing fails without it: the cells run in plain PyTorch with
the same results, and the log says so once.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SOURCES = (
    *("recurrent.c", "lanes.h", "cells.h", "sums.h", "rows.h", "normal.h", "discrete.h"),
    "done.h",
)
FLAGS = (
    *("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread"),
    *("-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi"),
)
HERE = Path(__file__).resolve().parent
VARIANTS = ("portable", "avx2", "avx512")
COMPILE_TIMEOUT_S = 900.0  # for a compiler that hangs: it takes ten, more on a busy machine
CHOICE = "CONSILIUM_KERNEL"

log = logging.getLogger(__name__)


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
        return None, KernelStatus(None, f"recurrent cells run in plain PyTorch: {CHOICE} is off")
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
    sentence = f"recurrent cells run in plain PyTorch: {reason}"
    log.warning("%s", sentence)
    return None, KernelStatus(None, sentence)


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
    name, refusals = _file_name(), []
    if (built := HERE / name).exists() and _is_trusted(built):
        return built
    usable = []
    for folder in _caches():
        try:
            _make_private(folder)
        except OSError as error:
            refusals.append(f"{folder} ({error.strerror or error})")
            continue
        if (built := folder / name).exists() and _is_trusted(built):
            return built
        usable.append(folder)
    if usable:
        return compile_into(usable[0])
    raise PermissionError(
        f"no folder can take the compiled kernel: {', '.join(refusals)}; set XDG_CACHE_HOME to one "
        "that this account may write"
    )


def _caches() -> Iterator[Path]:
    """Where compiled kernels may be kept, the best place first."""
    if told := os.environ.get("XDG_CACHE_HOME"):
        yield Path(told) / "consilium"
    else:
        if given := os.environ.get("CACHE_DIRECTORY"):  # systemd's, several with colons between
            yield Path(given.split(":")[0])
        with suppress(RuntimeError):  # an account without a home folder
            yield Path.home() / ".cache" / "consilium"
    yield Path(tempfile.gettempdir()) / f"consilium-{os.getuid()}"


def _make_private(folder: Path) -> None:
    """Make the folder if it is not there; in what is there only this account, or root, may write.

    Raises:
        OSError: it cannot be made or written, is a link, or another account can write it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.is_symlink() or not _is_trusted(folder):  # anybody may put something into /tmp
        raise PermissionError("another account can write it, or it is a link")
    with tempfile.TemporaryFile(dir=folder):
        pass


def _is_trusted(place: Path) -> bool:
    """Whether only this user, or root, can write what is there."""
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
