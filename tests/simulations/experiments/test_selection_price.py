"""What a choice would cost on private records: Google's accountant gives the same."""

import dp_accounting
import numpy as np
import pytest
from dp_accounting import rdp

from consilium.shared.privacy.accounting import epsilon_spent, plan
from consilium.shared.study.definition import with_changes
from consilium.simulations.experiments.selection_price import (
    ORDERS,
    price_of_setting,
    price_sentences,
    selected_renyi,
    selection_price,
)
from tests.simulations.api.small_hospitals import study

PRIVATE = with_changes(study(), privacy={"mode": "site", "epsilon": 2.0})


@pytest.mark.parametrize("mean", [1.5, 10.0, 300.0])
def test_selecting_the_best_costs_what_googles_accountant_says(mean: float) -> None:
    base = dp_accounting.PoissonSampledDpEvent(0.2, dp_accounting.GaussianDpEvent(3.0))
    runs = dp_accounting.SelfComposedDpEvent(base, 40)
    one, best = rdp.RdpAccountant(ORDERS), rdp.RdpAccountant(ORDERS)
    one.compose(runs)
    best.compose(dp_accounting.RepeatAndSelectDpEvent(runs, mean, 0))
    found = selected_renyi(np.array(one._rdp), mean)
    # Theirs also uses that the divergence grows with the order, which no epsilon here gains by.
    assert rdp.compute_epsilon(ORDERS, found, 1e-5)[0] == pytest.approx(best.get_epsilon(1e-5))


def test_one_run_alone_costs_nothing_more() -> None:
    renyi = np.linspace(0.1, 1, len(ORDERS))
    assert np.array_equal(selected_renyi(renyi, 1.0), renyi)


def test_all_runs_add_up_by_the_accountant_in_use() -> None:
    costs = plan(PRIVATE)
    one = (costs.statistics.repeated(2), costs.training.repeated(2), costs.metrics)
    delta = PRIVATE.privacy.delta
    assert price_of_setting(PRIVATE, 3) == pytest.approx(epsilon_spent(one, delta))
    assert price_of_setting(PRIVATE, 3) > PRIVATE.privacy.epsilon
    price = selection_price([PRIVATE] * 4, PRIVATE, 3)
    whole = (*one * 4, costs.statistics, costs.training)
    assert price.composed == pytest.approx(epsilon_spent(whole, delta))
    assert (price.settings, price.folds, price.delta) == (4, 3, delta)
    assert price.run <= PRIVATE.privacy.epsilon
    more = selection_price([PRIVATE] * 40, PRIVATE, 3)
    assert price.selected < more.selected < more.composed  # many are cheaper by selection
    said = " ".join(price_sentences(price))
    assert f"epsilon {price.composed:.3g} at delta 1e-05" in said
    assert "Papernot and Steinke 2022" in said


def test_a_study_without_privacy_is_priced_as_if_it_had_its_epsilon() -> None:
    assert price_of_setting(study(), 2) == price_of_setting(
        with_changes(study(), privacy={"mode": "site"}), 2
    )
