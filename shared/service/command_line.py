"""How our commands end: a user's mistake gets one sentence and a non-zero exit, no traceback."""

import sys
from typing import NoReturn

import typer
from rich.console import Console

from consilium.shared.errors import ConsiliumError

FAILED = 1
INTERRUPTED = 130


def run_command(app: typer.Typer, *, name: str) -> NoReturn:
    """Run a Typer app to its end and exit the process.

    Anything that is not a :class:`ConsiliumError` is a defect and keeps its traceback.
    """
    try:
        app(prog_name=name)
    except ConsiliumError as error:
        message = str(error)
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"{name}: {message}", style="red", markup=False
        )
        sys.exit(FAILED)
    except KeyboardInterrupt:
        Console(stderr=True).print(f"{name}: interrupted; the same command goes on from here")
        sys.exit(INTERRUPTED)
    sys.exit(0)
