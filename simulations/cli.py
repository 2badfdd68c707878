"""``consilium-simulate``: many hospitals in one process, for researchers and newcomers.

Each command imports what it needs when it is called: ``--help`` must not wait for PyTorch.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from consilium.shared.service.command_line import run_command
from consilium.simulations.commands.privacy import audit_privacy, plan, worst_case
from consilium.simulations.commands.results import export, report, rounds
from consilium.simulations.commands.training import compare, demo, run, studies, sweep, tune

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train one model across many simulated hospitals, on this machine alone.",
)


class HoursIn(StrEnum):
    """What numbers of hours may count."""

    MINUTES = "min"
    HOURS = "h"
    DAYS = "d"


class OneThread(TyperCommand):
    """A command in which each site computes on one thread.

    The sites run in parallel, and results must not depend on how a matrix product is split.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command with one thread for each site."""
        from consilium.simulations.federation.threads import one_thread_each

        with one_thread_each():
            return super().invoke(ctx)


def init(
    records: Annotated[
        Path, typer.Argument(help="A table, or a folder of records.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for both files; NAME-study unless given.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Say what a column is: person=pat_id, label=died, time=taken; repeat."),
    ] = None,
    separator: Annotated[str | None, typer.Option(help="Between the columns of a CSV.")] = None,
    time_format: Annotated[str | None, typer.Option(help="Of times, such as '%d/%m/%Y'.")] = None,
    hours_unit: Annotated[
        HoursIn | None, typer.Option(help="What a column of hours counts.")
    ] = None,
) -> None:
    """Look at records, and write a study and settings for them: guesses, for you to correct."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.commands.first_look import said
    from consilium.simulations.guesses.first_files import guess, usual_folder, write

    hours = None if hours_unit is None else hours_unit.value
    first = guess(records, said(column or [], separator, time_format, hours))
    study, settings, *made = write(first, out or usual_folder(records))
    for sentence in (
        f"{study}, {settings}: {first.guesses} guesses, each with a comment; correct them.",
        *(f"{file}: made of your table; the settings say how." for file in made),
        f"To see what is read: consilium-site check {study} --settings {settings}",
        f"To run it: consilium-simulate run {study} --records {settings} --out runs/first",
    ):
        console.print(sentence, markup=False, soft_wrap=True)


def module(
    name: Annotated[str, typer.Argument(help="As the package registers it.", show_default=False)],
) -> None:
    """Print how a study names an installed package's network, with the digest of its code."""
    from consilium.shared.model.installed_module import installed_table
    from consilium.simulations.commands.console import console

    console.print(installed_table(name), markup=False, end="")


def doctor() -> None:
    """Say what this machine uses, and why: recurrent kernel, versions, cores."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.commands.doctor import checkup

    for name, value in checkup().items():
        console.print(f"{name:>12}  {value}", markup=False, soft_wrap=True)


for command in (
    *(demo, init, run, sweep, compare, tune, report, rounds, studies, plan),
    *(module, worst_case, audit_privacy, export, doctor),
):
    app.command()(command)


def main() -> None:
    """Entry point of ``consilium-simulate``."""
    for command in app.registered_commands:
        command.cls = OneThread
    run_command(app, name="consilium-simulate")
