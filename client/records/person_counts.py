"""How many persons a site has in each cell of the feasibility round, exact; nothing here leaves."""

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.cohort import Cohort
from consilium.client.records.features import TimeGrid
from consilium.shared.study.definition import Study
from consilium.shared.study.survival import by_each_cut


def person_counts(grid: TimeGrid, study: Study) -> NDArray[np.float64]:
    """Return the persons in each cell (:mod:`consilium.shared.rounds.feasibility`), shape (cells,).

    Guarantee: a person adds 0 or 1 to each cell, however many stays the person has.
    """
    y, patient_N = grid.y_N, grid.patient_N
    rows = [np.ones(len(y), dtype=np.bool_), *_with_outcome(y, study)]
    known_NV: NDArray[np.bool_] = np.any(~np.isnan(grid.value_NTV), axis=1)
    rows += list(known_NV.T)
    return np.array([len(np.unique(patient_N[row_N])) for row_N in rows], dtype=np.float64)


def cohort_counts(cohort: Cohort, study: Study) -> NDArray[np.float64]:
    """Return the persons of training and validation together, in each cell (cells,)."""
    counts: NDArray[np.float64] = np.sum([person_counts(p, study) for p in cohort.parts], axis=0)
    return counts


def _with_outcome(y: NDArray[np.float32], study: Study) -> list[NDArray[np.bool_]]:
    """Return for each outcome the rows (N,) that have it at any step."""
    kind, outputs = study.task.kind, study.task.outputs
    if kind == "survival":
        y = by_each_cut(y)
    if kind == "multiclass":
        found = [y == outcome for outcome in range(outputs)]
    else:
        had = np.isfinite(y) if kind == "regression" else y == 1
        found = [had] if y.ndim == 1 + study.task.per_step else list(np.moveaxis(had, -1, 0))
    return [each.any(axis=tuple(range(1, each.ndim))) for each in found]
