"""Training with all records in one place, to compare federation with.

The same model, rounds, steps, optimiser and averaging as in the study's federation without privacy,
as if one site held all records; there is no secure sum, and there are no other sites.
"""

import numpy as np

from consilium.client.records.features import TimeGrid, to_tensors
from consilium.client.records.statistics import patient_contributions
from consilium.client.round.training import train_locally
from consilium.client.round.training_set import TrainingSet
from consilium.client.round.update import weight_difference
from consilium.server.study.aggregation import apply, start
from consilium.server.study.run import RunState
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.crypto.transcript import digest
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import load_vector, to_vector
from consilium.shared.study.definition import Study, with_changes


def merge(grids: list[TimeGrid]) -> TimeGrid:
    """Return one grid with the stays of all, patients renumbered."""
    first_patient = np.cumsum([0, *(grid.patients for grid in grids)])
    return TimeGrid(
        value_NTV=np.concatenate([grid.value_NTV for grid in grids]),
        mask_NT=np.concatenate([grid.mask_NT for grid in grids]),
        y_N=np.concatenate([grid.y_N for grid in grids]),
        patient_N=np.concatenate(
            [grid.patient_N + first for grid, first in zip(grids, first_patient, strict=False)]
        ),
        patient_ids=tuple(patient for grid in grids for patient in grid.patient_ids),
    )


def train_centrally(study: Study, grid: TimeGrid, *, who: str) -> RunState:
    """Train without privacy on one grid; each ``who`` has random draws of its own.

    FedProx's pull and SCAFFOLD's correction, which only make sense with several sites, are left
    out.
    """
    study = with_changes(study, training={"proximal": 0.0, "control_variates": False})
    normalisation = Normalisation.from_sums(patient_contributions(grid, study).sum(axis=0), study)
    patients = TrainingSet.of(to_tensors(grid, normalisation, study), study, normalisation.share_K)
    model = study_model(study)
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
