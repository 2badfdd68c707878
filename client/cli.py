"""``consilium-site``: what a hospital sees and decides."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client import ledger_view
from client.check_command import run_check, settings_for, settings_from
from client.ledger import Ledger
from client.policy import Policy
from client.review import review_lines
from shared.command_line import run_command
from shared.errors import SettingsError
from shared.study import load_study

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One hospital: read a study before approving it, check data, look at the privacy ledger.",
)
console = Console(highlight=False, soft_wrap=True)

StudyFile = Annotated[Path, typer.Argument(help="The study, a TOML file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def review(study: StudyFile) -> None:
    """Say in plain words what a study uses, what leaves, what it costs, and who takes part."""
    loaded = load_study(study)
    for line in review_lines(loaded):
        console.print(line, markup=False)
    Policy().check_study(loaded)
    console.print("The default policy of a site allows this study.", style="green")


@app.command()
def check(
    study: StudyFile,
    settings: Annotated[
        Path | None, typer.Option(help="site.toml, whose [data] says where the records are.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Instead: folder or zip of the study's kind of records.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="With --data: only such stays, e.g. ICUType=1.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Also write the report with figures to this HTML file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether this site's data are ready for the study, and what to mend; no row is shown."""
    loaded = load_study(study)
    if (settings is None) == (data is None):
        raise SettingsError("give either --settings site.toml or --data FOLDER")
    chosen = (
        settings_from(settings)
        if settings is not None
        else settings_for(loaded, data or Path(), _selection(where or []))
    )
    run_check(loaded, chosen, console, as_json=as_json, page=page)


@app.command()
def ledger(
    file: Annotated[Path, typer.Argument(help="The ledger, ledger.sqlite.", show_default=False)],
    lifetime_epsilon: Annotated[
        float, typer.Option(help="The site's lifetime budget.")
    ] = Policy.lifetime_epsilon,
    delta: Annotated[float, typer.Option(help="The lifetime guarantee's delta.")] = Policy.delta,
    plot: Annotated[Path | None, typer.Option(help="Draw it: FILE.png or FILE.svg.")] = None,
    as_json: Json = False,
) -> None:
    """Show what each study has spent of the privacy budget, what is reserved, what is left."""
    if not file.is_file():
        raise SettingsError(f"ledger {file}: is not a file; name a site's ledger.sqlite")
    summary = Ledger(file, lifetime_epsilon=lifetime_epsilon, delta=delta).summary()
    if plot:
        ledger_view.draw(summary, plot)
    if as_json:
        console.print_json(json.dumps(ledger_view.to_json(summary)))
        return
    console.print(ledger_view.to_table(summary))
    for line in ledger_view.to_bars(summary):
        console.print(line, markup=False)
    if plot:
        console.print(f"figure  {plot}", markup=False)


def _selection(pairs: list[str]) -> dict[str, float]:
    """Parse NAME=NUMBER options."""
    selection = {}
    for pair in pairs:
        name, equals, number = pair.partition("=")
        try:
            selection[name] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise SettingsError(f"--where {pair}: must be NAME=NUMBER, such as ICUType=1")
    return selection


def main() -> None:
    """Entry point of ``consilium-site``."""
    run_command(app, name="consilium-site")
