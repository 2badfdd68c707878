"""A whole study in one process: sites, coordinator, checkpoints, and the researcher's own test.

The researcher of a simulation holds all data, so beside what the federation learns from its sums
this module evaluates the global model on test patients directly.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from client.app import make_client_app
from client.features import Grid, PatientTensors, to_grid, to_tensors
from client.policy import Policy
from client.session import Session
from client.sources import Source
from client.training import predict
from server.aggregation import start
from server.app import make_server_app
from server.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from server.sites import Sites
from server.study_run import RoundResult, RunState, run_study
from shared.errors import DataError, SettingsError, StudyError
from shared.model import build_model
from shared.normalisation import Normalisation
from shared.privacy import epsilon_spent, plan
from shared.round_contents import Purpose, sum_parameters
from shared.study import Study
from shared.variables import feature_names
from shared.weights import load_vector, to_vector
from simulations.local_grid import Fault, LocalGrid, run_server_app
from simulations.metrics import TestMetrics, evaluate_risks
from simulations.site_folders import open_site, roster_of

Show = Callable[[dict[str, Any]], None]
Risks = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run: the model, how it does on the test patients, and a record a round."""

    state: RunState
    test: TestMetrics
    risks_N: Risks
    history: tuple[dict[str, Any], ...]


class Federation:
    """All sites of a study in this process, and the folder that holds their state.

    Args:
        study: what to run.
        sources: each site's records.
        folder: where sites keep their state and the coordinator its checkpoint.
        workers: sites that work at the same time.
        faults: what shall go wrong, for tests.
    """

    def __init__(
        self,
        study: Study,
        sources: Mapping[str, Source],
        folder: Path,
        *,
        workers: int,
        faults: Iterable[Fault] = (),
    ) -> None:
        self._study, self._folder = study, folder
        self._workers, self._faults = workers, tuple(faults)
        self._policy = Policy(
            largest_study_epsilon=study.privacy.epsilon,
            lifetime_epsilon=study.privacy.epsilon,
            delta=study.privacy.delta,
            allow_without_privacy=True,
        )
        states = {
            site: open_site(folder / "sites" / site, self._policy) for site in study.sites
        }
        self._roster = roster_of(states.items())
        self._sources, self._states = dict(sources), states
        self._cohorts = {site: self._session(site).cohort for site in study.sites}

    def train(self, show: Show, test: TestCohort) -> Finished:
        """Run the study to its end, from its checkpoint if there is one.

        Args:
            show: called with each round's record as it is finished.
            test: the researcher's own patients, for the figures shown beside.

        Raises:
            RoundVoidError: the sites could not start the study.
            SettingsError: the folder belongs to another study, or is not a run's folder.
        """
        checkpoint = self._checkpoint()
        for record in checkpoint.history:
            show(record)
        progress = [checkpoint]

        def coordinate(sites: Sites) -> None:
            for result in self._rounds(sites, progress[-1]):
                record = self._record(result, test)
                progress.append(
                    replace(
                        progress[-1],
                        state=result.state,
                        history=(*progress[-1].history, record),
                    )
                )
                save_checkpoint(self._folder, progress[-1])
                show(record)

        if not checkpoint.state.finished:
            self._serve(coordinate)
        state = replace(progress[-1].state, finished=True)
        save_checkpoint(self._folder, replace(progress[-1], state=state))
        risks_N = test.risks(state, self._study)
        return Finished(
            state=state,
            test=test.metrics([risks_N], self._study),
            risks_N=risks_N,
            history=progress[-1].history,
        )

    def _rounds(self, sites: Sites, checkpoint: Checkpoint) -> Iterator[RoundResult]:
        parameters = sum_parameters(self._study, self._roster, checkpoint.run_id)
        return run_study(self._study, parameters, sites, checkpoint.state)

    def _serve(self, coordinate: Callable[[Sites], None]) -> None:
        study = self._study
        timeout_s = study.aggregation.round_timeout_s
        app = make_server_app(coordinate, study.sites, timeout_s=timeout_s)
        starts = {site: partial(self._start, site) for site in study.sites}
        with LocalGrid(starts, workers=self._workers, faults=self._faults) as grid:
            run_server_app(app, grid)

    def _start(self, site: str) -> ClientApp:
        """Start a site's ClientApp; the site's records were read and checked before."""
        session = self._session(site)
        session.use(self._cohorts[site])
        return make_client_app(session)

    def _session(self, site: str) -> Session:
        return Session(
            site=site,
            study=self._study,
            roster=self._roster,
            source=self._sources[site],
            policy=self._policy,
            state=self._states[site],
        )

    def _checkpoint(self) -> Checkpoint:
        """Return where to begin or go on; a new run is saved before its first round."""
        found = load_checkpoint(self._folder)
        if found is None:
            model = build_model(
                self._study, len(feature_names(self._study)), seed=self._study.seed
            )
            begun = Checkpoint(
                study_digest=self._study.digest,
                run_id=secrets.token_bytes(16),
                state=RunState(server=start(to_vector(model))),
            )
            save_checkpoint(self._folder, begun)
            return begun
        if found.study_digest != self._study.digest:
            raise SettingsError(
                f"{self._folder}: holds a run of another study or of an earlier version of this "
                f"one (digest {found.study_digest.hex()[:12]}, not "
                f"{self._study.digest.hex()[:12]}); choose another --out"
            )
        if found.state.finished:
            return found
        return replace(found, state=found.state.after_crash(self._study))

    def _record(self, result: RoundResult, test: TestCohort) -> dict[str, Any]:
        """Return a round's record, as ``run.json`` holds it; see docs/run-json.md."""
        record: dict[str, Any] = {
            "round": result.number,
            "purpose": result.purpose.value,
            "void": result.void,
            "sites": list(result.survivors),
            "refusals": result.refusals,
            "patients": result.patients,
            "update_norm": result.update_norm,
            "epsilon": spent_so_far(self._study, result.state),
            "seconds": result.seconds,
            "phases": result.phases,
            "bytes_up": result.bytes_up,
            "bytes_down": result.bytes_down,
            "validation": asdict(result.metrics) if result.metrics else None,
        }
        if result.state.normalisation and result.purpose is Purpose.TRAINING:
            record["test"] = test.quick(test.risks(result.state, self._study))
        return record


@dataclass(frozen=True, kw_only=True)
class TestCohort:
    """The researcher's test patients, on the study's grid of hours."""

    grid: Grid

    @classmethod
    def read(cls, source: Source, study: Study) -> "TestCohort":
        """Read the test patients.

        Raises:
            StudyError: the task is not binary, which is what this test can judge.
            DataError: only one outcome occurs among the test patients, or they cannot be read.
        """
        if study.task.kind != "binary" or study.task.per_step:
            raise StudyError(
                f"study {study.name}: a simulation's test judges binary outcomes of whole stays, "
                f"not {study.task.kind} ones; set [task] kind = \"binary\", per_step = false"
            )
        grid = to_grid(source.read_patients(study), study)
        if len(np.unique(grid.y_N)) < 2:
            raise DataError(
                f"the test cohort has one outcome only among {grid.patients} patients; "
                "choose other test data"
            )
        return cls(grid=grid)

    def risks(self, state: RunState, study: Study) -> Risks:
        """Return the global model's risk of each test stay, shape (N,)."""
        normalisation = Normalisation.from_bytes(state.normalisation, study)
        return risks_of(state.server.model_weights, self.tensors(normalisation, study), study)

    def tensors(self, normalisation: Normalisation, study: Study) -> PatientTensors:
        """Return the model's inputs under this normalisation."""
        return to_tensors(self.grid, normalisation, study)

    def metrics(self, models_MN: Sequence[Risks], study: Study) -> TestMetrics:
        """Return metrics with intervals, averaged over models."""
        return evaluate_risks(
            models_MN, self.grid.y_N == 1, self.grid.patient_N, seed=study.seed
        )

    def quick(self, risks_N: Risks) -> dict[str, float]:
        """Return AUROC and loss without intervals, for progress."""
        return {
            "auroc": float(roc_auc_score(self.grid.y_N == 1, risks_N)),
            "loss": float(log_loss(self.grid.y_N == 1, np.clip(risks_N, 1e-7, 1 - 1e-7))),
        }


def risks_of(weights_D: NDArray[np.float32], tensors: PatientTensors, study: Study) -> Risks:
    """Return the risk of each stay under these weights, shape (N,)."""
    model = build_model(study, len(feature_names(study)), seed=study.seed)
    load_vector(model, weights_D)
    scores: Risks = predict(model, tensors.x_NTF, tensors.mask_NT).reshape(-1).astype(np.float64)
    return scores


def spent_so_far(study: Study, state: RunState) -> float | None:
    """Return the epsilon that every site has spent so far, or None without privacy."""
    costs = plan(study)
    if costs is None or not state.normalisation:
        return None if costs is None else 0.0
    return epsilon_spent(
        (costs.statistics, *([costs.training_round] * state.trained)), study.privacy.delta
    )
