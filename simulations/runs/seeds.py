"""A comparison repeated with several seeds, and the mean figures of its settings.

A run's figures depend on its noise, sampling and initial weights; a mean over seeds says what a
setting is worth. The interval of a mean covers both sources of chance: the choice of test patients,
and the seeds.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.experiments.rivals import AGAINST
from consilium.simulations.report.records import SCHEMA, write_json
from consilium.simulations.runs.compare import Compared

FILE = "seeds.json"
REFERENCE = "pooled"
TAIL = 0.975


def compare_over_seeds(
    study: Study, out: Path, *, seeds: int, compare: Callable[[Study, Path], Compared]
) -> dict[str, Any]:
    """Compare the settings with the study's seed and the next ones; return the summary.

    Args:
        study: what to run; its seed is the first.
        out: gets a folder for each seed, with a whole comparison, and ``seeds.json``; finished
            settings are kept, so that the same command goes on where it was interrupted.
        seeds: how many.
        compare: runs all settings of a study in a folder.

    Raises:
        SettingsError: a folder holds something else, or another run uses it.
    """
    runs = []
    for number in range(seeds):
        changed = with_changes(study, study={"seed": study.seed + number})
        runs.append(compare(changed, out / f"seed-{changed.seed}"))
    summary = {
        "schema": SCHEMA,
        "study": study.name,
        "seeds": [study.seed + number for number in range(seeds)],
        "settings": summarise(runs),
    }
    write_json(out / FILE, summary)
    return summary


def summarise(runs: list[Compared]) -> dict[str, dict[str, Any]]:
    """Return each setting's mode, epsilon and mean figures, by group only the first figure.

    How much better a setting is than a model without recurrence is a mean, too: its interval covers
    the patients, by the paired bootstrap of each seed, and the seeds.

    ``kept`` is the mean of the first figure divided by that of pooled training without privacy;
    None where that is 0.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name, first in runs[0].items():
        figures = [key for key, value in first["test"].items() if isinstance(value, dict)]
        summary[name] = {
            "mode": first["privacy"]["mode"],
            "epsilon": first["privacy"]["epsilon"],
            "seconds": float(np.mean([run[name]["seconds"] for run in runs])),
            "test": {key: _mean([run[name]["test"][key] for run in runs]) for key in figures},
            "test_groups": {
                group: {figure: _mean([run[name]["test_groups"][group][figure] for run in runs])}
                for group in first.get("test_groups", ())
                for figure in figures[:1]
            },
            AGAINST: {
                rival: {key: _mean([run[name][AGAINST][rival][key] for run in runs]) for key in of}
                for rival, of in first.get(AGAINST, {}).items()
            },
        }
    for setting in summary.values():
        first_figure = next(iter(setting["test"]))
        whole = summary[REFERENCE]["test"][first_figure]["value"]
        setting["kept"] = setting["test"][first_figure]["value"] / whole if whole else None
    return summary


def _mean(estimates: list[dict[str, float]]) -> dict[str, Any]:
    """Return the mean of estimates with a 95 % interval over test patients and seeds.

    Its half width is sqrt(a^2 + b^2): a is the mean half width of the bootstrap intervals (all runs
    share the test patients, so these do not average out), b is Student's t times the standard error
    over seeds.
    """
    values = np.array([estimate["value"] for estimate in estimates])
    patients = float(np.mean([estimate["high"] - estimate["low"] for estimate in estimates])) / 2
    runs = len(values)
    seeds = 0.0
    if runs > 1:
        seeds = float(student.ppf(TAIL, runs - 1) * values.std(ddof=1) / math.sqrt(runs))
    mean, half = float(values.mean()), math.hypot(patients, seeds)
    return {
        "value": mean,
        "low": mean - half,
        "high": mean + half,
        "by_seed": [float(value) for value in values],
    }
