"""Choosing settings of a study on folds of its training patients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study, load_study
from consilium.simulations.api.folders import Folder, InFolder
from consilium.simulations.api.frames import data_frame
from consilium.simulations.api.records import RecordsGiven, cohorts_of
from consilium.simulations.api.simulate import workers_of
from consilium.simulations.api.study import a_study
from consilium.simulations.experiments.search_space import space_of, usual_space
from consilium.simulations.experiments.selection_price import SelectionPrice
from consilium.simulations.federation.threads import one_thread_each
from consilium.simulations.report.files import read_search
from consilium.simulations.runs.tune import tune as run
from consilium.simulations.runs.tune_record import CHOSEN, Search

if TYPE_CHECKING:
    import polars as pl

Progress = Callable[["Trial", int], object]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A setting that was tried on folds of the training patients.

    Attributes:
        number: 1 for the study's own settings.
        changes: what differs from the study, by ``table.key``; lists stand for tuples.
        parameters: number of its model's parameters.
        rounds: its training rounds.
        by_fold: the task's first figure in each fold that was run.
        mean: of these; None if the setting failed or is not finished.
        standard_error: of the mean; None likewise.
        gain: how much better than the study's own settings, fold by fold, in the mean; positive is
            better; None likewise.
        gain_error: standard error of the gain; None likewise.
        epsilon_if_private: what trying it would cost a patient, were the records private.
        failed: why it could not be run; None if it could.
        seconds: duration of its runs.
    """

    number: int
    changes: Mapping[str, Any]
    parameters: int
    rounds: int
    by_fold: tuple[float, ...]
    mean: float | None
    standard_error: float | None
    gain: float | None
    gain_error: float | None
    epsilon_if_private: float | None
    failed: str | None
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tuning(InFolder):
    """A finished search.

    It cannot be changed. A temporary folder is removed with it, as with
    :class:`consilium.SimulationResult`.

    Attributes:
        study: whose settings were searched.
        chosen: the study with the settings that were chosen; the study itself if none is better
            beyond noise.
        figure: the task's first figure, by which settings were judged.
        higher_is_better: whether it is.
        folds: of the training patients.
        by_site: whether whole sites were left out, or persons of every site.
        trials: in the order in which they were tried; the study's own settings are the first.
        number: of the trial that was chosen.
        why: what was chosen among what, and by which rule, in a sentence.
        price: what the choice would cost if it were made on private records.
    """

    study: Study
    chosen: Study
    figure: str
    higher_is_better: bool
    folds: int
    by_site: bool
    trials: tuple[Trial, ...]
    number: int
    why: str
    price: SelectionPrice
    _folder: Folder = field(repr=False)

    @property
    def file(self) -> Path:
        """The file of the chosen study, for ``load_study`` or a coordinator.

        Raises:
            SettingsError: the folder was temporary and was closed.
        """
        return self.folder / CHOSEN

    def table(self) -> "pl.DataFrame":
        """Return a row for each trial: what it changed, mean, standard error, gain, price.

        Raises:
            SettingsError: polars is not installed (extra ``frames``).
        """
        return data_frame([_row(one) for one in self.trials], instead="trials")

    def __repr__(self) -> str:
        return f"Tuning(study {self.study.name!r}: {self.why})"


def tune(
    study: Study,
    records: RecordsGiven = None,
    *,
    runs: int,
    folds: int = 3,
    by_site: bool = False,
    space: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int | None = None,
    out: str | PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Choose settings of a study on folds of its training patients; the test's are never read.

    It does what ``consilium-simulate tune`` does: random search, and the rule of one standard
    error, by which the study's own settings stay unless others are better beyond noise.

    Args:
        study: its own settings are tried first, its privacy as it stands.
        records: as :func:`consilium.simulate` takes them.
        runs: budget of federated runs; each setting takes one in each fold.
        folds: of the training patients.
        by_site: leave out whole sites, and not persons of every site.
        space: by table and key a list of values, or ``{"low": 0.01, "high": 1.0, "scale": "log"}``;
            the usual settings unless given.
        seed: of the folds and of what is drawn; the study's unless given.
        out: folder for the files; finished runs are kept there and never run again. None takes a
            temporary folder, which is removed when the result is garbage-collected or closed.
        workers: sites that train at the same time; all processor cores unless given.
        progress: called with the trial so far and a fold's number when a run is finished.

    Raises:
        ConsiliumError: as :func:`consilium.simulate`; or the budget or the space is too small.
    """
    study = a_study(study)
    number = workers_of(workers)
    study, cohorts = cohorts_of(study, records)
    wanted = usual_space(study) if space is None else space_of(space, where="given")
    search = Search(
        space=wanted,
        runs=runs,
        folds=folds,
        by_site=by_site,
        seed=study.seed if seed is None else seed,
    )
    folder = Folder(out)

    def done(entry: dict[str, Any], fold: int) -> None:
        if progress is not None:
            progress(_trial(entry), fold)

    with one_thread_each():
        run(study, cohorts, folder.path, search, workers=number, done=done)
    return _tuning(folder)


def open_tuning(folder: str | PathLike[str]) -> Tuning:
    """Open a finished search: the folder that ``tune`` or ``consilium-simulate tune`` wrote.

    Raises:
        SettingsError: the folder holds no finished search, or a damaged one.
    """
    return _tuning(Folder(folder))


def _tuning(folder: Folder) -> Tuning:
    study, record = read_search(folder.path)
    try:
        return Tuning(
            study=study,
            chosen=load_study(folder.path / CHOSEN),
            figure=record["figure"],
            higher_is_better=record["higher_is_better"],
            folds=record["folds"],
            by_site=record["by"] == "site",
            trials=tuple(_trial(entry) for entry in record["tried"]),
            number=record["chosen"],
            why=record["why"],
            price=SelectionPrice(**record["price"]),
            _folder=folder,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"{folder.path}: its tune.json is damaged; search again, in another folder"
        ) from error


def _trial(entry: Mapping[str, Any]) -> Trial:
    gain: Mapping[str, float | None] = entry.get("gain") or {}
    return Trial(
        number=entry["number"],
        changes=MappingProxyType(dict(entry["changes"])),
        parameters=entry["parameters"],
        rounds=entry["rounds"],
        by_fold=tuple(entry["by_fold"]),
        mean=entry.get("mean"),
        standard_error=entry.get("standard_error"),
        gain=gain.get("mean"),
        gain_error=gain.get("standard_error"),
        epsilon_if_private=entry.get("epsilon_if_private"),
        failed=entry["failed"],
        seconds=entry["seconds"],
    )


def _row(trial: Trial) -> dict[str, Any]:
    names: Sequence[str] = ("mean", "standard_error", "gain", "gain_error", "parameters",
                            "rounds", "epsilon_if_private", "seconds", "failed")  # fmt: skip
    changed = "; ".join(f"{key} = {value}" for key, value in trial.changes.items())
    return {"number": trial.number, "changes": changed} | {
        name: getattr(trial, name) for name in names
    }
