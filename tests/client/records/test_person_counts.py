"""A person counts once in a cell, however many stays; nobody else's cells move."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.records.features import TimeGrid, label_shape, select
from consilium.client.records.person_counts import person_counts
from consilium.shared.rounds.feasibility import feasibility_cells
from tests.study_text import small_study

STEPS = 2
STUDIES = {
    "binary": small_study(),
    "multiclass": small_study(task={"kind": "multiclass", "outputs": 3}),
    "multilabel": small_study(task={"kind": "multilabel", "outputs": 2}),
    "regression": small_study(task={"kind": "regression"}),
    "per step": small_study(task={"per_step": True}),
    "survival": small_study(task={"kind": "survival", "outputs": 2, "cuts": (10.0, 20.0)}),
    "labels per step": small_study(task={"kind": "multilabel", "outputs": 2, "per_step": True}),
}


def grid(study, values, labels, owners) -> TimeGrid:
    rows, shape = len(owners), label_shape(study)
    steps = study.data.steps
    value_NTV = np.full((rows, steps, 1), np.nan, dtype=np.float32)
    value_NTV[:, 0, 0] = values
    y_N = np.zeros((rows, *shape), dtype=np.float32)
    if rows:
        y_N.reshape(rows, -1)[:, -1] = labels
    return TimeGrid(
        value_NTV=value_NTV,
        mask_NT=np.ones((rows, steps), dtype=np.bool_),
        y_N=y_N,
        patient_N=np.array(owners, dtype=np.int64),
        patient_ids=tuple(f"p{number}" for number in range(max(owners, default=-1) + 1)),
    )


@pytest.mark.parametrize("kind", STUDIES)
def test_three_stays_of_one_person_count_once(kind: str) -> None:
    study = STUDIES[kind]
    found = person_counts(grid(study, [80, np.nan, 80, np.nan], [1, 1, 1, 0], [0, 0, 0, 1]), study)
    named = dict(zip(feasibility_cells(study), found, strict=True))
    assert named.pop(feasibility_cells(study)[0]) == 2
    assert [count for cell, count in named.items() if cell.kind == "variable"] == [1]
    outcomes = [count for cell, count in named.items() if cell.kind == "outcome"]
    assert (
        outcomes
        == {
            "binary": [1],
            "multiclass": [1, 1, 0],
            "multilabel": [0, 1],
            "regression": [2],
            "per step": [1],
            "survival": [0, 1],
            "labels per step": [0, 1],
        }[kind]
    )


@pytest.mark.parametrize("kind", STUDIES)
def test_nobody_is_counted_where_nobody_is(kind: str) -> None:
    study = STUDIES[kind]
    assert not person_counts(grid(study, [], [], []), study).any()


@settings(max_examples=30)
@given(
    st.sampled_from(sorted(STUDIES)),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0, np.nan])), min_size=4),
)
def test_one_person_more_or_less_moves_every_cell_by_one_at_most(kind: str, rows: list) -> None:
    study = STUDIES[kind]
    owners = sorted([0, 1, 2, *(owner for owner, _ in rows)])
    labels = [0.0, 1.0, np.nan, *(label for _, label in rows)]
    whole = grid(study, [80.0] * len(owners), labels, owners)
    less = person_counts(select(whole, np.array([0, 1])), study)
    moved = person_counts(whole, study) - less
    assert set(moved) <= {0.0, 1.0}
