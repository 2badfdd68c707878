"""Training with all records in one place: what federation is compared with.

The same model, rounds, steps, optimiser and averaging as the study's federation without privacy,
as if one site held the records; only the secure sum and the other sites are missing.
"""

import numpy as np

from client.features import Grid, to_tensors
from client.statistics import patient_contributions
from client.training import TrainingSet, train_locally
from client.update import weight_difference
from server.aggregation import apply, start
from server.study_run import RunState
from shared.masks import Keystream
from shared.model import build_model
from shared.normalisation import Normalisation
from shared.study import Study, with_changes
from shared.transcript import digest
from shared.variables import feature_names
from shared.weights import load_vector, to_vector


def merge(grids: list[Grid]) -> Grid:
    """Return one grid with the stays of all, patients renumbered."""
    first_patient = np.cumsum([0, *(grid.patients for grid in grids)])
    return Grid(
        value_NTV=np.concatenate([grid.value_NTV for grid in grids]),
        mask_NT=np.concatenate([grid.mask_NT for grid in grids]),
        y_N=np.concatenate([grid.y_N for grid in grids]),
        patient_N=np.concatenate(
            [grid.patient_N + first for grid, first in zip(grids, first_patient, strict=False)]
        ),
        patient_ids=tuple(patient for grid in grids for patient in grid.patient_ids),
    )


def train_centrally(study: Study, grid: Grid, *, who: str) -> RunState:
    """Train without privacy on one grid; ``who`` tells the random draws of two such runs apart.

    What only holds several sites together is left out: FedProx's pull, SCAFFOLD's correction.
    """
    study = with_changes(study, training={"proximal": 0.0, "control_variates": False})
    normalisation = Normalisation.from_sums(patient_contributions(grid, study).sum(axis=0))
    patients = TrainingSet.of(to_tensors(grid, normalisation, study))
    model = build_model(study, len(feature_names(study)), seed=study.seed)
    state = start(to_vector(model))
    for round_number in range(study.rounds):
        load_vector(model, state.weights_D)
        source = Keystream(digest("central", study.seed, who, round_number))
        train_locally(model, patients, study, noise_multiplier=None, source=source)
        update_D = weight_difference(to_vector(model), state.weights_D)
        state = apply(state, update_D, study.aggregation)
    return RunState(
        server=state,
        normalisation=normalisation.to_bytes(),
        trained=study.rounds,
        finished=True,
    )
