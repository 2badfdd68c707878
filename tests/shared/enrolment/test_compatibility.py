"""One minor version apart works; more says who upgrades to what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.enrolment.compatibility import disagreement

MINOR = st.integers(0, 50)


@pytest.mark.parametrize(
    ("coordinator", "site"),
    [
        ("0.1.0", "0.1.0"),
        ("0.2.0", "0.1.7"),
        ("0.1.7", "0.2.0"),
        ("1.4", "1.3.0"),
        ("1.4.0rc1", "1.5"),
        ("0+unknown", "0+unknown"),
    ],
)
def test_versions_one_minor_apart_work_together(coordinator, site):
    assert disagreement(coordinator, site) is None


@pytest.mark.parametrize(
    ("coordinator", "site", "told"),
    [
        ("0.3.0", "0.1.9", "upgrade the site to 0.2 or later"),
        ("0.1.0", "0.3.0", "upgrade the coordinator to 0.2 or later"),
        ("2.0.0", "1.9.0", "upgrade the site to 2.0 or later"),
        ("1.0", "0+unknown", "'0+unknown' is not one of a released build"),
        ("", "1.0", "'' is not one of a released build"),
    ],
)
def test_versions_further_apart_say_who_upgrades_to_what(coordinator, site, told):
    assert told in disagreement(coordinator, site)


@given(MINOR, MINOR)
def test_the_rule_is_the_same_from_both_ends_and_its_remedy_works(ours, theirs):
    told = disagreement(f"3.{ours}.0", f"3.{theirs}.0")
    assert (told is None) == (abs(ours - theirs) <= 1)
    if told:
        needed = told.split(" to ")[1].split(" or ")[0]
        assert disagreement(f"3.{max(ours, theirs)}.0", needed) is None
