"""Noise shared among sites: sensitivity, its total, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import PrivacyError
from consilium.shared.privacy.accounting import epsilon_spent, plan
from consilium.shared.privacy.shared_noise import noise_share, noisy_sum
from consilium.shared.secure_sum.fixed_point import VectorSpec, decode, encode
from consilium.shared.study.definition import Study
from tests.study_text import small_study


def stream(number: int) -> Keystream:
    return Keystream(number.to_bytes(32, "little"))


def shared_study(sites: int = 7, **tables: dict[str, object]) -> Study:
    base = {
        "privacy": {"mode": "distributed", "epsilon": 3.0, "clip_norm": 0.5},
        "training": {"local_steps": 1, "sampling_rate": 0.25},
    }
    study = small_study(rounds=20, **{**base, **tables})
    return study.model_copy(update={"sites": tuple(f"s{i}" for i in range(sites))})


@pytest.mark.parametrize("sites", [5, 30, 200])
@pytest.mark.parametrize("parameters", [1, 5_000, 1_000_000])
def test_honest_survivors_bring_the_noise_that_is_charged(sites, parameters):
    study = shared_study(sites)
    share = noise_share(study, parameters)
    assert share.honest == study.minimum_sites - 1
    distance = share.scale * 0.5 + math.sqrt(parameters)
    # Less the variance 4 that the argument gives away, it is still the event's multiplier.
    brought = math.sqrt(share.honest * share.variance - 4) / distance
    assert brought >= share.noise_multiplier == plan(study).training_round.noise_multiplier
    if share.variance > 1000:
        assert brought <= 1.001 * share.noise_multiplier
        ideal = share.noise_multiplier * 0.5  # what one trusted curator would add
        summed = math.sqrt(share.honest * share.variance) / share.scale  # in units of gradient
        assert summed <= 1.04 * ideal
    VectorSpec(ring_bits=32, segments=(share.segment,)).check_headroom(sites, 1)


@settings(max_examples=25, deadline=None)
@given(
    parameters=st.integers(1, 60),
    seed=st.integers(0, 10_000),
    size=st.floats(0.01, 1e6),
)
def test_one_patient_moves_the_whole_numbers_by_no_more_than_accounted(parameters, seed, size):
    share = noise_share(shared_study(), parameters)
    rng = np.random.default_rng(seed)
    base = size * rng.standard_normal(parameters)
    patient = rng.standard_normal(parameters)
    patient *= 0.5 / np.linalg.norm(patient)
    # The same stream: the same rounding and noise for both.
    one, two = (noisy_sum(values, share, stream(seed)) for values in (base, base + patient))
    distance = share.scale * 0.5 + math.sqrt(parameters)
    assert np.linalg.norm((one - two).astype(float)) <= distance * (1 + 1e-9)


def test_the_sum_over_sites_decodes_to_the_gradients_with_the_promised_noise():
    study, parameters = shared_study(5), 40_000
    share = noise_share(study, parameters)
    spec = VectorSpec(ring_bits=32, segments=(share.segment,))
    gradient = np.linspace(-3, 3, parameters)
    total = np.zeros(parameters, np.uint32)
    for site in range(5):
        whole = noisy_sum(gradient, share, stream(site))
        total += encode({"update": whole}, spec, stream(100 + site))
    error = decode(total, spec)["update"][:] - 5 * gradient
    promised = math.sqrt(5 * share.variance) / share.scale
    assert error.std() == pytest.approx(promised, rel=0.02)
    assert abs(error.mean()) < 5 * promised / math.sqrt(parameters)


def test_a_sum_beyond_the_clamp_is_cut_and_one_that_is_not_finite_refused():
    share = noise_share(shared_study(), 3)
    huge = noisy_sum(np.array([1e12, -1e12, 0.0]), share, stream(1))
    assert np.all(np.abs(huge) <= share.segment.qmax)
    with pytest.raises(PrivacyError, match="not finite"):
        noisy_sum(np.array([0.0, np.nan, 0.0]), share, stream(1))


def test_rounds_keep_to_the_studys_budget():
    study = shared_study()
    costs = plan(study)
    assert epsilon_spent(costs.training_events(20), 1e-5) <= 3.0


def test_other_modes_and_small_rings_are_refused():
    with pytest.raises(PrivacyError, match="mode site"):
        noise_share(small_study(), 10)
    with pytest.raises(PrivacyError, match="ring_bits 16"):
        noise_share(shared_study(aggregation={"ring_bits": 16}), 1000)


def test_noise_that_does_not_fit_is_refused():
    share = noise_share(shared_study(), 100)
    narrow = replace(share, segment=replace(share.segment, linf=1 / share.scale))
    with pytest.raises(PrivacyError, match="does not fit"):
        noisy_sum(np.zeros(100), narrow, stream(1))
