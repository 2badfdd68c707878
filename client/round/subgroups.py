"""Which stays belong to which group of patients, and what a site adds up for each group.

Guarantee: one patient adds at most 1 to the sums of risks, and at most 1 in L2 norm to the tables,
of each of these: all subgroups of one variable together, all sites' own groups together, and the
group of all patients.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.features import TimeGrid
from consilium.shared.figures.score_counts import Edges, count_scores
from consilium.shared.figures.survival_counts import count_intervals
from consilium.shared.rounds.contents import LARGEST_ERROR
from consilium.shared.rounds.patient_groups import (
    WITH_RISKS,
    PatientGroup,
    block_size,
    patient_groups,
)
from consilium.shared.study.definition import Study

Members = NDArray[np.bool_]


def members_of(grid: TimeGrid, study: Study, group: PatientGroup) -> Members:
    """Return which stays (N,) are in a subgroup, by its variable's first value; unknown: none."""
    variable = group.variable or ""
    value_NT = grid.value_NTV[:, :, list(study.variables).index(variable)]
    known_NT = ~np.isnan(value_NT)
    value_N = value_NT[np.arange(len(value_NT)), known_NT.argmax(axis=1)]
    cuts = np.array(study.evaluation.subgroups[variable].cuts)
    part_N = np.searchsorted(cuts, value_N, side="right")
    inside_N: Members = known_NT.any(axis=1) & (part_N == group.part)
    return inside_N


def stays_by_group(
    grid: TimeGrid, study: Study, *, site: str, own: bool, smallest: int
) -> list[Members | None]:
    """Return each group's stays (N,) at this site, or None if the site adds nothing to a group.

    Args:
        grid: the validation patients.
        study: defines the groups.
        site: this site's name in the study.
        own: whether the hospital releases figures of its own patients as a whole.
        smallest: a subgroup with fewer patients than this is left out. With privacy noise none is
            left out, because that would reveal what the noise hides.
    """
    everyone = np.ones(len(grid.y_N), dtype=np.bool_)
    found: list[Members | None] = []
    for group in patient_groups(study):
        if group.kind == "subgroup":
            stays_N = members_of(grid, study, group)
            few = study.privacy.mode == "none" and _patients(grid, stays_N) < smallest
            found.append(None if few else stays_N)
        else:
            included = group.kind == "all" or (own and group.name == site)
            found.append(everyone if included else None)
    return found


def group_blocks(
    scores: NDArray[np.float64],
    y: NDArray[np.float32],
    weight: NDArray[np.float64],
    counted: NDArray[np.bool_],
    members: Sequence[Members | None],
    study: Study,
    edges_L: Edges,
) -> NDArray[np.float64]:
    """Return the blocks (G, block) of all groups (:mod:`consilium.shared.rounds.patient_groups`).

    Args:
        scores: (N, K), or (N, T, K) per step.
        y: their labels, as in :class:`consilium.client.records.features.TimeGrid`.
        weight: (N,) or (N, T), of each row; the weights of a patient's rows sum to 1.
        counted: (N,) or (N, T), True for the rows that count.
        members: the stays (N,) of each group; a group with None gets zeros.
        study: its task decides what a block contains.
        edges_L: edges of the bins of a group's table.
    """
    blocks = np.zeros((len(members), block_size(study)))
    for block, stays_N in zip(blocks, members, strict=True):
        if stays_N is not None:
            inside = counted & stays_N.reshape(-1, *[1] * (counted.ndim - 1))
            block[:] = _block(scores[inside], y[inside], weight[inside], study, edges_L)
    return blocks


def _block(
    scores_RK: NDArray[np.float64],
    y: NDArray[np.float32],
    weight_R: NDArray[np.float64],
    study: Study,
    edges_L: Edges,
) -> NDArray[np.float64]:
    if study.task.kind == "multiclass":
        known_R = ~np.isnan(y)
        right_R = scores_RK.argmax(axis=1) == y
        return np.array([weight_R[known_R].sum(), weight_R[known_R & right_R].sum()])
    if study.task.kind == "survival":
        risk_R, edges_KL = scores_RK[:, -1], np.tile(edges_L, (scores_RK.shape[1], 1))
        counted_R = ~np.isnan(y).all(axis=1)
        tables = count_intervals(risk_R, y, weight_R, edges_KL)
        return np.concatenate(([(risk_R * weight_R)[counted_R].sum()], tables.ravel()))
    y_RK = y.reshape(scores_RK.shape)
    known_RK = ~np.isnan(y_RK)
    labels_R = np.maximum(known_RK.sum(axis=1), 1)
    weight_RK = np.where(known_RK, (weight_R / labels_R)[:, None], 0.0)
    if study.task.kind in WITH_RISKS:
        risks, shares = scores_RK[known_RK], weight_RK[known_RK]
        table_2B = count_scores(risks, y_RK[known_RK] == 1, shares, edges_L)
        return np.concatenate(([float((risks * shares).sum())], table_2B.ravel()))
    largest = LARGEST_ERROR * study.task.spread
    error_RK = np.minimum(np.abs(np.where(known_RK, scores_RK - y_RK, 0.0)) / largest, 1.0)
    return np.array([weight_RK.sum(), (error_RK * weight_RK).sum()])


def _patients(grid: TimeGrid, stays_N: Members) -> int:
    return len(np.unique(grid.patient_N[stays_N]))
