"""The two bounds on epsilon hold what they promise around the accountant, and at what is known."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from consilium.shared.privacy.accounting import PrivacyEvent, epsilon_spent
from consilium.simulations.experiments.epsilon_bounds import attack_epsilon, renyi_epsilon

DELTA = 1e-5


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Dong, Roth & Su 2022, corollary 1, solved for epsilon."""

    def excess(epsilon: float) -> float:
        shifted = norm.cdf(-epsilon / mu - mu / 2) * math.exp(epsilon)
        return float(norm.cdf(-epsilon / mu + mu / 2) - shifted - delta)

    return float(brentq(excess, 0.0, 400.0))


@pytest.mark.slow
@settings(max_examples=20)
@given(
    z=st.floats(0.5, 8.0),
    rate=st.floats(0.05, 1.0),
    steps=st.integers(1, 200),
    beside=st.lists(st.floats(1.0, 10.0), max_size=2),
)
def test_the_accountant_lies_between_the_two_bounds(
    z: float, rate: float, steps: int, beside: list[float]
) -> None:
    events = [PrivacyEvent(sampling_rate=rate, noise_multiplier=z, steps=steps)]
    events += [PrivacyEvent(sampling_rate=1.0, noise_multiplier=b, steps=1) for b in beside]
    spent = epsilon_spent(tuple(events), DELTA)
    releases = (tuple(beside), (z, rate, steps))
    low, high = attack_epsilon(*releases, DELTA), renyi_epsilon(*releases, DELTA)
    assert low <= spent * (1 + 1e-3) + 1e-6
    assert spent <= high * (1 + 1e-3) + 1e-6


@pytest.mark.parametrize("multipliers", [(1.0,), (0.3,), (4.573, 2.0), (0.05,)])
def test_without_sampling_the_attack_is_the_gaussians_own_epsilon(
    multipliers: tuple[float, ...],
) -> None:
    mu = math.sqrt(sum(z**-2 for z in multipliers))
    expected = gaussian_epsilon(mu, DELTA)
    assert attack_epsilon(multipliers, None, DELTA) == pytest.approx(expected, rel=2e-3)
    assert attack_epsilon(multipliers, None, DELTA) <= expected * (1 + 1e-9)


def test_a_release_without_noise_has_no_bound() -> None:
    assert attack_epsilon((0.0,), None, DELTA) == math.inf
    assert renyi_epsilon((), (0.0, 0.5, 3), DELTA) == math.inf


def test_nothing_seen_proves_nothing() -> None:
    assert attack_epsilon((math.inf,), None, DELTA) == 0.0
    assert attack_epsilon((), (1.0, 0.0, 10), DELTA) == 0.0
