"""Each hospital alone, all records in one place, federated, and federated with privacy."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.api.figures import (
    Figures,
    estimate_of,
    figures_by_site,
    figures_of,
)
from consilium.simulations.api.folders import Folder, InFolder
from consilium.simulations.api.frames import data_frame
from consilium.simulations.api.records import RecordsGiven, cohorts_of
from consilium.simulations.api.rounds import RoundFigures
from consilium.simulations.api.simulate import shown_to, workers_of
from consilium.simulations.api.study import a_study
from consilium.simulations.experiments.external import Watch
from consilium.simulations.experiments.rivals import AGAINST
from consilium.simulations.federation.run import Show
from consilium.simulations.federation.threads import one_thread_each
from consilium.simulations.figures.metrics import Estimate
from consilium.simulations.report.files import read_comparison, write_report
from consilium.simulations.runs.compare import Compared, compare_settings
from consilium.simulations.runs.seeds import FILE as SEEDS
from consilium.simulations.runs.seeds import REFERENCE, compare_over_seeds

if TYPE_CHECKING:
    import polars as pl

PrivateMode = Literal["site", "distributed"]
MODES = ("site", "distributed")
Progress = Callable[[str, RoundFigures], object]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way of training on the same records, judged on the same test patients.

    Attributes:
        name: ``logistic-regression`` or ``ridge-regression`` and ``gradient-boosting`` (without
            recurrence, on all records in one place), ``local`` (each hospital alone, the mean over
            their models), ``pooled`` (all records in one place), ``federated`` (without privacy),
            or one that begins with ``federated-private``.
        mode: privacy mode: ``none``, ``site`` or ``distributed``.
        epsilon: spent on each training patient; None without privacy.
        seconds: how long it took; with several seeds, the mean.
        test: figures on all test patients. With several seeds these are means, their intervals
            cover both patients and seeds, and the counts of patients are those of the first seed.
        by_site: figures of each hospital's test patients, if it is known whose they are; with
            several seeds only the task's first figure.
        models: in setting ``local`` with one seed, figures of each hospital's own model; else
            empty.
        kept: the task's first figure divided by that of ``pooled``; None if that was not run, or
            is 0.
        by_seed: the values of each figure by name, one for each seed.
        against: by rival and figure, how much better this setting is than a model without
            recurrence, with the interval of the paired bootstrap; positive is better. Empty for
            such a model itself, and in a comparison that an older version made.
    """

    name: str
    mode: str
    epsilon: float | None
    seconds: float
    test: Figures
    by_site: Mapping[str, Figures]
    models: Mapping[str, Figures]
    kept: float | None
    by_seed: Mapping[str, tuple[float, ...]]
    against: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(InFolder):
    """Settings of one study side by side.

    It cannot be changed. A temporary folder is removed with it, as with
    :class:`consilium.SimulationResult`.

    Attributes:
        study: what was compared.
        seeds: the seeds with which each setting was run.
        settings: in the table's order.
    """

    study: Study
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]
    _folder: Folder = field(repr=False)

    def setting(self, name: str) -> Setting:
        """Return the setting of this name.

        Raises:
            SettingsError: there is none; the sentence lists those there are.
        """
        for one in self.settings:
            if one.name == name:
                return one
        names = ", ".join(one.name for one in self.settings)
        raise SettingsError(f"there is no setting {name!r}; choose one of {names}")

    def table(self) -> "pl.DataFrame":
        """Return a row for each setting: mode, epsilon, each figure with its bounds, seconds.

        Raises:
            SettingsError: polars is not installed (extra ``frames``).
        """
        return data_frame([_row(one) for one in self.settings], instead="settings")

    def report(self, path: str | PathLike[str] | None = None) -> Path:
        """Write the report of the private federated setting, beside the others; return its path.

        Args:
            path: the file; ``report.html`` in the folder unless given. With several seeds the
                report is of the first.

        Raises:
            SettingsError: the file cannot be written.
        """
        folder = _first(self.folder, self.seeds) if len(self.seeds) > 1 else self.folder
        return write_report(folder, None if path is None else Path(path))

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.settings)
        return f"Comparison(study {self.study.name!r}: {names})"


def compare(
    study: Study,
    records: RecordsGiven = None,
    *,
    epsilons: Sequence[float] = (),
    modes: Sequence[PrivateMode] = (),
    seeds: int = 1,
    out: str | PathLike[str] | None = None,
    workers: int | None = None,
    protocol: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Run every setting on the same records and judge it on the same test patients.

    Args:
        study: what to run.
        records: as :func:`consilium.simulate` takes them.
        epsilons: budgets to compare; the study's own, 3 and 1 unless given.
        modes: privacy modes to compare at each budget; the study's own unless given.
        seeds: how many seeds to run, the study's and the next ones; the means are compared.
        out: folder for the files; finished settings are kept there. None takes a temporary folder,
            which is removed when the comparison is garbage-collected or closed.
        workers: sites that train at the same time; all processor cores unless given.
        protocol: as :func:`consilium.simulate` takes it.
        progress: called with the setting's name and each of its rounds when it is finished;
            nothing is printed in any case.

    Raises:
        ConsiliumError: as :func:`consilium.simulate`.
    """
    study = a_study(study)
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise SettingsError(
            f"modes: {unknown[0]!r} is no mode that keeps anything private; choose among "
            f"{', '.join(MODES)}"
        )
    if seeds < 1:
        raise SettingsError(f"seeds {seeds}: must be at least 1")
    number = workers_of(workers)
    study, cohorts = cohorts_of(study, records)  # refuse before a folder is made
    folder = Folder(out)

    def settings(one: Study, where: Path) -> Compared:
        return compare_settings(
            one,
            cohorts_of(one, None)[1] if records is None else cohorts,  # synthetic: by seed
            where,
            epsilons=list(epsilons),
            workers=number,
            watch=_watch(progress),
            modes=list(modes),
            protocol=protocol,
        )

    with one_thread_each():
        if seeds > 1:
            compare_over_seeds(study, folder.path, seeds=seeds, compare=settings)
        else:
            settings(study, folder.path)
    return _comparison(folder)


def open_comparison(folder: str | PathLike[str]) -> Comparison:
    """Open a comparison: the folder that ``compare`` or ``consilium-simulate compare`` wrote.

    Raises:
        SettingsError: the folder holds no comparison, or a damaged one.
    """
    return _comparison(Folder(folder))


def _comparison(folder: Folder) -> Comparison:
    path = folder.path
    try:
        if (path / SEEDS).exists():
            return _over_seeds(folder, json.loads((path / SEEDS).read_text(encoding="utf-8")))
        study, found = read_comparison(path)
        settings = tuple(_setting(name, one, found.get(REFERENCE)) for name, one in found.items())
        return Comparison(study=study, seeds=(study.seed,), settings=settings, _folder=folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"{path}: its record is damaged; make the comparison again, in the same folder"
        ) from error


def _setting(name: str, record: Mapping[str, Any], pooled: Mapping[str, Any] | None) -> Setting:
    test = figures_of(record["test"])
    first = next(iter(test.estimates))
    kept = None
    if pooled is not None:
        whole = estimate_of(pooled["test"][first]).value
        kept = test.estimates[first].value / whole if whole else None
    return Setting(
        name=name,
        mode=record["privacy"]["mode"],
        epsilon=record["privacy"]["epsilon"],
        seconds=record["seconds"],
        test=test,
        by_site=figures_by_site(record.get("test_groups")),
        models=figures_by_site(record.get("sites")),
        kept=kept,
        by_seed=MappingProxyType({figure: (one.value,) for figure, one in test.estimates.items()}),
        against=_against(record),
    )


def _against(record: Mapping[str, Any]) -> Mapping[str, Mapping[str, Estimate]]:
    found = record.get(AGAINST, {})
    return MappingProxyType(
        {
            rival: MappingProxyType({figure: estimate_of(one) for figure, one in gains.items()})
            for rival, gains in found.items()
        }
    )


def _over_seeds(folder: Folder, summary: Mapping[str, Any]) -> Comparison:
    """Return the comparison of means over seeds; counts of patients are the first seed's."""
    seeds = tuple(summary["seeds"])
    study, first = read_comparison(_first(folder.path, seeds))
    settings = []
    for name, record in summary["settings"].items():
        sizes = first[name]["test"]
        by_site = {
            site: first[name]["test_groups"][site] | figures
            for site, figures in record["test_groups"].items()
        }
        settings.append(
            Setting(
                name=name,
                mode=record["mode"],
                epsilon=record["epsilon"],
                seconds=record["seconds"],
                test=figures_of(sizes | record["test"]),
                by_site=_only(figures_by_site(by_site), record["test_groups"]),
                models=MappingProxyType({}),
                kept=record["kept"],
                by_seed=MappingProxyType(
                    {figure: tuple(one["by_seed"]) for figure, one in record["test"].items()}
                ),
                against=_against(record),
            )
        )
    return Comparison(study=study, seeds=seeds, settings=tuple(settings), _folder=folder)


def _only(
    by_site: Mapping[str, Figures], record: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Figures]:
    """Keep only those of each hospital's figures that the record has."""
    kept: dict[str, Figures] = {}
    for site, figures in by_site.items():
        estimates: dict[str, Estimate] = {name: figures.estimates[name] for name in record[site]}
        kept[site] = Figures(
            estimates=MappingProxyType(estimates),
            patients=figures.patients,
            rows=figures.rows,
            positives=figures.positives,
        )
    return MappingProxyType(kept)


def _first(folder: Path, seeds: tuple[int, ...]) -> Path:
    return folder / f"seed-{seeds[0]}"


def _row(setting: Setting) -> dict[str, Any]:
    row: dict[str, Any] = {
        "setting": setting.name,
        "mode": setting.mode,
        "epsilon": setting.epsilon,
    }
    for name, estimate in setting.test.estimates.items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row | {"kept": setting.kept, "seconds": setting.seconds}


def _watch(progress: Progress | None) -> Watch:
    def watch(setting: str, study: Study) -> Show:
        del study
        return shown_to(None if progress is None else lambda found: progress(setting, found))

    return watch
