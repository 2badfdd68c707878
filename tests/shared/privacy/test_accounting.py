"""Accounting against Google's and Opacus's accountants, calibration, and the study's plan."""

import math

import dp_accounting
import pytest
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant

from consilium.shared.errors import PrivacyError
from consilium.shared.privacy.accounting import (
    PrivacyEvent,
    calibrate_noise,
    epsilon_spent,
    plan,
)
from tests.study_text import small_study

DELTA = 1e-5
GRID = [
    (q, sigma, steps)
    for q in (0.001, 0.01, 0.1, 0.25, 0.9, 1.0)
    for sigma in (0.7, 2.0, 30.0)
    for steps in (1, 100, 3000)
    if q * math.sqrt(steps) / sigma < 7  # beyond, epsilon is above 60, and Google's needs minutes
]


def event(q: float, sigma: float, steps: int = 1) -> PrivacyEvent:
    return PrivacyEvent(sampling_rate=q, noise_multiplier=sigma, steps=steps)


def google(*events: PrivacyEvent, interval: float = 1e-4) -> float:
    accountant = PLDAccountant(value_discretization_interval=interval)
    for part in events:
        gaussian = dp_accounting.GaussianDpEvent(part.noise_multiplier)
        accountant.compose(
            dp_accounting.PoissonSampledDpEvent(part.sampling_rate, gaussian), part.steps
        )
    return accountant.get_epsilon(DELTA)


@pytest.mark.slow
@pytest.mark.parametrize(("q", "sigma", "steps"), GRID)
def test_epsilon_agrees_with_googles_accountant(q, sigma, steps):
    ours = epsilon_spent((event(q, sigma, steps),), DELTA)
    theirs = google(event(q, sigma, steps), interval=min(1e-4, max(ours, 1e-3) / 2000))
    assert ours == pytest.approx(theirs, rel=0.01, abs=1e-4)
    assert ours >= theirs * (1 - 2e-3) - 1e-6


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.25, 3.0, 100), (0.01, 0.8, 1000)])
def test_epsilon_lies_between_googles_and_opacuss_upper_bound(q, sigma, steps):
    ours = epsilon_spent((event(q, sigma, steps),), DELTA)
    opacus = PRVAccountant()
    opacus.history = [(sigma, q, steps)]
    assert google(event(q, sigma, steps)) * (1 - 1e-4) <= ours
    assert ours <= opacus.get_epsilon(DELTA, eps_error=0.01)


def test_different_events_compose():
    events = (event(1.0, 6.0), event(0.1, 2.0, 100), event(1.0, 20.0, 3))
    assert epsilon_spent(events, DELTA) == pytest.approx(google(*events), rel=1e-3)
    assert epsilon_spent(events, DELTA) == epsilon_spent(events[::-1], DELTA)


def test_plain_gaussians_match_the_exact_formula():
    # Balle & Wang 2018, theorem 8: delta(epsilon) of one Gaussian of sensitivity 1.
    from scipy.stats import norm

    for sigma in (0.5, 3.0, 400.0):
        epsilon = epsilon_spent((event(1.0, sigma),), DELTA)
        delta = norm.cdf(0.5 / sigma - epsilon * sigma)
        delta -= pow(2.718281828459045, epsilon) * norm.cdf(-0.5 / sigma - epsilon * sigma)
        assert delta == pytest.approx(DELTA, rel=5e-3)
        assert delta <= DELTA * (1 + 1e-6)


@settings(max_examples=15, deadline=None)
@given(
    q=st.floats(0.005, 1.0),
    sigma=st.floats(1.0, 50.0),
    steps=st.integers(1, 400),
)
def test_another_release_never_lowers_epsilon(q, sigma, steps):
    events = (event(q, sigma, steps),)
    assert epsilon_spent((*events, event(1.0, 5.0)), DELTA) >= epsilon_spent(events, DELTA)


def test_nothing_costs_nothing_and_too_little_noise_costs_infinity():
    assert epsilon_spent((), DELTA) == 0.0
    assert epsilon_spent((event(1.0, 0.01),), DELTA) == float("inf")
    assert epsilon_spent((event(1e-7, 50.0),), DELTA) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [{"sampling_rate": 0.0}, {"sampling_rate": 1.1}, {"noise_multiplier": 0.0}, {"steps": 0}],
)
def test_impossible_events_are_refused(wrong):
    good = {"sampling_rate": 0.1, "noise_multiplier": 1.0, "steps": 1}
    with pytest.raises(PrivacyError, match=next(iter(wrong))):
        PrivacyEvent(**{**good, **wrong})


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5])
def test_impossible_deltas_are_refused(delta):
    with pytest.raises(PrivacyError, match="delta"):
        epsilon_spent((event(0.1, 1.0),), delta)


@settings(max_examples=12, deadline=None)
@given(
    epsilon=st.sampled_from([0.05, 0.5, 1.0, 3.0, 8.0]),
    q=st.sampled_from([0.01, 0.1, 1.0]),
    steps=st.sampled_from([1, 30, 500]),
)
def test_calibrated_noise_keeps_to_the_budget_and_uses_it(epsilon, q, steps):
    beside = (event(1.0, 40.0 / epsilon),)
    noise = calibrate_noise(epsilon, DELTA, q, steps, beside)
    spent = epsilon_spent((*beside, event(q, noise, steps)), DELTA)
    assert 0.995 * epsilon <= spent <= epsilon


def test_calibration_refuses_a_budget_that_is_gone():
    with pytest.raises(PrivacyError, match="already spent"):
        calibrate_noise(0.5, DELTA, 0.1, 10, (event(1.0, 1.0),))


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("rounds", [1, 25])
def test_a_plan_spends_the_studys_epsilon_and_no_more(epsilon, rounds):
    study = small_study(
        rounds=rounds,
        privacy={"epsilon": epsilon},
        evaluation={"validation_fraction": 0.2, "every": 4},
    )
    costs = plan(study)
    whole = costs.training_events(rounds)
    assert costs.training_events(0) == (costs.statistics,)
    assert 0.995 * epsilon <= epsilon_spent(whole, DELTA) == costs.epsilon <= epsilon
    assert costs.epsilon_after(0) == pytest.approx(0.1 * epsilon, rel=2e-3)
    assert costs.training == costs.training_round.repeated(rounds)
    # Every fourth round from the first, and the finished model.
    assert costs.evaluations == -(-rounds // 4) + 1
    metrics = costs.metrics.repeated(costs.evaluations)
    assert 0.995 * epsilon <= epsilon_spent((metrics,), DELTA) <= epsilon


def test_a_study_without_privacy_has_no_plan():
    assert plan(small_study(privacy={"mode": "none"})) is None
