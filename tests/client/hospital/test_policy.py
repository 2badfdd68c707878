"""What a hospital allows is decided by the hospital, before any record is read."""

from datetime import datetime, time

import pytest

from consilium.client.hospital.policy import Policy
from consilium.client.hospital.working_hours import WorkingHours
from consilium.shared.errors import PolicyError
from tests.study_text import small_study


def test_the_default_policy_allows_an_ordinary_private_study() -> None:
    assert Policy().check_study(small_study()) is None


@pytest.mark.parametrize(
    ("policy", "changes", "sentence"),
    [
        (Policy(), {"privacy": {"mode": "none"}}, "requires it"),
        (Policy(), {"privacy": {"epsilon": 8.1}}, "epsilon 8.1 is above this site's bound of 8"),
        (Policy(), {"privacy": {"delta": 1e-4}}, "delta 0.0001 is above this site's bound"),
        (Policy(minimum_sites=4), {}, "sums of 3 sites, below this site's bound of 4"),
    ],
)
def test_a_study_beyond_the_policy_is_refused_with_the_bound(policy, changes, sentence) -> None:
    with pytest.raises(PolicyError, match=sentence):
        policy.check_study(small_study(**changes))


def test_public_data_may_be_allowed_without_privacy() -> None:
    policy = Policy(allow_without_privacy=True)
    assert policy.check_study(small_study(privacy={"mode": "none"})) is None


NIGHT = WorkingHours(days=frozenset({"mon"}), start=time(20), end=time(6))


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (Policy(studies=frozenset()), r"is not among the 0 that this site's policy allows"),
        (Policy(tasks=frozenset({"regression"})), "task 'binary' is not one of regression"),
        (Policy(tasks=frozenset()), "is not one of none that"),
        (Policy(sources=frozenset({"omop", "fhir"})), "source 'tables' is not one of fhir, omop"),
        (Policy(variables=frozenset({"temp"})), "the study uses hr, which this site's policy"),
    ],
)
def test_what_a_study_uses_is_the_hospitals_to_allow(policy, sentence) -> None:
    with pytest.raises(PolicyError, match=sentence):
        policy.check_study(small_study())


def test_a_study_within_narrow_bounds_is_allowed() -> None:
    study = small_study()
    policy = Policy(
        studies=frozenset({study.digest}),
        tasks=frozenset({"binary"}),
        sources=frozenset({"tables"}),
        variables=frozenset({"hr", "temp"}),
    )
    assert policy.check_study(study) is None
    with pytest.raises(PolicyError, match="is not among the 1 that"):
        policy.check_study(small_study(rounds=11))


def test_outside_its_hours_a_site_says_when_it_takes_part() -> None:
    policy = Policy(hours=NIGHT)
    assert policy.check_time(datetime(2030, 1, 7, 21)) is None
    assert Policy().check_time(datetime(2030, 1, 7, 12)) is None
    with pytest.raises(
        PolicyError, match=r"from 20:00 to 06:00 \(mon\), and its clock shows Mon 12"
    ):
        policy.check_time(datetime(2030, 1, 7, 12))
