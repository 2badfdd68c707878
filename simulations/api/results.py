"""The result of a run, read from the folder in which the run wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.round.own_part import own_trained
from consilium.server.figures.verdicts import Verdict
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
from consilium.simulations.api.model import TrainedModel
from consilium.simulations.api.rounds import RoundFigures, as_rows, round_figures
from consilium.simulations.federation.out_folder import SITES
from consilium.simulations.figures.metrics import Estimate
from consilium.simulations.report.files import read_run, write_report
from consilium.simulations.report.rounds_export import read_rounds
from consilium.simulations.runs.model_file import read_trained

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What one hospital gained by joining, in the task's first figure, on test patients.

    Attributes:
        site: the hospital.
        tested_on: whose test patients: the hospital's name, or ``all`` if it is not known whose
            they are.
        patients: number of test patients.
        judged: whether they are enough to judge.
        local: the figure of the hospital's own model, trained on its records without privacy.
        federated: the figure of the federation's model.
        gain: how much better the federation's model is; negative if it is worse.
    """

    site: str
    tested_on: str
    patients: int
    judged: bool
    local: Estimate
    federated: Estimate
    gain: Estimate


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """How a model does at a hospital that was left out of its training.

    Attributes:
        site: the hospital.
        patients: number of its test patients.
        judged: whether they are enough to judge.
        external: the task's first figure, of the model trained without the hospital.
        federated: the same figure, of the model trained with it.
        gain: how much better the model trained with it is; negative if it is worse.
        local: the same figure, of the hospital's own model; None if none was trained.
        calibration: outcomes observed / expected by the model trained without the hospital; None
            in tasks without risks.
    """

    site: str
    patients: int
    judged: bool
    external: Estimate
    federated: Estimate
    gain: Estimate
    local: Estimate | None
    calibration: Estimate | None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SimulationResult(InFolder):
    """A finished run.

    It cannot be changed. If its folder is temporary, that is removed when neither the result nor
    its model is used any more, or by :meth:`close`, or at the end of a ``with`` block.

    Attributes:
        study: what was run.
        test: figures of the final model on all test patients.
        by_site: the same for each hospital's test patients; empty if it is not known whose they
            are.
        epsilon: spent on each training patient by everything that left a site; None without
            privacy.
        delta: the delta at which epsilon holds; None without privacy.
        seconds: duration of all rounds.
        synthetic: whether the patients are generated.
        verdicts: findings in sentences, serious ones first.
        joined: what each hospital gained by joining; empty unless the run had ``alone=True``.
        left_out: how models do at a hospital they were trained without; empty unless the run had
            ``external=True``.
    """

    study: Study
    test: Figures
    by_site: Mapping[str, Figures]
    epsilon: float | None
    delta: float | None
    seconds: float
    synthetic: bool
    verdicts: tuple[Verdict, ...]
    joined: tuple[Joined, ...]
    left_out: tuple[LeftOut, ...]
    _rounds: tuple[RoundFigures, ...]
    _folder: Folder = field(repr=False)

    @property
    def rounds(self) -> "pl.DataFrame":
        """A row for each round: number, purpose, figures by their names in :class:`RoundFigures`.

        Raises:
            SettingsError: polars is not installed (extra ``frames``).
        """
        return data_frame(as_rows(self._rounds), instead="rounds_table()")

    def rounds_table(self) -> tuple[RoundFigures, ...]:
        """Return the rounds, by number; needs no extra."""
        return self._rounds

    @cached_property
    def model(self) -> TrainedModel:
        """The model that all sites share.

        Raises:
            SettingsError: the run's folder does not have it.
        """
        return TrainedModel(
            study=self.study, _trained=read_trained(self.folder), _folder=self._folder
        )

    def model_at(self, site: str) -> TrainedModel:
        """Return the model as one site uses it, with the weights that the site keeps to itself.

        Without ``[personalisation]`` in the study it is the shared model.

        Raises:
            SettingsError: the study has no such site, or the site's own weights are missing.
        """
        if site not in self.study.sites:
            raise SettingsError(
                f"study {self.study.name} has no site {site!r}; choose one of "
                f"{', '.join(self.study.sites)}"
            )
        store = PersonalStore(self.folder / SITES / site / "personal")
        shared = self.model
        return replace(shared, site=site, _trained=own_trained(shared._trained, store))

    def report(
        self, path: str | PathLike[str] | None = None, *, compare: str | PathLike[str] | None = None
    ) -> Path:
        """Write the report, one self-contained HTML file; return its path.

        Args:
            path: the file; ``report.html`` in the run's folder unless given.
            compare: folder of a comparison of the same study; the report then shows its settings.

        Raises:
            SettingsError: the file cannot be written, or the comparison is of another study.
        """
        return write_report(
            self.folder,
            None if path is None else Path(path),
            None if compare is None else Path(compare),
        )

    def __repr__(self) -> str:
        name, first = next(iter(self.test.estimates.items()))
        spent = "without privacy" if self.epsilon is None else f"epsilon {self.epsilon:.2f}"
        return (
            f"SimulationResult(study {self.study.name!r}, {name} {first.value:.3f} "
            f"({first.low:.3f} to {first.high:.3f}), {spent})"
        )


def open_run(folder: str | PathLike[str]) -> SimulationResult:
    """Open a finished run: the folder that ``simulate`` or ``consilium-simulate run`` wrote.

    Runs of older versions open too, if their ``run.json`` has schema 1; what it lacks is empty.

    Raises:
        SettingsError: the folder holds no finished run, or a damaged one.
    """
    return result_in(Folder(folder))


def result_in(folder: Folder) -> SimulationResult:
    """Read the result in a folder, as :func:`open_run` does."""
    study, record = read_run(folder.path)
    try:
        return _result(study, record, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"{folder.path}: its run.json is damaged; give the command that made it again, which "
            "writes it anew from its checkpoint"
        ) from error


def _result(study: Study, record: Mapping[str, Any], folder: Folder) -> SimulationResult:
    privacy = record["privacy"]
    return SimulationResult(
        study=study,
        test=figures_of(record["test"]),
        by_site=figures_by_site(record.get("test_groups")),
        epsilon=privacy["epsilon"],
        delta=privacy["delta"],
        seconds=record["seconds"],
        synthetic=record["synthetic"],
        verdicts=tuple(Verdict(**entry) for entry in record.get("verdicts") or ()),
        joined=tuple(_joined(entry) for entry in _sites(record, "joining")),
        left_out=tuple(_left_out(entry) for entry in _sites(record, "external")),
        _rounds=tuple(round_figures(entry) for entry in read_rounds(folder.path)),
        _folder=folder,
    )


def _sites(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    sites: list[dict[str, Any]] = (record.get(key) or {}).get("sites", [])
    return sites


def _joined(entry: Mapping[str, Any]) -> Joined:
    return Joined(
        site=entry["site"],
        tested_on=entry["tested_on"],
        patients=entry["patients"],
        judged=entry.get("judged", True),
        local=estimate_of(entry["local"]),
        federated=estimate_of(entry["federated"]),
        gain=estimate_of(entry["gain"]),
    )


def _left_out(entry: Mapping[str, Any]) -> LeftOut:
    local, calibration = entry.get("local"), entry.get("calibration")
    return LeftOut(
        site=entry["site"],
        patients=entry["patients"],
        judged=entry["judged"],
        external=estimate_of(entry["external"]),
        federated=estimate_of(entry["federated"]),
        gain=estimate_of(entry["gain"]),
        local=None if local is None else estimate_of(local),
        calibration=None if calibration is None else estimate_of(calibration),
    )
