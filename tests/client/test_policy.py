"""What a hospital allows is decided by the hospital, before any record is read."""

import pytest

from client.policy import Policy
from shared.errors import PolicyError
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
