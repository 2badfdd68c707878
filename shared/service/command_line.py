"""How our commands end: a user's mistake gets one sentence and a non-zero exit, no traceback."""

import codecs
import contextlib
import errno
import inspect
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperArgument
from typer.main import get_command
from typer.utils import get_params_from_function

from consilium.shared.errors import ConsiliumError
from consilium.shared.full_disk import lacks_space
from consilium.shared.service.terminal import Terminal, one_line

FAILED = 1
INTERRUPTED = 130
# What a disk, its rights or a full standard output say; all else is a defect.
_PLAIN = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE,
)  # fmt: skip


def run_command(app: typer.Typer, *, name: str) -> NoReturn:
    """Run a Typer app to its end and exit the process.

    Anything that is not a :class:`ConsiliumError` is a defect and keeps its traceback.
    """
    accept_any_text()
    if not _draws_boxes():
        app.rich_markup_mode = None  # help and mistakes of usage without frames
    try:
        _flushed(command_of(app), name)
    except ConsiliumError as error:
        _fail(name, str(error))
    except BrokenPipeError:  # whoever read the output has had enough
        _give_up(sys.stdout)
        sys.exit(FAILED)
    except OSError as error:
        if error.errno not in _PLAIN:
            raise
        _fail(name, _sentence(error))
    except KeyboardInterrupt:
        Terminal(stderr=True).print(f"{name}: interrupted; the same command goes on from here")
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _flushed(command: Any, name: str) -> None:
    """Run a command to the end of what it has to say, which is on its way only once flushed."""
    try:
        command(prog_name=name)
    except SystemExit as ended:
        if ended.code:
            raise
    if sys.stdout is not None:
        sys.stdout.flush()


def _fail(name: str, sentence: str) -> NoReturn:
    """Say why a command failed, also where standard output takes nothing, and end."""
    with contextlib.suppress(OSError):
        Terminal(stderr=True).print(one_line(f"{name}: {sentence}"), style="red")
    _give_up(sys.stdout)
    _give_up(sys.stderr)
    sys.exit(FAILED)


def _give_up(stream: TextIO) -> None:
    """Let what is left in a stream's buffer go nowhere if it cannot be written.

    Python writes it once more at its end, and would add a traceback of its own.
    """
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _sentence(error: OSError) -> str:
    """Return what a file that cannot be used means to whoever typed the command."""
    where = f"{error.filename}: " if error.filename is not None else ""
    remedy = (
        "free space on that disk, or write elsewhere"
        if lacks_space(error)
        else "make it usable for this account, or name another place"
    )
    return f"{where}cannot be written or read ({error.strerror}); {remedy}"


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
