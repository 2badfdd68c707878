"""``consilium-site``: what a hospital sees and decides."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client import ledger_view
from client.features import to_grid
from client.ledger import Ledger
from client.policy import Policy
from client.review import review_lines
from client.sources.physionet2012 import PhysioNet2012
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
    data: Annotated[Path, typer.Option(help="Folder or zip of this site's records.")],
    where: Annotated[
        list[str] | None, typer.Option(help="Keep only such stays, e.g. ICUType=1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read this site's records as the study would, and count what was found; no row is shown."""
    loaded = load_study(study)
    if loaded.data.source != PhysioNet2012.name:
        raise SettingsError(
            f"study {loaded.name}: source {loaded.data.source!r} has no records to check; "
            f"choose a study on {PhysioNet2012.name!r}"
        )
    source = PhysioNet2012(data, where=_selection(where or []))
    grid = to_grid(source.read_patients(loaded), loaded)
    report = asdict(source.report)
    report["positive_labels"] = int((grid.y_N == 1).sum())
    if as_json:
        console.print_json(json.dumps(report))
        return
    for name, value in report.items():
        shown = sum(value.values()) if isinstance(value, dict) else value
        console.print(f"{name.replace('_', ' '):>18}  {shown}", markup=False)


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
