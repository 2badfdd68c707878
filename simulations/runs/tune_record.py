"""The record of a search: what is to be tried, what was, what is chosen, and at what price."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.study.definition import Study
from consilium.simulations.experiments.choosing import Score, choose, gain
from consilium.simulations.experiments.search_space import Candidate, Space, described, plain
from consilium.simulations.experiments.selection_price import (
    price_of_setting,
    price_sentences,
    selection_price,
)
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.figures.metrics import LOWER_IS_BETTER
from consilium.simulations.report.records import SCHEMA, TUNE
from consilium.simulations.runs.study_text import study_text

CHOSEN = "study.toml"


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


def begin(
    study: Study, search: Search, settings: list[Candidate], patients: list[int], out: Path
) -> dict[str, Any]:
    """Return the record with what was finished before, and an entry for each setting.

    Args:
        study: whose settings are searched.
        search: how.
        settings: all that are tried, the study's own first.
        patients: numbers of those judged on in each fold.
        out: the folder, which may hold a search that was cut off.

    Raises:
        SettingsError: the folder holds another search, or a longer one.
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
    before = _read(out / TUNE)
    if before is not None and (other := [k for k in record if before.get(k) != record[k]]):
        raise SettingsError(
            f"{out}: holds a search of another kind, which differs in {other[0]}; go on with it in "
            "the same way, or choose another --out"
        )
    kept = {entry["study_digest"]: entry for entry in (before or {}).get("tried", ())}
    if len(kept) > len(settings):
        raise SettingsError(
            f"{out}: holds a search of {len(kept)} settings, and runs {search.runs} are for "
            f"{len(settings)}; give {len(kept) * search.folds} or more, or choose another --out"
        )
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


def conclude(
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
