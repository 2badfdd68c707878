"""The researcher's own test patients, whom no site trains on and no secure sum protects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from consilium.client.records.features import PatientTensors, TimeGrid, to_grid, to_tensors
from consilium.client.records.windows import read_windows
from consilium.client.round.predictions import predict_with_loss
from consilium.client.sources.common.source import Source
from consilium.server.study.run import RunState
from consilium.shared.errors import DataError
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.study_model import study_model
from consilium.shared.study.definition import Study
from consilium.simulations.figures.central import merge
from consilium.simulations.figures.measures import FIGURES, measure_of
from consilium.simulations.figures.metrics import HeldOutMetrics, Truth, evaluate

Scores = NDArray[np.float64]
OwnStates = Mapping[str, RunState]
"""By hospital, the state with that hospital's own weights and normalisation in it."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The researcher's test patients, on the study's time grid, by group (such as hospital).

    ``group_N`` is the index of each stay's group in ``groups``.
    """

    study: Study
    grid: TimeGrid
    groups: tuple[str, ...]
    group_N: NDArray[np.int64]
    _inputs: dict[bytes, PatientTensors] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, sources: Mapping[str, Source], study: Study) -> "HeldOut":
        """Read the test patients of every group.

        Raises:
            DataError: the test patients cannot be read, or all have the same outcome.
        """
        held: dict[str, TimeGrid] = {}
        for name, source in sources.items():
            patients = list(read_windows(source, study))
            if patients:
                held[name] = to_grid(patients, study)
        if not held:
            raise DataError("the test cohort has no patient that fits the study; check its records")
        grid, grids = merge(list(held.values())), held.values()
        known = np.unique(grid.y_N[~np.isnan(grid.y_N)])
        if len(known) < 2:
            raise DataError(
                f"the test cohort has one outcome only among {grid.patients} patients; "
                "choose other test data"
            )
        stays = [len(part.y_N) for part in grids]
        return cls(
            study=study,
            grid=grid,
            groups=tuple(held),
            group_N=np.repeat(np.arange(len(stays)), stays),
        )

    @property
    def truth(self) -> Truth:
        """The true outcomes of all test patients."""
        return self.truth_of(np.ones(len(self.grid.y_N), dtype=np.bool_))

    def scores(self, state: RunState, own: OwnStates | None = None) -> Scores:
        """Return the model's scores of each test stay, (N, K), or (N, T, K) per step.

        If hospitals have models of their ``own``, each model scores its hospital's test patients;
        patients of no such hospital get the mean of all models' scores.
        """
        return self._scores_and_loss(state, own or {})[0]

    def metrics(self, models: Sequence[Scores]) -> HeldOutMetrics:
        """Return figures on all test patients, averaged over models, with intervals."""
        return evaluate(models, self.truth, seed=self.study.seed)

    def by_group(self, models: Sequence[Scores]) -> dict[str, HeldOutMetrics]:
        """Return figures on each group that has known outcomes; nothing for a single group."""
        found: dict[str, HeldOutMetrics] = {}
        for index, name in enumerate(self.groups if len(self.groups) > 1 else ()):
            stays_N = self.group_N == index
            if len(self.truth_of(stays_N).patient_R):
                found[name] = self.metrics_of(stays_N, models)
        return found

    def metrics_of(self, stays_N: NDArray[np.bool_], models: Sequence[Scores]) -> HeldOutMetrics:
        """Return figures on the chosen stays (N,), averaged over models, with intervals."""
        chosen = [scores[stays_N] for scores in models]
        return evaluate(chosen, self.truth_of(stays_N), seed=self.study.seed)

    def quick(self, state: RunState, own: OwnStates | None = None) -> dict[str, float]:
        """Return the task's first figure and the loss, without intervals, to show progress."""
        scores, loss_N = self._scores_and_loss(state, own or {})
        truth = self.truth
        measure = measure_of(self.study.task, truth.rows(scores), truth.truth_R)
        name = FIGURES[self.study.task.kind][0]
        return {
            name: float(measure.values(np.ones(len(truth.patient_R)))[0]),
            "loss": float(loss_N.mean()),
        }

    def tensors(self, normalisation: bytes) -> PatientTensors:
        """Return the model's inputs under this normalisation; the last round's are kept."""
        if normalisation not in self._inputs:
            if len(self._inputs) > len(self.study.sites):
                self._inputs.clear()
            decoded = Normalisation.from_bytes(normalisation, self.study)
            self._inputs[normalisation] = to_tensors(self.grid, decoded, self.study)
        return self._inputs[normalisation]

    def truth_of(self, stays_N: NDArray[np.bool_]) -> Truth:
        """Return the true outcomes of the chosen test stays (N,)."""
        grid = self.grid
        return Truth.of(
            self.study.task, grid.y_N[stays_N], grid.mask_NT[stays_N], grid.patient_N[stays_N]
        )

    def _scores_and_loss(
        self, state: RunState, own: OwnStates
    ) -> tuple[Scores, NDArray[np.float64]]:
        if not own:
            return self._scored(state, np.ones(len(self.group_N), dtype=np.bool_))
        parts = []
        for index, name in enumerate(self.groups):
            states = [own[name]] if name in own else list(own.values())
            both = [self._scored(one, self.group_N == index) for one in states]
            parts.append([np.mean(values, axis=0) for values in zip(*both, strict=True)])
        scores, loss_N = (np.concatenate(values) for values in zip(*parts, strict=True))
        return scores, loss_N

    def _scored(
        self, state: RunState, stays_N: NDArray[np.bool_]
    ) -> tuple[Scores, NDArray[np.float64]]:
        """Return scores and losses of the chosen stays (N,)."""
        study = self.study
        model = study_model(study, state.server.model_weights)
        inputs = self.tensors(state.normalisation)
        if stays_N.all():
            return predict_with_loss(model, inputs)
        rows = torch.from_numpy(np.flatnonzero(stays_N))
        some = replace(
            inputs,
            x_NTF=inputs.x_NTF[rows],
            mask_NT=inputs.mask_NT[rows],
            y_N=inputs.y_N[rows],
            patient_N=inputs.patient_N[rows],
        )
        return predict_with_loss(model, some)
