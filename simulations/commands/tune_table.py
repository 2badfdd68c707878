"""What is printed of a search: a line for each run, and a table of the settings tried."""

from pathlib import Path
from typing import Any

from consilium.shared.service.terminal import Table
from consilium.shared.study.definition import Study
from consilium.simulations.commands.console import console
from consilium.simulations.figures.measures import TITLES
from consilium.simulations.report.records import TUNE
from consilium.simulations.runs.tune_record import CHOSEN, Search


def show_begun(study: Study, search: Search) -> None:
    """Print what will be run."""
    by = "site" if search.by_site else "person"
    console.print(
        f"{study.title}\n{search.settings} settings, each on {search.folds} folds by {by} of the "
        "training patients; test patients are not read.",
        markup=False,
        soft_wrap=True,
    )


def show_run(entry: dict[str, Any], fold: int) -> None:
    """Print that a setting's run in a fold is finished, and how it did."""
    told = changes_text(entry) or "as the study says"
    if entry["failed"] is not None:
        if fold == len(entry["by_fold"]) + 1:
            sentence = f"setting {entry['number']} failed: {entry['failed']} ({told})"
            console.print(sentence, style="yellow", markup=False, soft_wrap=True)
        return
    if fold == 1:
        console.print(f"setting {entry['number']}: {told}", markup=False, soft_wrap=True)
    console.print(f"  fold {fold}: {entry['by_fold'][fold - 1]:.4f}", markup=False)


def show_tuned(record: dict[str, Any], out: Path) -> None:
    """Print what was tried, what was chosen, and what it would cost on private records."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    title = TITLES[record["figure"]]
    for heading in ("setting", title, "s.e.", "gain", "s.e.", "parameters", "rounds", "ε"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in record["tried"]:
        figures = ["failed", "", "", ""]
        if entry["failed"] is None:
            gain = entry["gain"]
            figures = [
                f"{entry['mean']:.4f}",
                f"{entry['standard_error']:.4f}",
                f"{gain['mean']:+.4f}",
                f"{gain['standard_error']:.4f}",
            ]
        table.add_row(
            f"{entry['number']}{' *' if entry['number'] == record['chosen'] else '  '}",
            *figures,
            str(entry["parameters"]),
            str(entry["rounds"]),
            f"{entry['epsilon_if_private']:.1f}",
        )
    console.print(table)
    console.print(
        f"*: chosen. {title}: mean over folds. gain: over the study's own settings, fold by fold. "
        "ε: what trying the setting would cost a patient, were the records private."
    )
    for sentence in (f"Choice: {record['why']}", *record["price_told"]):
        console.print(sentence, markup=False)
    for name, what in ((CHOSEN, "study"), (TUNE, "record")):
        console.print(f"{what:>7}  {out / name}", markup=False, soft_wrap=True)


def changes_text(entry: dict[str, Any]) -> str:
    """Return what a setting changes, in words; empty for the study's own."""
    return "; ".join(f"{key} = {value}" for key, value in entry["changes"].items())
