"""What the report says is protected: exact, and no more than the threat model keeps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.simulations.report.privacy_statement import most_found, most_right, statement
from tests.simulations.report.made_up import demo_study, record_of


def told(**tables: dict[str, object]) -> str:
    study = demo_study(**tables)
    return " ".join(s for _, sentences in statement(study, record_of(study)) for s in sentences)


@given(epsilon=st.floats(0.01, 20))
def test_the_bounds_are_reached_by_randomised_response(epsilon: float) -> None:
    """The mechanism that tells the truth with odds e^epsilon is the worst that DP allows."""
    honest = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert most_right(epsilon, 0.0) == pytest.approx(honest)
    assert most_found(epsilon, 0.0, 1 - honest) == pytest.approx(honest)


@given(epsilon=st.floats(0.0, 700), delta=st.floats(0, 0.01), alarm=st.floats(0.0001, 0.5))
def test_bounds_are_shares_that_grow_with_epsilon(
    epsilon: float, delta: float, alarm: float
) -> None:
    assert 0.5 <= most_right(epsilon, delta) <= 1.01
    assert alarm <= most_found(epsilon, delta, alarm) + 1e-12
    assert most_found(epsilon, delta, alarm) <= min(most_found(epsilon + 1, delta, alarm), 1.0)


def test_shared_noise_is_claimed_against_the_coordinator_and_some_sites_only() -> None:
    shared = told(aggregation={"tolerated_collusion": 2, "minimum_sites": 6})
    assert "against the coordinator together with up to 2 hospitals" in shared
    assert "the noise counted on is that of 4 honest hospitals among the 6 of a sum" in shared
    assert "against everybody" not in shared


def test_a_sites_own_noise_is_claimed_against_everybody() -> None:
    own = told(privacy={"mode": "site"})
    assert "against everybody" in own
    assert "Hospitals share the noise" not in own


def test_without_privacy_nothing_is_claimed_for_a_patient() -> None:
    nothing = told(privacy={"mode": "none"})
    assert "There is no differential privacy" in nothing
    assert "with epsilon" not in nothing


def test_the_coordinator_is_not_trusted_to_keep_to_the_protocol() -> None:
    assert "The coordinator may lie" in told()
    assert "keeps to the protocol" not in told()


def test_what_hospitals_keep_is_said_and_whose_risks_evaluation_counted() -> None:
    assert "for itself: it is in no message" not in told()
    one_step = {"local_steps": 1}
    mine = {"mode": "site"}
    head = told(personalisation={"parts": ["head"]}, privacy=mine, training=one_step)
    assert "Each hospital keeps the model's head (its maps to the outputs) for itself" in head
    assert "under its own model; evaluation by sums counts the same." in head
    second = told(personalisation={"ditto": {"pull": 0.1}}, privacy=mine, training=one_step)
    assert "counts the global model's risks" in second
    assert "no more to be passed on than their records" in second
