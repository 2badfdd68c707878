"""What the count of persons costs: one person moves it by no more than the noise was made for."""

import numpy as np
import pytest

from consilium.shared.errors import StudyError
from consilium.shared.privacy.accounting import affordable_rounds, epsilon_spent, plan
from consilium.shared.rounds.feasibility import (
    feasibility_cells,
    feasibility_noise,
    feasibility_sensitivity,
    feasibility_weights,
    most_persons,
)
from consilium.shared.study.definition import parse_canonical, parse_study, with_changes
from tests.study_text import TEXT, small_study

ASKED = {"feasibility": {"epsilon": 0.5}}
TASKS = {
    "binary": {},
    "multiclass": {"kind": "multiclass", "outputs": 5},
    "multilabel": {"kind": "multilabel", "outputs": 3},
    "regression": {"kind": "regression"},
}


@pytest.mark.parametrize("task", TASKS)
def test_a_person_in_every_cell_moves_the_weighted_counts_by_the_whole_sensitivity(task) -> None:
    study = small_study(**ASKED, task=TASKS[task])
    assert len(feasibility_cells(study)) == 1 + study.task.outputs + len(study.variables)
    weights, sensitivity = feasibility_weights(study), feasibility_sensitivity(study)
    assert np.linalg.norm(weights * 1.0) == pytest.approx(sensitivity)
    of_one_person = np.linalg.norm(1 / feasibility_noise(study))
    assert 1 / of_one_person == pytest.approx(plan(study).feasibility.noise_multiplier)


def test_many_variables_leave_the_number_of_persons_its_precision() -> None:
    variable = small_study().variables["hr"]
    study = small_study(**ASKED).model_copy(
        update={"variables": {f"v{number}": variable for number in range(81)}}
    )
    few, many = feasibility_noise(small_study(**ASKED)), feasibility_noise(study)
    assert many[0] < 2.1 * few[0]
    assert many[-1] == pytest.approx(3 * many[0])  # the fourth root of 81


@pytest.mark.parametrize("mode", ["site", "distributed"])
def test_the_study_keeps_to_its_epsilon_with_the_count_in_it(mode: str) -> None:
    private = {"mode": mode, "epsilon": 2.0}
    tables = {"privacy": private, "training": {"local_steps": 1}}
    study = small_study(**ASKED, **tables, evaluation={"validation_fraction": 0.2})
    costs = plan(study)
    assert epsilon_spent(costs.counted, costs.delta) == pytest.approx(0.5, rel=1e-3)
    assert costs.epsilon_after(study.rounds) <= 2.0
    assert costs.epsilon_after(study.rounds) == pytest.approx(2.0, rel=1e-3)
    held_out = (*costs.counted, costs.metrics.repeated(costs.evaluations))
    assert epsilon_spent(held_out, costs.delta) == pytest.approx(2.0, rel=1e-3)
    assert epsilon_spent(held_out, costs.delta) <= 2.0
    assert affordable_rounds(study, 1) == study.rounds


def test_a_study_that_asks_for_no_count_has_no_noise_for_it_and_the_same_digest_as_ever() -> None:
    study = parse_study(TEXT)
    assert b"feasibility" not in study.to_canonical_json()
    assert not feasibility_noise(study).any()
    assert plan(study).counted == ()
    asked = parse_study(f"{TEXT}\n[feasibility]\n")
    assert asked.feasibility.epsilon == 0.25
    assert asked.digest != study.digest
    assert parse_canonical(asked.to_canonical_json()) == asked


def test_without_privacy_the_count_is_exact() -> None:
    assert not feasibility_noise(small_study(**ASKED, privacy={"mode": "none"})).any()


def test_a_count_that_leaves_nothing_to_training_is_refused_in_one_sentence() -> None:
    asked = parse_study(f"{TEXT}\n[feasibility]\n")
    with pytest.raises(StudyError, match=r"epsilon 7.3 must be below 7.2, what .* lower it"):
        with_changes(asked, feasibility={"epsilon": 7.3})


def test_a_size_in_one_digit_stands_for_all_persons_of_training_and_validation() -> None:
    study = small_study(**ASKED, evaluation={"validation_fraction": 0.5})
    assert most_persons(study, 100) == 400  # 149 train at most, about as many validate
