"""What only a researcher who holds the sites' validation patients can say of a run."""

import numpy as np
from sklearn.metrics import roc_auc_score

from consilium.shared.study.definition import Study
from consilium.simulations.federation.run import Federation
from consilium.simulations.figures.central import merge
from consilium.simulations.figures.held_out import HeldOut


def validation_patients(federation: Federation, study: Study) -> HeldOut:
    """The patients that the sites keep out of training, whom a researcher holds all of."""
    grids = [c.validation for c in federation._cohorts.values() if c.validation is not None]
    grid = merge(grids)
    return HeldOut(study=study, grid=grid, groups=("all",), group_N=np.zeros(len(grid.y_N), int))


def exact_aurocs(test: HeldOut, scores: np.ndarray) -> list[float]:
    """Of every output; a patient's stays, and the steps of a stay, share the patient's weight."""
    grid, task = test.grid, test.study.task
    weight = 1 / np.bincount(grid.patient_N)[grid.patient_N]
    counted = np.ones(len(weight), dtype=np.bool_)
    if task.per_step:
        counted = grid.mask_NT
        weight = np.broadcast_to((weight / counted.sum(axis=1))[:, None], counted.shape)
    exact = []
    for output in range(task.outputs):
        label = grid.y_N[..., output] if task.kind == "multilabel" else grid.y_N
        used = counted & ~np.isnan(label)
        outcome = label[used] == (output if task.kind == "multiclass" else 1)
        both = len(np.unique(outcome)) == 2
        risk = scores[..., output][used]
        exact.append(roc_auc_score(outcome, risk, sample_weight=weight[used]) if both else np.nan)
    return exact
