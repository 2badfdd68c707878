"""Sybils, stand-ins and liars: which rosters a hospital accepts, and which it cannot be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.hospital.policy import Policy
from consilium.client.hospital.roster_trust import RosterTrust, summed_with, vouched_by_default
from consilium.shared.enrolment.vouchers import Vouchers
from consilium.shared.errors import PolicyError
from tests.client.vouching import (
    HOSPITALS,
    INVENTED,
    KEYS,
    lying,
    prints,
    roster,
    signed,
    study,
    trust,
)

OTHERS = HOSPITALS[1:8]


def vouched(known: RosterTrust, invented: tuple[str, ...] = ()) -> set[str]:
    shown = roster(invented=invented)
    return {one.site for one in known.standings(study(), shown) if one.vouched}


def test_a_coordinator_that_invents_all_other_hospitals_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"0 of the 7 .* below this site's bound of 6"):
        Policy().check_roster(study(), roster(invented=OTHERS), trust())


def test_a_roster_of_hospitals_that_we_telephoned_is_accepted() -> None:
    assert Policy().check_roster(study(), roster(), trust(*OTHERS)) is None


def test_as_many_unknown_as_may_collude_are_accepted_and_one_more_is_not() -> None:
    assert Policy().check_roster(study(), roster(), trust(*OTHERS[1:])) is None
    with pytest.raises(PolicyError, match=r"5 of the 7 .* bound of 6, .*\(east, south\)"):
        Policy().check_roster(study(), roster(), trust(*OTHERS[2:]))


def test_two_known_hospitals_are_not_enough_against_five_inventions() -> None:
    """Twice the threshold is no more than the sites and five inventions: two lists get signed."""
    invented = OTHERS[2:]
    assert 2 * study().threshold <= len(study().sites) + len(invented)
    known = trust("east", "south")
    with pytest.raises(PolicyError, match="2 of the 7"):
        Policy().check_roster(study(), roster(invented=invented), known)


@pytest.mark.parametrize(
    ("sites", "collusion", "needed"), [(3, 1, 2), (4, 1, 2), (5, 1, 3), (8, 1, 6), (8, 2, 5)]
)
def test_the_default_leaves_at_most_the_colluding_unknown_and_more_than_them_known(
    sites: int, collusion: int, needed: int
) -> None:
    chosen = study(sites, collusion=collusion)
    assert vouched_by_default(chosen) == needed == Policy().vouched_needed(chosen)
    assert sites - 1 - needed <= collusion < needed


def test_a_stand_in_for_a_hospital_that_we_checked_is_named_whatever_the_bound() -> None:
    known = trust(*OTHERS)
    for policy in (Policy(), Policy(vouched_at_least=0)):
        with pytest.raises(PolicyError, match="shows south under ANOTHER KEY than the one this"):
            policy.check_roster(study(), roster(invented=("south",)), known)


def test_a_stand_in_for_a_hospital_that_a_checked_one_knows_is_named() -> None:
    known = trust("east", given=(signed("east", "south"),))
    with pytest.raises(PolicyError, match="south under ANOTHER KEY than the one east checked"):
        Policy(vouched_at_least=0).check_roster(study(), roster(invented=("south",)), known)


def test_our_own_check_outweighs_what_others_say_of_another_key() -> None:
    known = trust(*OTHERS, given=(lying("east", "south"),))
    assert Policy().check_roster(study(), roster(), known) is None
    assert "south" in vouched(known)


def test_one_liar_among_those_we_checked_adds_nobody() -> None:
    known = trust("east", given=(lying("east", *OTHERS[1:]),))
    assert vouched(known, invented=OTHERS[1:]) == {"east"}
    assert vouched(trust("east", given=(signed("east", "south"),))) == {"east"}


def test_two_that_we_checked_are_believed_where_one_may_collude() -> None:
    given = (signed("east", "hill", "lake"), signed("south", "hill"))
    assert vouched(trust("east", "south", given=given)) == {"east", "south", "hill"}


def test_the_word_of_a_hospital_that_we_have_not_checked_counts_for_nothing() -> None:
    given = tuple(signed(name, "hill") for name in ("south", "west"))
    assert vouched(trust("east", given=(*given, signed("east", "south", "west")))) == {"east"}
    lists = (lying("south", "hill"), lying("west", "hill"))
    assert Policy(vouched_at_least=0).check_roster(study(), roster(), trust(given=lists)) is None


def test_the_list_of_a_stand_in_counts_for_nothing() -> None:
    forged = tuple(
        Vouchers.signed(name, INVENTED[name], prints("hill", keys=INVENTED), issued=9)
        for name in ("east", "south")
    )
    assert "hill" not in vouched(trust("east", "south", given=forged), invented=("hill",))


def test_a_withdrawn_hospital_is_unknown_and_so_are_those_that_only_it_knew() -> None:
    given = (signed("east", "hill"), signed("south", "hill"))
    assert "hill" in vouched(trust("east", "south", given=given))
    assert vouched(trust("south", given=given)) == {"south"}


def test_only_the_hospitals_of_the_own_group_are_counted() -> None:
    """A site hides among its own group; hospitals of other groups add nothing to that."""
    nine = study(9, groups=3)
    own_group, others = HOSPITALS[1:3], HOSPITALS[3:9]
    assert summed_with(nine, "north") == set(own_group)
    with pytest.raises(PolicyError, match="0 of the 2"):
        Policy().check_roster(nine, roster(9), trust(*others))
    assert Policy().check_roster(nine, roster(9), trust(*own_group)) is None


def test_the_bound_is_the_hospitals_to_set() -> None:
    assert Policy(vouched_at_least=0).check_roster(study(), roster(), trust()) is None
    with pytest.raises(PolicyError, match=r"1 of the 7 .* bound of 2"):
        Policy(vouched_at_least=2).check_roster(study(), roster(), trust("east"))


@pytest.mark.slow
@given(st.data())
def test_with_as_many_liars_as_may_collude_no_invention_is_vouched_for(data: st.DataObject) -> None:
    collusion = data.draw(st.integers(0, 2))
    invented = data.draw(st.sets(st.sampled_from(OTHERS)))
    real = [name for name in OTHERS if name not in invented]
    checked = data.draw(st.sets(st.sampled_from(real))) if real else set()
    liars = set(data.draw(st.permutations(sorted(checked)))[:collusion])
    given = []
    for name in checked:
        honest = prints(*data.draw(st.sets(st.sampled_from(real))))
        lies = prints(*invented, keys=INVENTED) if name in liars else {}
        said = {who: print_ for who, print_ in (honest | lies).items() if who != name}
        given.append(Vouchers.signed(name, KEYS[name], said, issued=1))
    known = trust(*checked, given=tuple(given))
    chosen, shown = study(collusion=collusion), roster(invented=tuple(invented))
    standings = known.standings(chosen, shown)
    assert not {one.site for one in standings if one.vouched} & invented
    try:
        Policy().check_roster(chosen, shown, known)
    except PolicyError:
        return
    assert len(invented) <= collusion
