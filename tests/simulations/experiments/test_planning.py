"""The trade-off table says what the run will do."""

from dataclasses import replace

import pytest

from consilium.shared.errors import PrivacyError
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import parameter_count
from consilium.shared.privacy.accounting import epsilon_spent, plan
from consilium.shared.privacy.shared_noise import noise_share
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.shared.study.input_names import feature_names
from consilium.simulations.experiments.planning import (
    choices,
    cost_of_noise,
    margins,
    noise_carried,
    sum_plan,
)

STUDY = parse_study("""
name = "planned"
title = "Planned"
rounds = 20
sites = ["a", "b", "c", "d"]
[data]
source = "synthetic-icu"
label = "y"
[model]
hidden = 8
[training]
local_steps = 1
sampling_rate = 0.25
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
""")


def own(study: Study, patients: int = 500):
    found = choices(study, patients=patients)
    return next(c for c in found if (c.epsilon, c.rounds) == (study.privacy.epsilon, study.rounds))


def test_the_studys_own_line_has_the_noise_it_will_be_run_with() -> None:
    costs = plan(STUDY)
    assert costs is not None
    assert own(STUDY).noise_multiplier == costs.training_round.noise_multiplier
    expected = costs.training_round.noise_multiplier / (0.25 * 500 * 2)  # 2 = sqrt(4 sites)
    assert own(STUDY).step_noise == pytest.approx(expected)


def test_shared_noise_is_that_of_all_sites_divided_by_all_patients() -> None:
    study = with_changes(STUDY, privacy={"mode": "distributed", "clip_norm": 5.0})
    parameters = parameter_count(build_model(study, len(feature_names(study)), seed=0))
    share = noise_share(study, parameters)
    total = (4 * share.variance) ** 0.5 / share.scale / 5.0
    assert own(study).step_noise == pytest.approx(total / (0.25 * 500 * 4))
    assert own(study).step_noise < own(STUDY).step_noise


@pytest.mark.slow
def test_less_epsilon_and_more_rounds_cost_more_noise_and_more_patients_less() -> None:
    found = {(c.epsilon, c.rounds): c.noise_multiplier for c in choices(STUDY, patients=500)}
    assert set(found) == {(e, r) for e in (8.0, 3.0, 1.0) for r in (10, 20, 40)}
    assert found[(8.0, 20)] < found[(3.0, 20)] < found[(1.0, 20)]
    assert found[(3.0, 10)] < found[(3.0, 20)] < found[(3.0, 40)]
    assert own(STUDY, 5000).step_noise == pytest.approx(own(STUDY, 500).step_noise / 10)


@pytest.mark.slow
def test_a_study_without_privacy_is_planned_as_if_it_had_it() -> None:
    plain = with_changes(STUDY, privacy={"mode": "none"})
    assert choices(plain, patients=500, epsilons=(2.0,))[0].epsilon == 2.0


def test_the_plan_of_a_large_study_tells_its_neighbours_and_how_often_rounds_are_void() -> None:
    names = tuple(f"s{i}" for i in range(250))
    large = sum_plan(with_changes(STUDY, study={"sites": names}, privacy={"mode": "none"}))
    assert large.neighbours == 62
    assert large.sharing_threshold == 33
    assert list(large.void_probability) == [13, 25, 50, 75]
    assert large.void_probability[13] < large.void_probability[50] < 1e-6
    small = sum_plan(STUDY)
    assert small.neighbours == 3
    assert small.void_probability == {}


def test_a_fixed_noise_costs_what_the_plan_would_have_spent_on_it() -> None:
    costs = plan(STUDY)
    assert costs is not None
    spent = cost_of_noise(STUDY, costs.training_round.noise_multiplier)
    assert spent[20] == costs.epsilon
    assert list(spent) == [10, 20, 40]
    assert spent[10] < spent[20] < spent[40]
    assert cost_of_noise(STUDY, 1.0)[20] > cost_of_noise(STUDY, 2.0)[20]
    assert cost_of_noise(with_changes(STUDY, privacy={"mode": "none"}), 2.0)[20] > 0
    with pytest.raises(PrivacyError, match="noise_multiplier -1"):
        cost_of_noise(STUDY, -1.0)


def test_tolerating_a_dropout_is_paid_in_noise_that_all_sites_carry() -> None:
    shared = with_changes(STUDY, privacy={"mode": "distributed"})
    assert noise_carried(STUDY) == 1.0
    assert noise_carried(shared) == 2.0
    assert noise_carried(with_changes(shared, aggregation={"minimum_sites": 4})) == pytest.approx(
        4 / 3
    )


def test_each_margin_of_collusion_has_its_price_in_noise_and_in_epsilon() -> None:
    shared = with_changes(STUDY, privacy={"mode": "distributed", "calibration_rounds": 1})
    found = {(m.minimum_sites, m.colluding): m for m in margins(shared)}
    assert list(found) == [(4, 0), (3, 0), (4, 1), (3, 1), (4, 2)]  # dearest last
    trusting, own = found[(4, 0)], found[(3, 1)]
    assert (trusting.noise, trusting.counted) == (1.0, 4)
    assert trusting.epsilon == plan(shared).epsilon
    assert (own.own, trusting.own) == (True, False)
    assert (own.counted, own.noise) == (2, pytest.approx(2**0.5))
    whole = plan(shared)
    weaker = [
        replace(event, noise_multiplier=event.noise_multiplier / own.noise)
        for event in (whole.statistics, whole.training, whole.calibration)
    ]
    assert own.epsilon == epsilon_spent((whole.statistics, *weaker[1:]), whole.delta)
    assert own.epsilon > found[(4, 1)].epsilon > trusting.epsilon
    assert margins(STUDY) == []


def test_a_median_of_groups_is_noisier_than_a_mean() -> None:
    sites = tuple("abcdefghi")
    study = with_changes(STUDY, study={"sites": sites}, privacy={"mode": "distributed"})
    grouped = with_changes(study, aggregation={"groups": 3})
    whole = choices(study, patients=500, epsilons=(8.0,))[0]
    median = choices(grouped, patients=500, epsilons=(8.0,))[0]
    assert median.noise_multiplier == whole.noise_multiplier
    assert median.step_noise > whole.step_noise * 1.25
