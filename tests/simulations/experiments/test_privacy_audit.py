"""The audit lets the honest training pass and convicts broken ones."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import SettingsError
from consilium.shared.privacy.accounting import PrivacyEvent, epsilon_spent
from consilium.simulations.experiments import privacy_audit
from consilium.simulations.experiments.canary import (
    AttackedTraining,
    canary_statistic,
    honest_training,
)
from consilium.simulations.experiments.privacy_audit import (
    audit_study,
    audit_training,
    epsilon_lower_bound,
)
from tests.study_text import small_study

RUNS = 600


@pytest.fixture(autouse=True)
def _the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 95 % confidence an honest audit errs once in twenty: each time the tests see the same."""
    source = Keystream(b"audit".ljust(32, b"-"))
    monkeypatch.setattr(privacy_audit, "secrets", SimpleNamespace(token_bytes=source.bytes))


def study(rate: float = 0.3, **privacy: object):
    return small_study(
        rounds=4,
        model={"hidden": 4},
        training={"local_steps": 3, "sampling_rate": rate},
        privacy={"epsilon": 1.0, **privacy},
    )


def in_mode(mode: str):
    steps = 1 if mode == "distributed" else 3
    return small_study(
        rounds=4,
        model={"hidden": 4},
        training={"local_steps": steps, "sampling_rate": 0.3},
        privacy={"epsilon": 1.0, "mode": mode},
    )


def test_the_bound_finds_most_of_a_known_gaussians_epsilon_and_never_more():
    rng = np.random.default_rng(0)
    for sigma in (0.7, 1.5, 4.0):
        true = epsilon_spent(
            (PrivacyEvent(sampling_rate=1.0, noise_multiplier=sigma, steps=1),), 1e-5
        )
        low = epsilon_lower_bound(
            1 + sigma * rng.standard_normal(20_000),
            sigma * rng.standard_normal(20_000),
            delta=1e-5,
            confidence=0.95,
        )
        assert low < true
        assert low > (0.3 * true if sigma < 2 else 0.0)


def test_the_same_distribution_twice_proves_next_to_nothing():
    rng = np.random.default_rng(1)
    lows = [
        epsilon_lower_bound(
            rng.standard_normal(400), rng.standard_normal(400), delta=1e-5, confidence=0.95
        )
        for _ in range(40)
    ]
    # At 95 % confidence, a few may exceed the truth, which is 0.
    assert sum(low > 0 for low in lows) <= 6


def test_studies_without_privacy_and_too_few_runs_are_refused():
    with pytest.raises(SettingsError, match="mode none"):
        audit_study(study(mode="none"))
    with pytest.raises(SettingsError, match="at least 40"):
        audit_study(study(), runs=10)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["site", "distributed"])
def test_the_honest_training_is_not_refuted(mode):
    found = audit_study(in_mode(mode), runs=RUNS)
    assert not found.refuted
    assert 0 <= found.epsilon_low <= found.claimed <= 1.0


@pytest.mark.parametrize("mode", ["site", "distributed"])
def test_the_canarys_score_is_as_far_from_nobodys_as_the_noise_allows(mode):
    """Statistics shift by one clip norm; training by one for each step the canary is drawn in."""
    honest, _ = honest_training(in_mode(mode))
    quiet = replace(
        honest, noise_multiplier=1e-4, statistics_multiplier=1e-4, sampling_rate=1.0, rounds=2
    )
    statistic = canary_statistic(quiet)
    seen, unseen = (statistic(present, Keystream(bytes(32))) for present in (True, False))
    steps = 2 * in_mode(mode).training.local_steps
    assert (seen - unseen) * 1e-8 == pytest.approx(1 + steps, rel=0.02)


def no_noise(honest: AttackedTraining) -> AttackedTraining:
    return replace(honest, noise_multiplier=1e-6)


def clipped_per_stay(honest: AttackedTraining) -> AttackedTraining:
    """Each of the canary's stays counts as a patient of its own."""
    return replace(honest, patient_of_stay=tuple(range(12)), patients=20)


def noise_for_the_mean(honest: AttackedTraining) -> AttackedTraining:
    """Noise divided by the number of patients once too often."""
    return replace(honest, noise_multiplier=honest.noise_multiplier / honest.patients)


def statistics_uncharged(honest: AttackedTraining) -> AttackedTraining:
    """The normalisation statistics leave as they are, since nothing is charged for them."""
    return replace(honest, statistics_multiplier=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["site", "distributed"])
@pytest.mark.parametrize(
    "broken", [no_noise, clipped_per_stay, noise_for_the_mean, statistics_uncharged]
)
def test_broken_trainings_are_refuted(broken, mode):
    honest, claimed = honest_training(in_mode(mode))
    assert audit_training(broken(honest), claimed=claimed, runs=RUNS).refuted


@pytest.mark.slow
def test_sampling_that_is_not_as_accounted_is_refuted():
    """Accounted at 0.03, sampled at 1."""
    honest, claimed = honest_training(study(rate=0.03))
    assert audit_training(replace(honest, sampling_rate=1.0), claimed=claimed, runs=RUNS).refuted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_fresh_accountant_each_round_is_refuted():
    """The noise of one round's budget, released six hundred times."""
    one_round = small_study(
        rounds=1,
        model={"hidden": 4},
        training={"local_steps": 1, "sampling_rate": 1.0},
        privacy={"epsilon": 1.0},
    )
    honest, claimed = honest_training(one_round)
    assert audit_training(replace(honest, rounds=600), claimed=claimed, runs=100).refuted
