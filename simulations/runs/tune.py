"""Settings of a study, tried on folds of its training patients; what is tried is never run again.

Each setting is a federation of its own in each fold, as ``run`` would run it. Test patients are
never read. The record is written after every run, so a search that was cut off goes on where it
was, and a run in its middle from its last round.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from consilium.shared.errors import (
    DataError,
    PrivacyError,
    ProtocolError,
    SettingsError,
    StudyError,
)
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.folds import Fold, folds_by_person, folds_by_site
from consilium.simulations.experiments.choosing import Score, choose, gain
from consilium.simulations.experiments.search_space import (
    Candidate,
    Space,
    candidates,
    changed,
    described,
    plain,
)
from consilium.simulations.experiments.selection_price import (
    price_of_setting,
    price_sentences,
    selection_price,
)
from consilium.simulations.federation.out_folder import use_folder
from consilium.simulations.figures.held_out import HeldOut
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.figures.metrics import LOWER_IS_BETTER
from consilium.simulations.report.records import SCHEMA, TUNE, write_json
from consilium.simulations.runs.simulate import train
from consilium.simulations.runs.study_text import study_text

FILE, CHOSEN, UNFINISHED = TUNE, "study.toml", "unfinished"
FEWEST_SETTINGS = 2
Done = Callable[[dict[str, Any], int], None]
_OF_SETTING = (StudyError, DataError, PrivacyError, ProtocolError)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, and how.

    Attributes:
        space: the settings and their values.
        runs: budget of federated runs; each setting takes one in each fold.
        folds: of the training patients.
        by_site: whether whole sites are left out, or persons of every site.
        seed: of the folds and of what is drawn.
    """

    space: Space
    runs: int
    folds: int
    by_site: bool
    seed: int

    @property
    def settings(self) -> int:
        """How many settings the budget pays for, the study's own included."""
        return self.runs // self.folds


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
    with use_folder(out, marker=FILE):
        folds = deal(study, cohorts, folds=search.folds, seed=search.seed)
        tests = [_judged(fold, number) for number, fold in enumerate(folds, start=1)]
        record = _begun(study, search, settings, [test.grid.patients for test in tests], out)
        write_json(out / FILE, record)
        for one, entry in zip(settings, record["tried"], strict=True):
            for number in range(search.folds):
                if len(entry["by_fold"]) == number and entry["failed"] is None:
                    where = out / UNFINISHED / f"{entry['number']}-{number + 1}"
                    _run(one, folds[number], tests[number], entry, where, workers)
                    write_json(out / FILE, record)
                    shutil.rmtree(where, ignore_errors=True)
                done(entry, number + 1)
            if entry["number"] == 1 and entry["failed"] is not None:
                raise SettingsError(f"the study's own settings cannot be tried: {entry['failed']}")
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        _conclude(study, search, settings, record, text, out)
        write_json(out / FILE, record)
    return record


def _judged(fold: Fold, number: int) -> HeldOut:
    """Read the patients whom a fold is judged on."""
    try:
        return HeldOut.read(fold.judged, fold.study)
    except DataError as error:
        raise SettingsError(
            f"fold {number} cannot be judged ({error}); give fewer folds, or more patients"
        ) from error


def _begun(
    study: Study, search: Search, settings: list[Candidate], patients: list[int], out: Path
) -> dict[str, Any]:
    """Return the record with what was finished before, and an entry for each setting.

    ``patients`` are the numbers of those judged on in each fold.
    """
    figure = FIGURES[study.task.kind][0]
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "study": study.name,
        "study_digest": study.digest.hex(),
        "study_declared": study.to_canonical_json().decode(),
        "figure": figure,
        "higher_is_better": figure not in LOWER_IS_BETTER,
        "folds": search.folds,
        "by": "site" if search.by_site else "person",
        "seed": search.seed,
        "patients": patients,
        "space": described(search.space),
    }
    before = _read(out / FILE)
    if before is not None and (other := [k for k in record if before.get(k) != record[k]]):
        raise SettingsError(
            f"{out}: holds a search of another kind, which differs in {other[0]}; go on with it in "
            "the same way, or choose another --out"
        )
    kept = {entry["study_digest"]: entry for entry in (before or {}).get("tried", ())}
    record["tried"] = []
    for number, one in enumerate(settings, start=1):
        fresh = {
            "number": number,
            "changes": {f"{table}.{key}": plain(v) for (table, key), v in one.changes.items()},
            "study_digest": one.study.digest.hex(),
            "parameters": one.parameters,
            "rounds": one.study.rounds,
            "seconds": 0.0,
            "by_fold": [],
            "failed": None,
        }
        found = kept.get(fresh["study_digest"], {})
        record["tried"].append(fresh | {k: found[k] for k in fresh if k in found})
    return record


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found["tried"], list):
            raise TypeError(path)
        for entry in found["tried"]:
            _ = entry["study_digest"], entry["by_fold"], entry["failed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{path}: is no search's record, or a damaged one; choose another --out"
        ) from error
    return found


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


def _conclude(
    study: Study,
    search: Search,
    settings: list[Candidate],
    record: dict[str, Any],
    text: str | None,
    out: Path,
) -> None:
    """Choose, add figures and prices to the record, and write the study with what was chosen."""
    higher = record["higher_is_better"]
    judged = [entry for entry in record["tried"] if entry["failed"] is None]
    scores = [
        Score(
            by_fold=tuple(entry["by_fold"]),
            parameters=entry["parameters"],
            rounds=entry["rounds"],
        )
        for entry in judged
    ]
    for entry, score in zip(judged, scores, strict=True):
        mean, error = gain(score, scores[0], higher_is_better=higher)
        entry |= {
            "mean": score.mean,
            "standard_error": score.standard_error,
            "gain": {"mean": mean, "standard_error": error},
        }
    chosen = judged[choose(scores, higher_is_better=higher)]
    for entry, one in zip(record["tried"], settings, strict=True):
        entry["epsilon_if_private"] = price_of_setting(one.study, search.folds)
    taken = settings[chosen["number"] - 1]
    price = selection_price([one.study for one in settings], taken.study, search.folds)
    record |= {
        "chosen": chosen["number"],
        "why": _why(record, chosen),
        "price": asdict(price),
        "price_told": list(price_sentences(price)),
    }
    about = f"consilium-simulate tune, seed {search.seed}: {record['why']}"
    written = study_text(study, taken.changes, taken.study, text, about)
    write_atomically(out / CHOSEN, written.encode())


def _why(record: dict[str, Any], chosen: dict[str, Any]) -> str:
    """Return in a sentence what was chosen among what, and by which rule."""
    title, folds = TITLES[record["figure"]], f"{record['folds']} folds by {record['by']}"
    judged = [entry for entry in record["tried"] if entry["failed"] is None]
    best = (max if record["higher_is_better"] else min)(judged, key=lambda one: one["mean"])
    top = (
        f"the best mean {title} over {folds} is {best['mean']:.3f} "
        f"(standard error {best['standard_error']:.3f}), of setting {best['number']}"
    )
    if chosen["number"] == 1:
        own = "" if best is chosen else f"; the study's own, {chosen['mean']:.3f}, is within that"
        return f"of {len(judged)} settings the study's own are kept: {top}{own}."
    how = "" if best is chosen else f"; it is within that, {chosen['mean']:.3f}, and smaller"
    return f"of {len(judged)} settings number {chosen['number']} is taken: {top}{how}."
