"""``consilium-coordinator``: what an operator checks before asking hospitals to approve a study."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from shared.command_line import run_command
from shared.privacy import plan
from shared.study import Study, load_study

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The coordinator: check what a study fixes before it is sent to hospitals.",
)
console = Console(highlight=False, soft_wrap=True)


@app.callback()
def coordinator() -> None:
    """Keep ``check`` a command of its own, though it is the only one."""


@app.command()
def check(
    study: Annotated[Path, typer.Argument(help="The study, a TOML file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Validate a study; print its digest, its secure sum's bounds and its privacy costs."""
    facts = _facts(load_study(study))
    if as_json:
        console.print_json(json.dumps(facts))
        return
    for name, value in facts.items():
        console.print(f"{name.replace('_', ' '):>24}  {value}", markup=False)


def _facts(study: Study) -> dict[str, Any]:
    """Return what the study fixes, by name."""
    facts: dict[str, Any] = {
        "study": study.name,
        "digest": study.digest.hex(),
        "sites": len(study.sites),
        "rounds": study.rounds,
        "profile": study.aggregation.profile,
        "threshold": study.threshold,
        "minimum_sites": study.minimum_sites,
        "dropouts_tolerated": study.dropouts_tolerated,
        "groups": study.aggregation.groups,
        "neighbours": study.degree,
        "privacy_mode": study.privacy.mode,
    }
    costs = plan(study)
    if costs is not None:
        facts |= {
            "epsilon": costs.epsilon,
            "delta": costs.delta,
            "training_noise_multiplier": costs.training_round.noise_multiplier,
            "statistics_noise_multiplier": costs.statistics.noise_multiplier,
        }
    return facts


def main() -> None:
    """Entry point of ``consilium-coordinator``."""
    run_command(app, name="consilium-coordinator")
