"""The researcher's own test patients, whom no site trains on and no secure sum protects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from client.features import Grid, PatientTensors, to_grid, to_tensors
from client.sources import Source
from client.training import predict
from server.study_run import RunState
from shared.errors import DataError, StudyError
from shared.model import build_model
from shared.normalisation import Normalisation
from shared.study import Study
from shared.variables import feature_names
from shared.weights import load_vector
from simulations.metrics import TestMetrics, evaluate_risks

Risks = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The researcher's test patients, on the study's grid of hours."""

    grid: Grid

    @classmethod
    def read(cls, source: Source, study: Study) -> "HeldOut":
        """Read the test patients.

        Raises:
            StudyError: the task is not binary, which is what this test can judge.
            DataError: only one outcome occurs among the test patients, or they cannot be read.
        """
        if study.task.kind != "binary" or study.task.per_step:
            raise StudyError(
                f"study {study.name}: a simulation's test judges binary outcomes of whole stays, "
                f'not {study.task.kind} ones; set [task] kind = "binary", per_step = false'
            )
        grid = to_grid(source.read_patients(study), study)
        if len(np.unique(grid.y_N)) < 2:
            raise DataError(
                f"the test cohort has one outcome only among {grid.patients} patients; "
                "choose other test data"
            )
        return cls(grid=grid)

    @property
    def outcomes(self) -> NDArray[np.bool_]:
        """Whether each test stay had the outcome."""
        return np.asarray(self.grid.y_N == 1)

    def risks(self, state: RunState, study: Study) -> Risks:
        """Return the global model's risk of each test stay, shape (N,)."""
        normalisation = Normalisation.from_bytes(state.normalisation, study)
        return risks_of(state.server.model_weights, self.tensors(normalisation, study), study)

    def tensors(self, normalisation: Normalisation, study: Study) -> PatientTensors:
        """Return the model's inputs under this normalisation."""
        return to_tensors(self.grid, normalisation, study)

    def metrics(self, models_MN: Sequence[Risks], study: Study) -> TestMetrics:
        """Return metrics with intervals, averaged over models."""
        return evaluate_risks(models_MN, self.outcomes, self.grid.patient_N, seed=study.seed)

    def quick(self, risks_N: Risks) -> dict[str, float]:
        """Return AUROC and loss without intervals, for progress."""
        return {
            "auroc": float(roc_auc_score(self.outcomes, risks_N)),
            "loss": float(log_loss(self.outcomes, np.clip(risks_N, 1e-7, 1 - 1e-7))),
        }


def risks_of(weights_D: NDArray[np.float32], tensors: PatientTensors, study: Study) -> Risks:
    """Return the risk of each stay under these weights, shape (N,)."""
    model = build_model(study, len(feature_names(study)), seed=study.seed)
    load_vector(model, weights_D)
    scores: Risks = predict(model, tensors.x_NTF, tensors.mask_NT).reshape(-1).astype(np.float64)
    return scores
