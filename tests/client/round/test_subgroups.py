"""Who belongs to which group, and what a hospital lets out about its own patients."""

import numpy as np
import pytest

from consilium.client.records.features import TimeGrid
from consilium.client.round.subgroups import group_blocks, members_of, stays_by_group
from consilium.shared.rounds.contents import edges_from_bytes
from consilium.shared.rounds.patient_groups import group_edges, patient_groups, subgroups
from tests.study_text import small_study

AGE = {"unit": "a", "low": 0, "high": 120, "center": 60, "spread": 15, "role": "static"}
SEX = {"unit": "1", "low": 0, "high": 1, "center": 0.5, "spread": 0.5, "role": "static"}
STUDY = small_study(
    variables={"age": AGE, "sex": SEX},
    privacy={"mode": "none"},
    evaluation={
        "per_site": True,
        "subgroups": {
            "age": {"cuts": [50, 70]},
            "sex": {"cuts": [0.5], "names": ["female", "male"]},
        },
    },
)
NAMES = [group.name for group in patient_groups(STUDY)]
PRIVATE = STUDY.model_copy(update={"privacy": STUDY.privacy.model_copy(update={"mode": "site"})})


def grid(age_N: list[float], sex_N: list[float]) -> TimeGrid:
    stays = len(age_N)
    value_NTV = np.full((stays, 3, len(STUDY.variables)), np.nan, dtype=np.float32)
    value_NTV[:, 1, -2], value_NTV[:, 2, -1] = age_N, sex_N
    value_NTV[:, 2, -2] = 33  # a later value does not count
    return TimeGrid(
        value_NTV=value_NTV,
        mask_NT=np.ones((stays, 3), dtype=np.bool_),
        y_N=np.zeros(stays, dtype=np.float32),
        patient_N=np.arange(stays),
        patient_ids=tuple(map(str, range(stays))),
    )


def test_groups_are_everybody_then_parts_by_variable_then_sites() -> None:
    assert [
        "all", "age below 50", "age 50 to 70", "age 70 and above", "female", "male",
        *STUDY.sites,
    ] == NAMES  # fmt: skip
    assert patient_groups(small_study()) == ()


def test_a_cut_belongs_to_the_part_above_it_and_the_unknown_to_none() -> None:
    people = grid([49.9, 50, 70, np.nan], [0, 1, np.nan, np.nan])
    people.value_NTV[3, 2, -2] = np.nan
    found = [members_of(people, STUDY, group).tolist() for group in subgroups(STUDY)]
    assert found == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, False],
        [True, False, False, False],
        [False, True, False, False],
    ]


@pytest.mark.parametrize("own", [False, True])
def test_a_hospital_writes_its_figures_at_its_own_place_and_only_if_it_releases_them(
    own: bool,
) -> None:
    people = grid([60.0] * 9, [1.0] * 9)
    site = STUDY.sites[1]
    told = stays_by_group(people, STUDY, site=site, own=own, smallest=5)
    released = {name for name, stays_N in zip(NAMES, told, strict=True) if stays_N is not None}
    assert released == {"all", "age 50 to 70", "male"} | ({site} if own else set())


def test_a_group_of_too_few_patients_is_left_out_unless_noise_hides_it() -> None:
    people = grid([60.0] * 6 + [80.0] * 4, [0.0, 1.0] * 5)
    told = stays_by_group(people, STUDY, site="none", own=False, smallest=5)
    assert [stays_N is not None for stays_N in told[:6]] == [True, False, True, False, True, True]
    noisy = stays_by_group(people, PRIVATE, site="none", own=False, smallest=5)
    assert all(stays_N is not None for stays_N in noisy[:6])


def test_blocks_hold_the_sum_of_risks_and_the_weights_by_outcome_and_bin() -> None:
    edges_L = group_edges(STUDY, edges_from_bytes(b"", STUDY))
    risks = np.array([[0.1], [0.2], [0.9]])
    blocks = group_blocks(
        risks,
        np.array([0, np.nan, 1], dtype=np.float32),
        np.array([1.0, 1.0, 0.5]),
        np.ones(3, dtype=np.bool_),
        [np.ones(3, dtype=np.bool_), None, np.array([False, False, True])],
        STUDY,
        edges_L,
    )
    bins = len(edges_L) + 1
    assert blocks[:, 0] == pytest.approx([0.1 + 0.45, 0, 0.45])
    assert blocks[:, 1 : 1 + bins].sum(axis=1) == pytest.approx([1, 0, 0])
    assert blocks[:, 1 + bins :].sum(axis=1) == pytest.approx([0.5, 0, 0.5])
