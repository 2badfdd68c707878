"""Compiles the recurrent kernel into a wheel where there is a C compiler; all else: pyproject.toml.

Without a compiler the wheel is for every platform, and the kernel is compiled at first use where
there is one then.
"""

import importlib.util
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

_spec = importlib.util.spec_from_file_location("kernel_build", Path("shared/kernels/build.py"))
assert _spec is not None and _spec.loader is not None  # noqa: S101, PT018 - the file is beside this one
kernel_build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kernel_build)


class BuildWithKernel(build_py):
    """Put the compiled kernel beside its source in what is built."""

    def run(self) -> None:
        """Build, then compile; without a working compiler say so and go on."""
        super().run()
        if self.editable_mode:  # the kernel is compiled at first use then
            return
        folder = Path(self.build_lib) / "consilium" / "shared" / "kernels"
        try:
            kernel_build.compile_into(folder)
        except (OSError, subprocess.SubprocessError) as error:
            self.warn(f"the recurrent kernel is not in this build: {error}")


class WheelWithKernel(bdist_wheel):
    """Tag the wheel for this platform if it holds the kernel, and for any Python 3 either way."""

    def finalize_options(self) -> None:
        """Decide by whether the kernel can be compiled: the tag is needed before the build."""
        super().finalize_options()
        self.root_is_pure = not kernel_build.can_compile()

    def get_tag(self) -> tuple[str, str, str]:
        """The kernel is called through ctypes, so no Python's binary interface matters."""
        return ("py3", "none", super().get_tag()[2])


setup(cmdclass={"build_py": BuildWithKernel, "bdist_wheel": WheelWithKernel})
