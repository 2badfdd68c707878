"""Compares strategies: how hospitals share a model, and which parts each keeps for itself.

A strategy changes a few keys of the study; all else, such as local steps, learning rate, rounds and
model, is the study's. Beside the strategies the table shows training alone at each hospital, and on
all records in one place.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.records.windows import read_windows
from consilium.shared.errors import StudyError
from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.experiments.external import Watch
from consilium.simulations.federation.out_folder import use_folder
from consilium.simulations.figures.central import merge, train_centrally
from consilium.simulations.figures.held_out import HeldOut
from consilium.simulations.report.files import write_report
from consilium.simulations.report.records import SCHEMA, run_record, setting_record, write_json
from consilium.simulations.report.records import STRATEGIES as FILE
from consilium.simulations.runs.compare import Compared
from consilium.simulations.runs.simulate import train

Tables = Mapping[str, Mapping[str, Any]]

STRATEGIES: Mapping[str, Tables] = MappingProxyType(
    {
        "study": {},
        # Server steps. Rates of the adaptive ones: the middle of those that Reddi et al. (ICLR
        # 2021, appendix D) find best over their tasks. From there, too: tau 1e-3, and FedAdagrad
        # without momentum.
        "fedavg": {"aggregation": {"strategy": "fedavg", "server_learning_rate": 1.0}},
        "fedavgm": {
            "aggregation": {"strategy": "fedavgm", "server_learning_rate": 0.3, "momentum": 0.9}
        },
        "fedadagrad": {
            "aggregation": {
                "strategy": "fedadagrad",
                "server_learning_rate": 0.1,
                "momentum": 0.0,
                "adaptivity": 1e-3,
            }
        },
        "fedadam": {
            "aggregation": {
                "strategy": "fedadam",
                "server_learning_rate": 0.03,
                "momentum": 0.9,
                "second_moment": 0.99,
                "adaptivity": 1e-3,
            }
        },
        "fedyogi": {
            "aggregation": {
                "strategy": "fedyogi",
                "server_learning_rate": 0.03,
                "momentum": 0.9,
                "second_moment": 0.99,
                "adaptivity": 1e-3,
            }
        },
        # Local steps.
        "fedprox": {"training": {"proximal": 0.1}},
        "scaffold": {"training": {"control_variates": True}},
        # Parts that each site keeps.
        "head": {"personalisation": {"parts": ("head",)}},
        "norm": {"personalisation": {"parts": ("norm",)}},
        "inputs": {"personalisation": {"parts": ("inputs",)}},
        # A second model.
        "ditto": {"personalisation": {"ditto": {"pull": 0.3}}},
    }
)
NUMBERS: Mapping[str, Callable[[float], Tables]] = MappingProxyType(
    {
        "fedprox": lambda mu: {"training": {"proximal": mu}},
        "ditto": lambda pull: {"personalisation": {"ditto": {"pull": pull}}},
    }
)
"""What NAME=NUMBER changes."""


def with_strategy(study: Study, name: str) -> Study:
    """Return the study under a strategy: a name, several joined by ``+``, or ``name=number``.

    If the study already has the strategy's server step, its own rates stay.

    Raises:
        StudyError: there is no such strategy, or it makes no sense in this study.
    """
    changes: dict[str, dict[str, Any]] = {}
    for part in name.split("+"):
        known, _, number = part.partition("=")
        tables: Tables | None = STRATEGIES.get(known)
        if tables is None:
            raise StudyError(
                f"there is no strategy {known!r}; choose among {', '.join(STRATEGIES)}, "
                "or join some by +"
            )
        if tables.get("aggregation", {}).get("strategy") == study.aggregation.strategy:
            tables = {}
        if number:
            if known not in NUMBERS or not _is_number(number):
                raise StudyError(
                    f"strategy {part!r}: a number goes with {' and '.join(NUMBERS)} alone, as "
                    "fedprox=0.1; leave it out"
                )
            tables = NUMBERS[known](float(number))
        for table, keys in tables.items():
            target = changes.setdefault(table, {})
            parts = (*target.get("parts", ()), *keys.get("parts", ()))
            target.update(keys, **({"parts": parts} if parts else {}))
    return with_changes(study, **changes)


def compare_strategies(
    study: Study,
    data: Path | Cohorts | None,
    out: Path,
    *,
    strategies: list[str],
    modes: list[str],
    workers: int,
    watch: Watch,
    protocol: bool = False,
) -> tuple[Compared, dict[str, str]]:
    """Run every strategy on the same records and the same test patients.

    Args:
        study: what to run.
        data: folder of real records, if the study needs one; or the cohorts themselves.
        out: gets ``strategies.json``, ``report.html`` and a folder for each run; finished runs are
            kept.
        strategies: as :func:`with_strategy` takes them.
        modes: privacy modes in which each is run.
        workers: sites that train at the same time.
        watch: called when a setting begins; returns a function to call with each round's record.
        protocol: whether the whole secure sum runs; otherwise vectors are added as they are.

    Returns:
        For each setting a record like ``run.json``; and for each that makes no sense in this study
        the sentence that says why.

    Raises:
        StudyError: there is no such strategy.
        SettingsError: the folder holds something else, or another run uses it.
    """
    runs, refused = _runs(study, strategies, modes)
    cohorts = data if isinstance(data, Cohorts) else cohorts_for(study, data)
    compared: Compared = {}
    with use_folder(out, marker=FILE):
        test = HeldOut.read(cohorts.test, study)
        for name, record in _settings(study, cohorts, test, out, runs, workers, watch, protocol):
            compared[name] = record
            content = {"settings": compared, "refused": refused}
            digest = study.digest.hex()
            write_json(out / FILE, {"schema": SCHEMA, "study_digest": digest} | content)
        write_report(out)
    return compared, refused


def _runs(
    study: Study, strategies: list[str], modes: list[str]
) -> tuple[dict[str, Study], dict[str, str]]:
    """Return the federated settings by name, and for each refused one the reason."""
    runs: dict[str, Study] = {}
    refused: dict[str, str] = {}
    for strategy in strategies:
        for part in strategy.split("+"):
            if part.partition("=")[0] not in STRATEGIES:
                with_strategy(study, strategy)  # so that it raises before anything is trained
        for mode in modes:
            name = strategy if mode == "none" else f"{strategy}, {mode}"
            try:
                moded = with_changes(study, privacy={"mode": mode})
                runs[name] = with_strategy(moded, strategy)
            except StudyError as error:
                refused[name] = str(error)
    return runs, refused


def _settings(
    study: Study,
    cohorts: Cohorts,
    test: HeldOut,
    out: Path,
    runs: Mapping[str, Study],
    workers: int,
    watch: Watch,
    protocol: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each setting's name and record when it is finished."""
    plain = with_changes(study, privacy={"mode": "none"})
    sites = cohorts.sites.items()
    grids = {site: to_grid(read_windows(source, study), study) for site, source in sites}
    watch("local", plain)
    alone = {name: merge([grids[s] for s in held]) for name, held in cohorts.alone.items()}
    yield "local", _central(plain, cohorts, test, alone)
    watch("pooled", plain)
    yield "pooled", _central(plain, cohorts, test, {"pooled": merge(list(grids.values()))})
    for name, changed in runs.items():
        folder = out / name.replace(", ", "-")
        show = watch(name, changed)
        finished, seconds = train(
            changed, cohorts, test, folder, workers=workers, show=show, protocol=protocol
        )
        yield name, run_record(changed, cohorts, finished, seconds=seconds)


def _central(
    study: Study, cohorts: Cohorts, test: HeldOut, grids: Mapping[str, TimeGrid]
) -> dict[str, Any]:
    """Train a model on each grid; judge it on its own hospital's test patients.

    If it is not known whose the test patients are, figures are means over the models.
    """
    began = time.monotonic()
    states = {name: train_centrally(study, grid, who=name) for name, grid in grids.items()}
    one = next(iter(states.values()))
    if len(states) > 1 and set(test.groups) <= set(states):
        models = [test.scores(one, states)]
    else:
        models = [test.scores(state) for state in states.values()]
    seconds = time.monotonic() - began
    figures, groups = test.metrics(models), test.by_group(models)
    return setting_record(study, cohorts, figures, groups=groups, seconds=seconds)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
