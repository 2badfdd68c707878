"""Comparing the settings of every example study, and the table of their figures.

A cell of the table is one figure of one setting on the study's test patients.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.study.definition import Study, load_study
from consilium.simulations.cohorts.given_records import Given, simulated
from consilium.simulations.cohorts.study_records import folder_for, missing_folder
from consilium.simulations.experiments.external import Watch
from consilium.simulations.experiments.rivals import rivals_among
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.report.records import COMPARE
from consilium.simulations.runs.compare import PRIVATE, Compared, compare_settings

TABLE = "table.md"
Row = tuple[str, ...]
HEADINGS: Row = (
    "study",
    "figure",
    "without recurrence",
    "each alone",
    "pooled",
    "federated",
    "federated, private",
    "minutes",
)
QUOTED = {kind: figures[: 2 if kind == "multiclass" else 1] for kind, figures in FIGURES.items()}
"""Figures shown for each kind of task; with classes two, as accuracy may hide a missed class."""
PAIR = 2  # two hospital systems get a row each; for more, see compare.json and the console
_SETTINGS = ("local", "pooled", "federated", PRIVATE)


def compare_all(
    folder: Path,
    data: Path,
    out: Path,
    *,
    workers: int,
    watch: Watch,
    begin: Callable[[Study], None],
    end: Callable[[Study, Compared, Path], None],
) -> list[Row]:
    """Compare the settings of every study in a folder, and write the table.

    Args:
        folder: holds the studies, ``*.toml``.
        data: holds a folder for each collection of records, by its usual name.
        out: gets a folder for each study, as ``compare`` writes it, and ``table.md``; finished
            studies are kept.
        workers: sites that train at the same time.
        watch: see :func:`consilium.simulations.runs.compare.compare_settings`.
        begin: called when a study begins.
        end: called with each study's comparison and the folder that holds it.

    Returns:
        The table's rows below its headings; a study whose records are not there says so.

    Raises:
        SettingsError: the folder holds no study.
    """
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise SettingsError(f"{folder}: holds no study, a .toml file; name the folder of studies")
    rows: list[Row] = []
    for path in paths:
        study = load_study(path)
        begin(study)
        if (missing := missing_folder(study, data, path)) is not None:
            rows.append((study.name, f"no records in {missing}", *[""] * (len(HEADINGS) - 2)))
        else:
            target = out / study.name
            found = _finished(target, study) or compare_settings(
                study,
                simulated(study, Given(beside=path, data=folder_for(study, data, path)))[1],
                target,
                epsilons=[study.privacy.epsilon],
                workers=workers,
                watch=watch,
            )
            end(study, found, target)
            rows.extend(_rows(study, found))
        write_atomically(out / TABLE, as_markdown(rows).encode())
    return rows


def as_markdown(rows: list[Row]) -> str:
    """Return the table in Markdown."""
    ruler = ("---", "---", *["--:"] * (len(HEADINGS) - 2))
    lines = [f"| {' | '.join(row)} |" for row in (HEADINGS, ruler, *rows)]
    return "\n".join(lines) + "\n"


def _finished(target: Path, study: Study) -> Compared | None:
    """Return the study's comparison, if it was finished before."""
    file = target / COMPARE
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    complete = set(_SETTINGS) <= set(content["settings"])
    if content["study_digest"] != study.digest.hex() or not complete:
        return None
    settings: Compared = content["settings"]
    return settings


def _rows(study: Study, settings: Compared) -> list[Row]:
    """Return a row for each figure, and for each of two hospital systems if there are two."""
    figures = QUOTED[study.task.kind]
    rows = [_row(study, settings, figure) for figure in figures]
    alone = settings["local"].get("sites", {})
    if len(alone) == PAIR and set(alone) == set(settings["pooled"].get("test_groups", {})):
        rows.extend(_row(study, settings, figures[0], at=system) for system in alone)
    return rows


def _row(study: Study, settings: Compared, figure: str, *, at: str | None = None) -> Row:
    """Return a figure of every setting on all test patients, or on those ``at`` one system."""
    private = settings[PRIVATE]["privacy"]
    baselines = rivals_among(settings)
    tested = {name: record["test"] if at is None else record["test_groups"][at]
              for name, record in settings.items()}  # fmt: skip  # reads as one
    shown = {name: _value(tested[name], figure) for name in (*baselines, *_SETTINGS)}
    if at is not None:
        alone = settings["local"]["sites"]
        own, other = sorted(alone, key=lambda system: system != at)
        shown["local"] = ", ".join(
            f"{_value(alone[system]['groups'][at], figure)} {whose}"
            for system, whose in ((own, "own"), (other, "the other's"))
        )
    seconds = sum(record["seconds"] for record in settings.values())
    synthetic = " (synthetic)" if settings["pooled"]["synthetic"] else ""
    return (
        f"{study.name}{synthetic}" + (f", at {at}" if at is not None else ""),
        TITLES[figure],
        "; ".join(f"{shown[name]} {_short(name)}" for name in baselines),
        *(shown[name] for name in _SETTINGS[:-1]),
        f"{shown[PRIVATE]} (ε {private['epsilon']:.1f})",
        f"{seconds / 60:.1f}" if at is None else "",
    )


def _value(figures: dict[str, Any], figure: str) -> str:
    value = figures[figure]["value"]
    return "-" if value is None else f"{value:.3f}"


def _short(baseline: str) -> str:
    return baseline.removesuffix("-regression").removeprefix("gradient-")
