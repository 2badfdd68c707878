"""Options and arguments that several of a site's commands take."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_FOLDER = Path("site")

Folder = Annotated[
    Path, typer.Option("--folder", "-f", envvar="CONSILIUM_SITE", help="The site's folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
StudyName = Annotated[
    str,
    typer.Argument(help="Name or digest of an offered study, or a study file.", show_default=False),
]
Settings = Annotated[
    Path | None,
    typer.Option(help="Another file than the site's site.toml; no enrolment is needed."),
]
Where = Annotated[
    list[str] | None, typer.Option(help="With --data: only such stays, e.g. ICUType=1.")
]
