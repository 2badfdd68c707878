"""What a choice would cost on private records: Google's accountant gives the same."""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant, compute_epsilon

from consilium.shared.privacy.accounting import PrivacyEvent, epsilon_spent, plan
from consilium.shared.study.definition import with_changes
from consilium.simulations.experiments.selection_price import (
    ORDERS,
    _epsilon,
    _renyi,
    price_of_setting,
    price_sentences,
    selected_renyi,
    selection_price,
)
from tests.simulations.api.small_hospitals import study

PRIVATE = with_changes(
    study(), study={"schema": 2}, privacy={"mode": "site", "epsilon": 2.0}
)  # with calibration rounds, which are charged, too


@pytest.mark.parametrize("mean", [1.5, 10.0, 300.0])
def test_selecting_the_best_costs_what_googles_accountant_says(mean: float) -> None:
    event = PrivacyEvent(sampling_rate=0.2, noise_multiplier=3.0, steps=40)
    base = dp_accounting.PoissonSampledDpEvent(0.2, dp_accounting.GaussianDpEvent(3.0))
    runs = dp_accounting.SelfComposedDpEvent(base, 40)
    best = RdpAccountant(ORDERS)
    best.compose(dp_accounting.dp_event.RepeatAndSelectDpEvent(runs, mean, 0))
    epsilon, _ = compute_epsilon(ORDERS, selected_renyi(_renyi((event,)), mean), 1e-5)
    assert epsilon == pytest.approx(best.get_epsilon(1e-5), rel=1e-4)
    assert _epsilon(_renyi((event,)), 1e-5) == pytest.approx(
        compute_epsilon(ORDERS, _renyi((event,)), 1e-5)[0], rel=1e-9
    )


def test_one_run_alone_costs_nothing_more() -> None:
    renyi = np.linspace(0.1, 1, len(ORDERS))
    assert np.array_equal(selected_renyi(renyi, 1.0), renyi)


def test_all_runs_add_up_by_the_accountant_in_use() -> None:
    costs = plan(PRIVATE)
    assert costs.calibrations
    run = costs.training_events(PRIVATE.rounds, costs.calibrations)
    one = (*(event.repeated(2) for event in run), costs.metrics)
    delta = PRIVATE.privacy.delta
    assert price_of_setting(PRIVATE, 3) == pytest.approx(epsilon_spent(one, delta))
    assert price_of_setting(PRIVATE, 3) > PRIVATE.privacy.epsilon
    price = selection_price([PRIVATE] * 4, PRIVATE, 3)
    whole = (*one * 4, *run)
    assert price.composed == pytest.approx(epsilon_spent(whole, delta))
    assert (price.settings, price.folds, price.delta) == (4, 3, delta)
    assert price.run <= PRIVATE.privacy.epsilon
    more = selection_price([PRIVATE] * 2000, PRIVATE, 3)  # more than the accountant can hold
    assert math.isfinite(more.composed)
    assert price.selected < more.selected < more.composed  # many are cheaper by selection
    said = " ".join(price_sentences(price))
    assert f"epsilon {price.composed:.3g} at delta 1e-05" in said
    assert "Papernot and Steinke 2022" in said


def test_a_study_without_privacy_is_priced_as_if_it_had_its_epsilon() -> None:
    assert price_of_setting(study(), 2) == price_of_setting(
        with_changes(study(), privacy={"mode": "site"}), 2
    )
