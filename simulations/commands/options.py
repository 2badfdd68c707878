"""Options and arguments that several of a simulation's commands take."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Engine(StrEnum):
    """Where the sites of a simulation compute."""

    LOCAL = "local"
    FLOWER = "flower"


class PersonsAre(StrEnum):
    """What an identifier that occurs in two files is."""

    SAME = "same"
    OWN = "own"


StudyFile = Annotated[Path, typer.Argument(help="The study, a TOML file.", show_default=False)]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder or file of the records, for an example study or --records."),
]
SiteSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--settings", help="A site's records: FILE or SITE=FILE, such as a site.toml; repeat."
    ),
]
RecordsSettings = Annotated[
    Path | None, typer.Option("--records", help="Settings of one collection, dealt to the sites.")
]
Sites = Annotated[int | None, typer.Option(min=1, help="Deal persons to so many sites, by a hash.")]
By = Annotated[
    str | None, typer.Option(help="Deal persons by this column of the stays, a site a value.")
]
TestPersons = Annotated[
    str | None,
    typer.Option(
        "--test",
        help="Whom to test on: a fraction of persons (0.2), COLUMN=VALUE, a date from which on "
        "they first came, or FILE.toml.",
    ),
]
Persons = Annotated[
    PersonsAre | None,
    typer.Option(help="Is one identifier in two files the same person, or each file's own?"),
]
Key = Annotated[str | None, typer.Option(help="Another key of the hash deals persons otherwise.")]
Workers = Annotated[int, typer.Option(min=1, help="Sites that train at the same time.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Use another seed than the study's.")]
OnEngine = Annotated[
    Engine,
    typer.Option(
        "--engine", help="Where sites compute: in this process, or on Flower's Ray runtime."
    ),
]
EngineAddress = Annotated[
    str | None,
    typer.Option(help="A Ray cluster: HOST:PORT, ray://HOST:PORT or auto; else Ray starts here."),
]
Protocol = Annotated[
    bool,
    typer.Option(
        "--protocol",
        help="Send every message of the secure sum; else the same numbers are added in the clear.",
    ),
]
CORES = len(os.sched_getaffinity(0))
