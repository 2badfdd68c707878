"""Refuses what needs an optional library that is not installed, with the command that does it."""

import importlib
import importlib.util
import signal

from consilium.shared.errors import SettingsError


def needs(module: str, *, extra: str, what: str) -> None:
    """Refuse what needs an optional library that is not installed.

    Polars is imported here. It takes Ctrl-C for itself in a way that lets a thread that waits (for
    a line, a thread, a lock) sleep on; that is undone, so that a command still ends at once.

    Args:
        module: the library's name for ``import``.
        extra: the extra of ``consilium-fl`` that installs it.
        what: what needs it, for the sentence.

    Raises:
        SettingsError: the library is missing; the sentence says how to install it.
    """
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None or importlib.util.find_spec(module) is None:
        raise SettingsError(
            f"{what} needs the library {module!r}, which is not installed; install it with: "
            f"pip install 'consilium-fl[{extra}]'"
        )
    if package == "polars":
        importlib.import_module(package)
        signal.siginterrupt(signal.SIGINT, True)
