"""Comparing settings: baselines, each hospital alone, pooled, federated, federated with privacy."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.records.windows import read_windows
from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.experiments.baselines import baselines
from consilium.simulations.experiments.external import Watch
from consilium.simulations.experiments.rivals import AGAINST, against, rivals_among
from consilium.simulations.federation.out_folder import use_folder
from consilium.simulations.figures.central import merge, train_centrally
from consilium.simulations.figures.held_out import HeldOut, Scores
from consilium.simulations.figures.metrics import HeldOutMetrics
from consilium.simulations.report.files import write_report
from consilium.simulations.report.records import (
    COMPARE,
    SCHEMA,
    run_record,
    setting_record,
    write_json,
)
from consilium.simulations.runs.simulate import train

LESSER_EPSILONS = (3.0, 1.0)
PRIVATE = "federated-private"

Compared = dict[str, dict[str, Any]]


def compare_settings(
    study: Study,
    data: Path | Cohorts | None,
    out: Path,
    *,
    epsilons: list[float] | None,
    workers: int,
    watch: Watch,
    modes: list[str] | None = None,
    protocol: bool = False,
) -> Compared:
    """Run every setting on the same records and the same test patients.

    Args:
        study: what to run; its own epsilon comes first in the comparison.
        data: folder of real records, if the study needs one; or the cohorts themselves.
        out: gets ``compare.json``, ``report.html`` and a folder for each federated setting;
            finished ones are kept.
        epsilons: budgets to compare; the study's own, 3 and 1 unless given.
        workers: sites that train at the same time.
        watch: called when a setting begins; returns a function to call with each round's record.
        modes: privacy modes to compare at each budget; the study's own unless given.
        protocol: whether the whole secure sum runs; otherwise vectors are added as they are.

    Returns:
        For each setting a record like ``run.json``, in the table's order.

    Raises:
        SettingsError: the folder holds something else, or another run uses it.
    """
    cohorts = data if isinstance(data, Cohorts) else cohorts_for(study, data)
    sites = cohorts.sites.items()
    compared: Compared = {}
    with use_folder(out, marker=COMPARE):
        test = HeldOut.read(cohorts.test, study)
        grids = {site: to_grid(read_windows(source, study), study) for site, source in sites}
        private = private_settings(study, epsilons, modes)
        settings = _settings(study, cohorts, test, grids, out, private, workers, watch, protocol)
        rivals: dict[str, HeldOutMetrics] = {}
        for name, record, figures in settings:
            if name in rivals_among([name]):
                rivals[name] = figures
            else:
                record[AGAINST] = against(figures, rivals)
            compared[name] = record
            write_json(
                out / COMPARE,
                {"schema": SCHEMA, "study_digest": study.digest.hex(), "settings": compared},
            )
        write_report(out)
    return compared


def _settings(
    study: Study,
    cohorts: Cohorts,
    test: HeldOut,
    grids: dict[str, TimeGrid],
    out: Path,
    private: dict[str, Study],
    workers: int,
    watch: Watch,
    protocol: bool,
) -> Iterator[tuple[str, dict[str, Any], HeldOutMetrics]]:
    """Yield each setting's name, record and figures when it is finished; rivals come first."""
    plain = with_changes(study, privacy={"mode": "none"})
    pooled = merge(list(grids.values()))
    for name, baseline in baselines(plain, cohorts.constant).items():
        watch(name, plain)
        began = time.monotonic()
        scores = baseline(pooled, test.grid)
        yield name, *_record(plain, cohorts, test, [scores], began)
    watch("local", plain)
    alone = {name: merge([grids[s] for s in held]) for name, held in cohorts.alone.items()}
    yield "local", *_central(plain, cohorts, test, alone)
    watch("pooled", plain)
    yield "pooled", *_central(plain, cohorts, test, {"pooled": pooled})
    for name, changed in {"federated": plain, **private}.items():
        finished, seconds = train(
            changed,
            cohorts,
            test,
            out / name,
            workers=workers,
            show=watch(name, changed),
            protocol=protocol,
        )
        yield name, run_record(changed, cohorts, finished, seconds=seconds), finished.test


def private_settings(
    study: Study, epsilons: list[float] | None, modes: list[str] | None
) -> dict[str, Study]:
    """Return the studies of the private settings, by name; the first has the study's own epsilon.

    A setting's name has the privacy mode only if it is not the study's own; each mode is run at
    each epsilon.

    Raises:
        StudyError: there is no such mode, or the study's training does not fit it.
    """
    if study.privacy.mode == "none":
        study = with_changes(study, privacy={"mode": "site"})
    own, own_mode = study.privacy.epsilon, study.privacy.mode
    settings: dict[str, Study] = {}
    for epsilon in epsilons or [own, *(e for e in LESSER_EPSILONS if e < own)]:
        for mode in modes or [own_mode]:
            name = PRIVATE if mode == own_mode else f"{PRIVATE}-{mode}"
            if name in settings:
                name = f"{name}-epsilon-{epsilon:g}"
            settings[name] = with_changes(study, privacy={"epsilon": epsilon, "mode": mode})
    return settings


def _central(
    study: Study, cohorts: Cohorts, test: HeldOut, grids: dict[str, TimeGrid]
) -> tuple[dict[str, Any], HeldOutMetrics]:
    """Train a model on each grid; the test figures are means over the models."""
    began = time.monotonic()
    scores = {
        name: test.scores(train_centrally(study, grid, who=name)) for name, grid in grids.items()
    }
    record, figures = _record(study, cohorts, test, list(scores.values()), began)
    if len(grids) > 1:
        record["sites"] = {
            name: test.metrics([one]).to_json()
            | {"groups": {group: m.to_json() for group, m in test.by_group([one]).items()}}
            for name, one in scores.items()
        }
    return record, figures


def _record(
    study: Study, cohorts: Cohorts, test: HeldOut, models: list[Scores], began: float
) -> tuple[dict[str, Any], HeldOutMetrics]:
    figures = test.metrics(models)
    return setting_record(
        study,
        cohorts,
        figures,
        groups=test.by_group(models),
        seconds=time.monotonic() - began,
    ), figures
