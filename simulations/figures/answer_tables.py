"""Tables of predictions against the truth, for tasks without risks.

Classes give a confusion matrix; predicted values are counted in a coarse grid of predicted and true
values. The tables hold no patient's data, only counts of known outcomes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.simulations.figures.held_out import HeldOut, Scores
from consilium.simulations.figures.measures import Classes

MOST_CLASSES = 50  # a larger confusion matrix would be illegible
MOST_TARGETS = 12
CELLS = 30  # on each side of the grid of predicted and true values
GROUPS = 10  # of equal size, by predicted value


def final_tables(test: HeldOut, scores: Scores) -> dict[str, Any]:
    """Return the tables that ``run.json`` keeps.

    Args:
        test: the researcher's patients.
        scores: the final model's, of each test stay, (N, K) or (N, T, K).

    Returns:
        In a multiclass task ``confusion`` (true class by most likely class), in regression
        ``values`` (a table for each target), else nothing; docs/run-json.md has the fields.
    """
    truth, kind = test.truth, test.study.task.kind
    scores_RK = truth.rows(scores)
    if kind == "multiclass" and scores_RK.shape[1] <= MOST_CLASSES:
        classes = Classes(scores_RK, truth.truth_R.astype(np.int64))
        return {"confusion": classes.confusion(np.ones(len(scores_RK))).astype(int).tolist()}
    if kind == "regression":
        truth_RK = truth.truth_R.reshape(scores_RK.shape).astype(np.float64)
        targets = range(min(scores_RK.shape[1], MOST_TARGETS))
        return {"values": [_values(scores_RK[:, k], truth_RK[:, k]) for k in targets]}
    return {}


def _values(predicted_R: NDArray[np.float64], truth_R: NDArray[np.float64]) -> dict[str, Any]:
    """Count one target's rows in a grid, and average them in groups of predicted values.

    The grid reaches from the 1st to the 99th percentile of both; rows beyond it count in its edge
    cells.
    A group's ``low`` and ``high`` are the 10th and 90th percentile of the true values.
    """
    known_R = ~np.isnan(truth_R)
    predicted_R, truth_R = predicted_R[known_R], truth_R[known_R]
    ends = np.percentile(np.concatenate([predicted_R, truth_R]), (1, 99))
    edges_L = np.linspace(ends[0], max(ends[1], ends[0] + 1e-9), CELLS + 1)
    cell_R = [
        np.clip(np.searchsorted(edges_L, values, side="right") - 1, 0, CELLS - 1)
        for values in (truth_R, predicted_R)
    ]
    counts_BB = np.zeros((CELLS, CELLS), dtype=np.int64)
    np.add.at(counts_BB, tuple(cell_R), 1)
    order = np.argsort(predicted_R, kind="stable")
    groups = [rows for rows in np.array_split(order, GROUPS) if len(rows)]
    return {
        "rows": len(truth_R),
        "low": float(edges_L[0]),
        "high": float(edges_L[-1]),
        "counts": [" ".join(map(str, row)) for row in counts_BB.tolist()],
        "groups": [
            {
                "rows": len(rows),
                "predicted": float(predicted_R[rows].mean()),
                "observed": float(truth_R[rows].mean()),
                "low": float(np.percentile(truth_R[rows], 10)),
                "high": float(np.percentile(truth_R[rows], 90)),
            }
            for rows in groups
        ],
    }
