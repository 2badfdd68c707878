"""Settings of a study, tried on folds of its training patients; what is tried is never run again.

Each setting is a federation of its own in each fold, as ``run`` would run it. Test patients are
never read. The record is written after every run, so a search that was cut off goes on where it
was, and a run in its middle from its last round.
"""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from consilium.shared.errors import (
    DataError,
    PrivacyError,
    ProtocolError,
    SettingsError,
    StudyError,
)
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.folds import Fold, folds_by_person, folds_by_site
from consilium.simulations.experiments.search_space import Candidate, candidates, changed
from consilium.simulations.federation.out_folder import use_folder
from consilium.simulations.figures.held_out import HeldOut
from consilium.simulations.figures.measures import FIGURES
from consilium.simulations.report.records import TUNE, write_json
from consilium.simulations.runs.simulate import train
from consilium.simulations.runs.tune_record import Search, begin, conclude

UNFINISHED = "unfinished"
FEWEST_SETTINGS = 2
Done = Callable[[dict[str, Any], int], None]
_OF_SETTING = (StudyError, DataError, PrivacyError, ProtocolError)


def tune(
    study: Study,
    cohorts: Cohorts,
    out: Path,
    search: Search,
    *,
    workers: int,
    done: Done,
    text: str | None = None,
) -> dict[str, Any]:
    """Try settings, or go on with it, and write what was tried and the study with what was chosen.

    Args:
        study: its own settings are tried first.
        cohorts: the records, of which the test's are never read.
        out: gets ``tune.json`` and ``study.toml``.
        search: what is searched, and how.
        workers: sites that train at the same time.
        done: called with a setting's entry and the number of a fold when that run is finished, also
            for those that were finished before.
        text: the study's file, whose comments are kept; None if there is none.

    Returns:
        The content of ``tune.json``; docs/run-json.md has its fields.

    Raises:
        SettingsError: the budget is too small, the folder holds something else, or a space has too
            few settings.
        ConsiliumError: the study's own settings cannot be run.
    """
    if search.settings < FEWEST_SETTINGS:
        raise SettingsError(
            f"runs {search.runs}: a setting takes one run in each of {search.folds} folds, and "
            f"there must be another beside the study's own; give {2 * search.folds} or more"
        )
    settings = candidates(study, search.space, number=search.settings, seed=search.seed)
    deal = folds_by_site if search.by_site else folds_by_person
    with use_folder(out, marker=TUNE):
        folds = deal(study, cohorts, folds=search.folds, seed=search.seed)
        tests = [_judged(fold, number) for number, fold in enumerate(folds, start=1)]
        record = begin(study, search, settings, [test.grid.patients for test in tests], out)
        write_json(out / TUNE, record)
        for one, entry in zip(settings, record["tried"], strict=True):
            for number in range(search.folds):
                if len(entry["by_fold"]) == number and entry["failed"] is None:
                    where = out / UNFINISHED / f"{entry['number']}-{number + 1}"
                    _run(one, folds[number], tests[number], entry, where, workers)
                    write_json(out / TUNE, record)
                    shutil.rmtree(where, ignore_errors=True)
                done(entry, number + 1)
            if entry["number"] == 1 and entry["failed"] is not None:
                raise SettingsError(f"the study's own settings cannot be tried: {entry['failed']}")
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        conclude(study, search, settings, record, text, out)
        write_json(out / TUNE, record)
    return record


def _judged(fold: Fold, number: int) -> HeldOut:
    """Read the patients whom a fold is judged on."""
    try:
        return HeldOut.read(fold.judged, fold.study)
    except DataError as error:
        raise SettingsError(
            f"fold {number} cannot be judged ({error}); give fewer folds, or more patients"
        ) from error


def _run(
    one: Candidate,
    fold: Fold,
    test: HeldOut,
    entry: dict[str, Any],
    where: Path,
    workers: int,
) -> None:
    """Run a setting in one fold, and note in its entry how it did, or why it failed."""
    began = time.monotonic()
    try:
        study = changed(fold.study, one.changes)
        finished, _ = train(
            study,
            Cohorts(sites=fold.training, test=fold.judged, described="a fold"),
            replace(test, study=study),
            where,
            workers=workers,
            show=lambda _: None,
        )
        value = finished.test.figures[FIGURES[study.task.kind][0]].value
        if math.isfinite(value):
            entry["by_fold"].append(value)
        else:
            entry["failed"] = "its figure is no number"
    except _OF_SETTING as error:
        entry["failed"] = str(error)
    entry["seconds"] += time.monotonic() - began
