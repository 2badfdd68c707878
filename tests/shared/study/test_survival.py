"""Labels of intervals from times, one patient at a time by the rule's words."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.errors import DataError, StudyError
from consilium.shared.study.definition import parse_canonical, with_changes
from consilium.shared.study.survival import by_each_cut, interval_labels, interval_names
from consilium.shared.study.training import Task
from tests.hostile.neighbours import BASE

TASK = Task(kind="survival", cuts=(10.0, 20.0, 40.0))
LATE = Task(kind="survival", cuts=(20.0, 40.0), start=10.0)
NAN = math.nan


def label(time: float, event: float, task: Task = TASK) -> list[float]:
    found = interval_labels(np.array([time]), np.array([event]), task, "a table")
    return found[0].tolist()


@pytest.mark.parametrize(
    ("time", "event", "expected"),
    [
        (0, 1, [1, NAN, NAN]),
        (10, 1, [1, NAN, NAN]),
        (10.5, 1, [0, 1, NAN]),
        (40, 1, [0, 0, 1]),
        (41, 1, [0, 0, 0]),
        (0, 0, [NAN, NAN, NAN]),
        (4, 0, [NAN, NAN, NAN]),
        (5, 0, [0, NAN, NAN]),
        (10, 0, [0, NAN, NAN]),
        (14, 0, [0, NAN, NAN]),
        (15, 0, [0, 0, NAN]),
        (40, 0, [0, 0, 0]),
        (math.inf, 0, [0, 0, 0]),
        (NAN, NAN, [NAN, NAN, NAN]),
    ],
)
def test_a_time_and_its_event_give_the_labels_that_are_known(time, event, expected) -> None:
    assert np.array_equal(label(time, event), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("time", "event", "expected"),
    [(0, 1, [NAN, NAN]), (10, 1, [NAN, NAN]), (10, 0, [NAN, NAN]), (11, 1, [1, NAN]),
     (30, 0, [0, 0]), (15, 0, [0, NAN])],
)  # fmt: skip  # reads as one
def test_whoever_did_not_reach_the_start_has_no_label(time, event, expected) -> None:
    assert np.array_equal(label(time, event, LATE), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("time", "event", "said"),
    [
        (-1, 1, "a table: 1 stays have a negative time; correct them"),
        (3, 2, "neither 0 .lost. nor 1"),
        (3, 0.5, "neither 0 .lost. nor 1"),
        (NAN, 1, "have a time or an event, and not both"),
        (3, NAN, "have a time or an event, and not both"),
        (math.inf, 1, "at no finite time"),
    ],
)
def test_what_is_no_time_with_an_event_is_refused_in_a_sentence(time, event, said) -> None:
    with pytest.raises(DataError, match=said):
        label(time, event)


@given(st.integers(0, 200), st.booleans())
def test_labels_are_zeros_then_at_most_one_event_then_unknown(quarter: int, event: bool) -> None:
    found = label(quarter / 4, float(event))
    first = next((k for k, one in enumerate(found) if one != 0), len(found))
    assert all(math.isnan(one) for one in found[first + 1 :])
    by_cut = by_each_cut(np.array([found], dtype=np.float32))[0]
    for cut, known in zip(TASK.cuts, by_cut, strict=True):
        came, lived = event and quarter / 4 <= cut, quarter / 4 > cut
        if not math.isnan(known):
            assert known == came or not event
            assert known == 1 or lived or not event


def test_outputs_are_the_intervals_and_are_named() -> None:
    assert TASK.outputs == 3
    assert interval_names(TASK) == ("by 10 days", "by 20 days", "by 40 days")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"kind": "survival", "cuts": [10]}, "at least 2 intervals"),
        ({"kind": "survival", "outputs": 2, "cuts": [20, 10]}, "must ascend"),
        ({"kind": "survival", "outputs": 2, "cuts": [5, 10], "start": 5.0}, "must ascend"),
        ({"kind": "survival", "outputs": 3, "cuts": [5, 10]}, "the number of cuts, 2"),
        ({"kind": "survival", "outputs": 2, "cuts": [5, 10], "per_step": True}, "per_step"),
        ({"cuts": [5, 10]}, "are for survival"),
        (
            {"kind": "survival", "outputs": 2, "cuts": [5, 10], "loss": {"kind": "focal"}},
            "a survival task has none",
        ),
    ],
)
def test_a_task_that_is_no_survival_is_refused_in_a_sentence(task, said) -> None:
    with pytest.raises(StudyError, match=said):
        with_changes(BASE, task=task)


def test_keys_of_survival_are_part_of_its_digest_and_of_no_others() -> None:
    assert b"time_unit" not in BASE.to_canonical_json()
    study = with_changes(BASE, task={"kind": "survival", "outputs": 2, "cuts": [5.0, 10.0]})
    later = with_changes(study, task={"start": 1.0})
    assert study.digest != later.digest
    assert parse_canonical(later.to_canonical_json()) == later


def test_survival_is_calibrated_by_default_from_schema_3_on_and_elsewhere_if_asked() -> None:
    """A study of schema 2 that was approved without calibration rounds still has none."""
    task = {"kind": "survival", "outputs": 2, "cuts": [5.0, 10.0]}
    by_schema = {
        schema: with_changes(BASE, study={"schema": schema}, task=task) for schema in (1, 2, 3)
    }
    assert {schema: study.calibration_rounds for schema, study in by_schema.items()} == {
        1: 0, 2: 0, 3: 2,
    }  # fmt: skip
    asked = with_changes(by_schema[2], privacy={"calibration_rounds": 1})
    assert asked.calibration_rounds == 1
    assert asked.digest != by_schema[2].digest
    assert with_changes(by_schema[3], privacy={"mode": "none"}).calibration_rounds == 0


def test_windows_elsewhere_than_at_the_start_do_not_go_with_times_from_the_start() -> None:
    study = with_changes(BASE, task={"kind": "survival", "outputs": 2, "cuts": [5.0, 10.0]})
    with pytest.raises(StudyError, match="counts from the start of a stay"):
        with_changes(study, data={"before_event": {"gap_h": 2}})
