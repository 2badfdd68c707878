"""How our commands end: a user's mistake gets one sentence and a non-zero exit, no traceback."""

import codecs
import inspect
import io
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import typer
from typer.core import TyperArgument
from typer.main import get_command
from typer.utils import get_params_from_function

from consilium.shared.errors import ConsiliumError
from consilium.shared.service.terminal import Terminal, one_line

FAILED = 1
INTERRUPTED = 130


def run_command(app: typer.Typer, *, name: str) -> NoReturn:
    """Run a Typer app to its end and exit the process.

    Anything that is not a :class:`ConsiliumError` is a defect and keeps its traceback.
    """
    accept_any_text()
    if not _draws_boxes():
        app.rich_markup_mode = None  # help and mistakes of usage without frames
    try:
        command_of(app)(prog_name=name)
    except ConsiliumError as error:
        Terminal(stderr=True).print(one_line(f"{name}: {error}"), style="red")
        sys.exit(FAILED)
    except KeyboardInterrupt:
        Terminal(stderr=True).print(f"{name}: interrupted; the same command goes on from here")
        sys.exit(INTERRUPTED)
    sys.exit(0)


def command_of(app: typer.Typer) -> Any:
    """Return an app's click command, in which arguments have their help, as options do.

    Click 8.5 gives arguments a help of their own, empty, in place of the one that Typer 0.20 gives.
    """
    command = get_command(app)
    for below in _all_commands(command):
        told = get_params_from_function(inspect.unwrap(below.callback)) if below.callback else {}
        for parameter in below.params:
            meta = told.get(parameter.name or "")
            if meta and isinstance(parameter, TyperArgument) and hasattr(meta.default, "help"):
                parameter.help = meta.default.help
    return command


def _all_commands(command: Any) -> Iterator[Any]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from _all_commands(below)


def accept_any_text() -> None:
    r"""Let standard output and error write out what their encoding lacks, such as ``\u03b5``.

    A German Windows console (cp1252), ``LC_ALL=de_DE`` and the name of a file that is not UTF-8
    would otherwise end a command in the middle of a sentence.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _draws_boxes() -> bool:
    """Tell whether standard output and error can hold the frames that Typer draws."""
    streams = (stream for stream in (sys.stdout, sys.stderr) if stream is not None)
    return all(
        codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name.startswith("utf")
        for stream in streams
    )
