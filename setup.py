"""Compiles the recurrent kernel into a wheel where there is a C compiler; all else: pyproject.toml.

Without a compiler the wheel is for every platform, and the kernel is compiled at first use where
there is one then. Registries refuse a wheel for ``linux_x86_64``: they want to know which C library
it needs. The kernel itself tells (docs/decisions/155-the-tag-of-the-wheel.md).
"""

import functools
import importlib.util
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

# Through the link: a source archive holds the rooms only there.
_spec = importlib.util.spec_from_file_location(
    "kernel_build",
    Path(__file__).resolve().parent / "consilium" / "shared" / "kernels" / "build.py",
)
assert _spec is not None and _spec.loader is not None  # noqa: S101, PT018 - the file is beside this one
kernel_build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kernel_build)

GLIBC_LIBRARIES = {"libc.so.6", "libm.so.6", "libpthread.so.0"}  # the GNU C library has them all
OLDEST_GLIBC = (2, 17)  # of manylinux2014; installers of PyTorch 2.13 ask for a newer one anyway


def glibc_needed(library: bytes) -> tuple[int, int]:
    """Return the version of the GNU C library that a compiled library needs (PEP 600).

    Every library and symbol version that it needs stands in it by name, so a search finds them all;
    whatever else is found can only raise the version.

    Raises:
        OSError: it needs another library, or another C library than GNU's.
    """
    needed = {name.decode() for name in re.findall(rb"lib[\w+-]+\.so[\w.]*", library)}
    versions = [
        (int(major), int(minor)) for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", library)
    ]
    if not versions or not needed <= GLIBC_LIBRARIES:
        raise OSError(f"it needs {', '.join(sorted(needed)) or 'no C library'}: not for any Linux")
    return max(OLDEST_GLIBC, *versions)


@dataclass(frozen=True)
class Kernel:
    """What the compiler made: a file's name and content, and the C library it needs on Linux."""

    name: str
    content: bytes
    glibc: tuple[int, int] | None


@functools.cache
def kernel() -> Kernel | str:
    """Compile the kernel, once in a build; return it, or why it cannot be in a wheel."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            library = kernel_build.compile_into(Path(folder))
            content = library.read_bytes()
            glibc = glibc_needed(content) if sys.platform.startswith("linux") else None
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        return Kernel(library.name, content, glibc)


class BuildWithKernel(build_py):
    """Put the compiled kernel beside its source in what is built."""

    def run(self) -> None:
        """Build, then compile; without a working compiler say so and go on."""
        super().run()
        if self.editable_mode:  # the kernel is compiled at first use then
            return
        compiled = kernel()
        if isinstance(compiled, str):
            self.warn(f"the recurrent kernel is not in this build: {compiled}")
            return
        file = Path(self.build_lib) / "consilium" / "shared" / "kernels" / compiled.name
        file.write_bytes(compiled.content)
        file.chmod(0o755)


class WheelWithKernel(bdist_wheel):
    """Tag the wheel for this platform if it holds the kernel, and for any Python 3 either way."""

    def finalize_options(self) -> None:
        """Decide by whether the kernel can be compiled: the tag is needed before the build."""
        super().finalize_options()
        self.root_is_pure = isinstance(kernel(), str)
        if not self.root_is_pure:  # then all of it lies at the wheel's top level, as for extensions
            self.distribution.has_ext_modules = lambda: True

    def get_tag(self) -> tuple[str, str, str]:
        """The kernel is called through ctypes, so no Python's binary interface matters."""
        platform, compiled = super().get_tag()[2], kernel()
        if isinstance(compiled, Kernel) and compiled.glibc is not None:
            major, minor = compiled.glibc
            platform = platform.replace("linux_", f"manylinux_{major}_{minor}_", 1)
        return ("py3", "none", platform)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithKernel, "bdist_wheel": WheelWithKernel})
