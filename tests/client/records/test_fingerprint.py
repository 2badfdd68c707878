"""A fingerprint changes with persons, stays and outcomes, and is nothing without its key."""

from dataclasses import replace

import numpy as np
import pytest

from consilium.client.records.cohort import Cohort
from consilium.client.records.features import TimeGrid
from consilium.client.records.fingerprint import cohort_fingerprint
from consilium.simulations.experiments.canary import cohort_of
from tests.study_text import small_study

STUDY, KEY = small_study(), b"k" * 32
PERSONS = (("ann", (0.0,)), ("bob", (1.0, 0.0)), ("cem", (0.0,)))


def grid(persons=PERSONS) -> TimeGrid:
    y_N = np.array([label for _, labels in persons for label in labels], dtype=np.float32)
    return TimeGrid(
        value_NTV=np.zeros((len(y_N), STUDY.data.steps, 1), dtype=np.float32),
        mask_NT=np.ones((len(y_N), STUDY.data.steps), dtype=np.bool_),
        y_N=y_N,
        patient_N=np.array([n for n, (_, labels) in enumerate(persons) for _ in labels], dtype=int),
        patient_ids=tuple(name for name, _ in persons),
    )


def of(persons=PERSONS, *, key: bytes = KEY, study=STUDY) -> bytes:
    return cohort_fingerprint(cohort_of(grid(persons)), study, key=key)


def test_order_of_persons_and_stays_and_who_validates_change_nothing() -> None:
    swapped = (("cem", (0.0,)), ("bob", (0.0, 1.0)), ("ann", (0.0,)))
    assert of(swapped) == of()
    parted = Cohort(
        training=grid(PERSONS[:1]), validation=grid(PERSONS[1:]), report=cohort_of(grid()).report
    )
    assert cohort_fingerprint(parted, STUDY, key=KEY) == of()
    other_values = replace(grid(), value_NTV=grid().value_NTV + 1)
    assert cohort_fingerprint(cohort_of(other_values), STUDY, key=KEY) == of()


@pytest.mark.parametrize(
    "moved",
    [
        PERSONS[:2],
        (*PERSONS, ("dee", (0.0,))),
        (*PERSONS[:2], ("dee", (0.0,))),
        (("ann", (1.0,)), *PERSONS[1:]),
        (("ann", (0.0, 0.0)), *PERSONS[1:]),
        (("ann", (1.0,)), ("bob", (0.0, 0.0)), ("cem", (0.0,))),
        (("an", (0.0,)), *PERSONS[1:]),
    ],
)
def test_a_person_a_stay_or_an_outcome_changes_it_also_where_all_numbers_stay(moved) -> None:
    assert of(moved) != of()


def test_another_key_or_another_study_gives_an_unrelated_fingerprint() -> None:
    found = {of(), of(key=b"l" * 32), of(study=small_study(rounds=11)), of((), key=KEY)}
    assert {len(each) for each in found} == {32}
    assert len(found) == 4
    bits = np.unpackbits(np.frombuffer(of(key=b"l" * 32), np.uint8)) != np.unpackbits(
        np.frombuffer(of(), np.uint8)
    )
    assert 70 < bits.sum() < 186  # of 256: as unlike as chance makes them
