"""Options and arguments that several of the coordinator's commands take."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_FOLDER = Path("coordinator")

Folder = Annotated[
    Path,
    typer.Option(
        "--folder", "-f", envvar="CONSILIUM_COORDINATOR", help="The coordinator's folder."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
StudyFile = Annotated[Path, typer.Argument(help="The study, a TOML file.", show_default=False)]
StudyName = Annotated[
    str, typer.Argument(help="Name or digest of a submitted study.", show_default=False)
]
Operator = Annotated[
    str,
    typer.Option(
        "--as",
        envvar="CONSILIUM_OPERATOR",
        help="Your name, for the audit log; the account's name stands there, too.",
        show_default=False,
    ),
]
