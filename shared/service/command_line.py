"""How our commands end: a user's mistake gets one sentence and a non-zero exit, no traceback."""

import codecs
import io
import sys
from typing import NoReturn

import typer

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
        app(prog_name=name)
    except ConsiliumError as error:
        Terminal(stderr=True).print(one_line(f"{name}: {error}"), style="red")
        sys.exit(FAILED)
    except KeyboardInterrupt:
        Terminal(stderr=True).print(f"{name}: interrupted; the same command goes on from here")
        sys.exit(INTERRUPTED)
    sys.exit(0)


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
