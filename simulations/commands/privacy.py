"""Commands that say what privacy costs, and measure whether it holds."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from consilium.shared.errors import PrivacyError
from consilium.simulations.commands.options import StudyFile


def plan(
    study: StudyFile,
    patients: Annotated[int, typer.Option(min=1, help="Training patients at each site.")] = 1000,
    epsilon: Annotated[list[float] | None, typer.Option(help="Budgets; 8, 3, 1.")] = None,
    noise: Annotated[
        float | None, typer.Option(help="Also say what this noise multiplier costs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show who shares masks and what privacy would cost, before anyone spends anything."""
    from consilium.shared.study.definition import load_study
    from consilium.simulations.commands.console import (
        console,
        show_margins,
        show_plan,
        show_sum_plan,
    )
    from consilium.simulations.experiments.planning import (
        choices,
        cost_of_noise,
        margins,
        noise_carried,
        sum_plan,
    )

    loaded = load_study(study)
    found = choices(loaded, patients=patients, epsilons=tuple(epsilon or ()))
    costs = {} if noise is None else cost_of_noise(loaded, noise)
    if as_json:
        record = {
            "secure_sum": asdict(sum_plan(loaded)),
            "choices": [asdict(choice) for choice in found],
            "noise_carried": noise_carried(loaded),
            "margins": [asdict(margin) for margin in margins(loaded)],
            "epsilon_of_noise": {str(rounds): epsilon for rounds, epsilon in costs.items()},
        }
        console.print_json(json.dumps(record))
        return
    show_sum_plan(sum_plan(loaded))
    show_plan(loaded, found, patients)
    show_margins(loaded, margins(loaded))
    for rounds, spent in costs.items():
        console.print(f"Noise multiplier {noise:g} for {rounds} rounds costs epsilon {spent:.2f}.")


def worst_case(
    studies: Annotated[list[Path], typer.Argument(help="The studies' files.")],
    into: Annotated[
        Path | None, typer.Option(help="Also write the table between the marks of this page.")
    ] = None,
) -> None:
    """Show what studies' releases cost if the coordinator lies and sites help it.

    Ends with status 1 if a study then costs more than it claims.
    """
    from consilium.shared.study.definition import load_study
    from consilium.simulations.experiments import worst_case as worst

    loaded = [load_study(study) for study in studies]
    cases = [worst.worst_case(one) for one in loaded if one.privacy.mode != "none"]
    table = worst.worst_cases_table(cases)
    print(table)  # noqa: T201 - a table in Markdown, to be copied as it is
    if into is not None:
        worst.write_table(into, table)
    if broken := [case.study for case in cases if not case.holds]:
        raise PrivacyError(
            f"{', '.join(broken)}: costs more in the worst case than it claims; raise "
            "[aggregation] minimum_sites or lower tolerated_collusion"
        )


def audit_privacy(
    study: StudyFile,
    confidence: Annotated[
        float, typer.Option(help="Probability with which an honest build passes; below 1.")
    ] = 0.999,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure the noise, clipping, sampling and ledger of each of a study's releases.

    The code that hospitals run is called on made-up patients; no records are needed, any study with
    privacy will do. A measurement that refutes a claim ends the command with an error.
    """
    from consilium.shared.study.definition import load_study
    from consilium.simulations.commands.audit_table import audit_record, show_audit
    from consilium.simulations.commands.console import console
    from consilium.simulations.experiments.privacy_audit import audit_study

    with console.status("measuring what a site would release, with and without a canary patient"):
        audit = audit_study(load_study(study), confidence=confidence)
    if as_json:
        console.print_json(json.dumps(audit_record(audit)))
    else:
        show_audit(audit)
    if audit.convicted:
        found = audit.convicted[0]
        raise PrivacyError(
            f"{found.release}, {found.what}: {found.measured:.4g} was measured where "
            f"{found.claimed:.4g} is claimed, and {len(audit.convicted)} of "
            f"{len(audit.findings)} findings refute a claim; do not release anything"
        )
