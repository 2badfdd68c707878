import re

import pytest

from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.errors import StudyError
from tests.in_process import STUDY_DIGEST, identities, parameters
from tests.rosters import sized_roster


@pytest.mark.parametrize(
    ("count", "changes", "sentence"),
    [
        (5, {"study_digest": bytes(31)}, "study digest must have 32 bytes"),
        (5, {"run_id": bytes(15)}, "identifier must have 16 bytes"),
        (5, {"minimum_sites": 2, "threshold": 2, "collusion": 0}, "below 3 a sum shows"),
        (5, {"minimum_sites": 6}, "the roster has 5 sites"),
        (5, {"threshold": 5, "minimum_sites": 4}, "the threshold is 5, above minimum_sites 4"),
        (5, {"collusion": -1}, "cannot be negative"),
        (5, {"minimum_sites": 4, "collusion": 3}, "must leave at least 2"),
        (
            8,
            {"threshold": 4, "collusion": 0},
            "must exceed 8 sites plus 0 colluding; raise it to 5",
        ),
        (9, {"threshold": 7, "minimum_sites": 8, "collusion": 5}, "raise it to 8"),
        (9, {"threshold": 5, "collusion": 1}, "must exceed 9 sites plus 1 colluding"),
        (9, {"threshold": 1}, "must exceed 9 sites plus 1 colluding"),
        (5, {"roster": Roster(parameters(5).roster.members)}, "lacks the sites' declared sizes"),
    ],
)
def test_parameters_without_their_guarantee_are_refused(count, changes, sentence):
    with pytest.raises(StudyError, match=re.escape(sentence)):
        parameters(count, **changes)


def test_a_roster_of_two_is_refused():
    with pytest.raises(StudyError, match="minimum_sites is 3, and the roster has 2 sites"):
        parameters(2, collusion=0)


@pytest.mark.parametrize(("count", "tolerated"), [(3, 0), (4, 1), (5, 1), (9, 2), (10, 3)])
def test_three_sites_tolerate_no_dropout_and_four_one(count, tolerated):
    assert parameters(count).dropouts_tolerated == tolerated


def test_the_hash_depends_on_every_parameter():
    base = parameters(9)
    keys = identities(9)
    swapped = sized_roster(dict(sorted(keys.items(), reverse=True)), STUDY_DIGEST)
    other_key = sized_roster(keys | {"site-000": IdentityKey.generate()}, STUDY_DIGEST)
    other_size = sized_roster(keys, STUDY_DIGEST, site_004=8)
    hashes = {
        base.study_hash,
        *(
            parameters(9, **changes).study_hash
            for changes in (
                {"study_digest": bytes(32)},
                {"run_id": bytes(16)},
                {"roster": swapped},
                {"roster": other_key},
                {"threshold": 6},
                {"minimum_sites": 8},
                {"collusion": 0},
                {"degree": 4},
                {"roster": other_size},
            )
        ),
    }
    assert len(hashes) == 10
    assert parameters(9).study_hash == base.study_hash


def test_shares_are_taken_at_the_place_in_the_roster_from_one():
    assert [parameters(4).point(site) for site in parameters(4).roster] == [1, 2, 3, 4]


def test_in_the_complete_graph_everyone_is_in_everyones_circle():
    agreed = parameters(5)
    assert agreed.complete
    assert agreed.sharing_threshold == agreed.threshold
    assert all(agreed.circle(site) == set(agreed.roster) for site in agreed.roster)
    assert agreed.supported(["site-003", "site-001"]) == {"site-001", "site-003"}


def test_in_a_sparse_graph_circles_are_neighbourhoods_and_mutual():
    agreed = parameters(9, degree=6)
    assert not agreed.complete
    assert agreed.sharing_threshold == 5
    for site in agreed.roster:
        assert len(agreed.circle(site)) == 7
        assert site in agreed.circle(site)
        assert all(site in agreed.circle(peer) for peer in agreed.circle(site))


def test_sites_left_without_support_take_others_with_them():
    agreed = parameters(9, degree=6)
    lonely = agreed.roster.names[0]
    rest = set(agreed.roster) - set(sorted(agreed.circle(lonely) - {lonely})[:3])
    supported = agreed.supported(rest)
    assert lonely not in supported
    assert all(len(agreed.circle(site) & supported) >= 5 for site in supported)
    assert agreed.supported(agreed.roster.names) == set(agreed.roster)
