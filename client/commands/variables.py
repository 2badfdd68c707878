"""``consilium-site variables``: lists the dictionary of variables that studies can use."""

import json
from typing import Annotated

import typer

from consilium.shared.service.terminal import Table, Terminal

console = Terminal(soft_wrap=False)


def variables(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the variables that a study can name without declaring them, with their codes."""
    if as_json:
        console.print_json(json.dumps(listing()))
        return
    table = Table("name", "what", "unit", "believed", "LOINC", "OMOP", box=None, pad_edge=False)
    for name, entry in listing().items():
        table.add_row(
            name,
            str(entry["title"]),
            str(entry["unit"]),
            f"{entry['low']:g} to {entry['high']:g}",
            str(entry["loinc"] or "-"),
            str(entry["omop"] or "-"),
        )
    console.print(table)


def listing() -> dict[str, dict[str, object]]:
    """Return each variable's title, declaration (unit, low, high, ... role) and codes."""
    from consilium.shared.study.dictionary import KNOWN

    return {
        name: {
            "title": known.title,
            **known.declaration.model_dump(),
            "loinc": known.loinc,
            "omop": known.omop,
        }
        for name, known in KNOWN.items()
    }
