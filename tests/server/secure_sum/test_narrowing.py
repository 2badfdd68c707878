"""Who sends garbage is found by leaving sites out in turn, never below the minimum of a sum."""

import itertools
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.server.secure_sum.narrowing import MOST_SEEN, Narrowing

Lies = Callable[[random.Random, frozenset[str]], bool]


def sites_of(count: int) -> tuple[str, ...]:
    return tuple(f"site-{number:02d}" for number in range(count))


def least(sites: int, culprits: int = 1) -> int:
    """M as the study sets it: above two thirds, and as far above a half as c colluders need."""
    return max(2 * sites // 3 + 1, (sites + culprits) // 2 + 1, 3)


def always(_: random.Random, asked: frozenset[str]) -> bool:
    return bool(asked)


def half(rng: random.Random, _: frozenset[str]) -> bool:
    return rng.random() < 0.5


def play(known: Narrowing, guilty: set[str], lies: Lies, rng: random.Random, rounds: int):
    """Play rounds; return what is known, the outcome of each, and the lengths of incidents."""
    outcomes, incidents = [], []
    for _ in range(rounds):
        if known.hopeless:
            break
        asked = frozenset(known.asked)
        assert len(asked) >= known.minimum
        void = any(lies(rng, asked) for _ in sorted(guilty & asked))
        outcomes.append(not void)
        if known.narrowing:
            incidents[-1] += 1
        elif void:
            incidents.append(0)
        known = known.after(garbage=[asked]) if void else known.after(given=asked)
    return known, outcomes, incidents


def test_nothing_is_remembered_while_all_goes_well() -> None:
    known = Narrowing(sites=sites_of(7), minimum=5)
    assert known.after(given=known.asked) is known
    assert known.after() is known
    assert known.asked == known.sites


@pytest.mark.slow
@given(
    sites=st.integers(4, 30),
    more=st.integers(0, 4),
    culprits=st.integers(0, 3),
    how_often=st.sampled_from([1.0, 0.7, 0.3, 0.05]),
    seed=st.integers(0, 2**32),
)
def test_never_fewer_than_the_minimum_and_never_more_rounds_than_the_bound(
    sites, more, culprits, how_often, seed
) -> None:
    rng, names = random.Random(seed), sites_of(sites)
    minimum = min(sites, least(sites) + more)
    known = Narrowing(sites=names, minimum=minimum)
    guilty = set(rng.sample(names, min(culprits, sites)))
    # `play` asserts the minimum in every round
    known, _, incidents = play(known, guilty, lambda r, _: r.random() < how_often, rng, 25)
    assert max(incidents, default=0) <= known.most_rounds <= 2 * math.log2(sites) + 4
    assert known.hopeless or len(known.left_out) <= sites - minimum
    assert known.rounds == 0 or known.narrowing


@pytest.mark.sampled(1)
@pytest.mark.parametrize("sites", [4, 5, 6, 7, 8, 10, 13, 16, 21, 30])
def test_one_that_always_lies_is_left_out_for_good_and_nobody_else_in_about_log2_rounds(
    sites,
) -> None:
    names = sites_of(sites)
    lost = []
    for guilty in names[:: max(1, sites // 8)]:
        known = Narrowing(sites=names, minimum=least(sites))
        known, outcomes, incidents = play(known, {guilty}, always, random.Random(0), 40)
        assert known.left_out == (guilty,)
        assert len(incidents) == 1
        lost.append(outcomes.count(False))
        assert all(outcomes[incidents[0] + 1 :])  # no round was void after the incident
    assert sum(lost) / len(lost) <= math.log2(sites) + 1.5  # the first one included


def rate(sites: int, culprits: int, lies: Lies, tries: int, rounds: int) -> tuple[float, float]:
    """Return the part of tries that end without all culprits, and with an honest site left out."""
    found = wrong = 0
    for seed in range(tries):
        rng, names = random.Random(seed), sites_of(sites)
        guilty = set(rng.sample(names, culprits))
        known = Narrowing(sites=names, minimum=least(sites, culprits), culprits=culprits)
        known, _, _ = play(known, guilty, lies, rng, rounds)
        found += guilty <= set(known.left_out)
        wrong += not set(known.left_out) <= guilty
    return found / tries, wrong / tries


def test_one_that_lies_in_every_other_round_is_found_too() -> None:
    found, wrong = rate(10, 1, half, tries=20, rounds=60)
    assert found >= 0.9
    assert wrong <= 0.1


def test_two_that_always_lie_are_mostly_found_among_sixteen() -> None:
    """Where they are not, no round without both came within the bound, and the study ends."""
    found, wrong = rate(16, 2, always, tries=12, rounds=60)
    assert found >= 0.9
    assert wrong <= 0.4


def test_one_glitch_leaves_nobody_out_for_long() -> None:
    known = Narrowing(sites=sites_of(10), minimum=7)
    known = known.after(garbage=[known.asked])
    assert known.narrowing
    for _ in range(known.most_rounds + 1):
        known = known.after(given=known.asked)
    assert not known.narrowing
    assert known.left_out == ()


def test_a_named_dealer_of_wrong_shares_is_left_out_at_once_and_asked_again_never() -> None:
    known = Narrowing(sites=sites_of(7), minimum=5).after(garbage=[{"site-03"}])
    assert known.left_out == ("site-03",)
    for _ in range(3):
        known = known.after(given=known.asked)
    assert (known.left_out, known.narrowing) == (("site-03",), False)


def test_of_a_site_and_the_one_in_whose_presence_alone_it_lies_one_is_left_out() -> None:
    """The two cannot be told apart; done again with another site, it is the liar's turn."""
    framed = caught = 0
    for seed in range(20):
        rng, names = random.Random(seed), sites_of(10)
        liar, *victims = rng.sample(names, 4)
        known = Narrowing(sites=names, minimum=7)
        for victim in victims[:2]:
            known, _, _ = play(known, {liar}, lambda _, asked, v=victim: v in asked, rng, 20)
            if victim == victims[0]:
                framed += liar not in known.left_out
        caught += liar in known.left_out or known.hopeless
        assert len(set(known.left_out) - {liar}) <= 1 or known.hopeless
    assert framed <= 15
    assert caught >= 15


def test_without_room_to_leave_anybody_out_the_study_cannot_go_on() -> None:
    known = Narrowing(sites=sites_of(3), minimum=3)
    for _ in range(known.most_rounds + 1):
        assert known.asked == known.sites
        known = known.after(garbage=[known.asked])
    assert known.hopeless
    assert set(known.left_out) == set(known.sites)


def test_more_convicted_than_can_be_done_without_end_the_study_and_are_named() -> None:
    known = Narrowing(sites=sites_of(4), minimum=3)
    known = known.after(garbage=[{"site-00"}]).after(garbage=[{"site-01"}])
    assert (known.hopeless, known.left_out) == (True, ("site-00", "site-01"))


def test_an_absent_site_is_counted_out_when_others_are_left_out() -> None:
    """Leaving out as many as otherwise would void the round for lack of sites."""
    known = Narrowing(sites=sites_of(10), minimum=7)
    there = frozenset(known.sites) - {"site-09", "site-08"}
    known = known.after(garbage=[there])
    assert known.absent == {"site-08", "site-09"}
    assert len(set(known.asked) - known.absent) >= 7
    assert known.after(given=known.asked).absent == frozenset()


def test_only_sets_of_sites_that_can_mask_each_other_are_asked() -> None:
    """In a sparse graph of masks not every set of enough sites can give a sum."""
    known = Narrowing(sites=sites_of(10), minimum=7)
    all_of_them = frozenset(known.sites)
    known = known.after(garbage=[all_of_them], possible=lambda sites: sites == all_of_them)
    assert frozenset(known.asked) == all_of_them
    assert len(Narrowing(sites=known.sites, minimum=7).after(garbage=[all_of_them]).asked) < 10


@given(seed=st.integers(0, 2**32))
def test_what_is_known_survives_json_and_goes_on_the_same(seed) -> None:
    rng, names = random.Random(seed), sites_of(8)
    known, _, _ = play(Narrowing(sites=names, minimum=6), {names[2]}, half, rng, rng.randint(1, 6))
    again = Narrowing.from_json(json.loads(json.dumps(known.to_json())))
    assert again == known
    if not known.hopeless:
        assert again.after(garbage=[again.asked]) == known.after(garbage=[known.asked])


def test_outcomes_are_counted_and_the_oldest_forgotten() -> None:
    names = sites_of(30)
    known = Narrowing(sites=names, minimum=21).after(garbage=[names])
    known = known.after(given=known.asked)
    known = known.after(given=known.seen[-1].sites)
    assert [one.times for one in known.seen] == [1, 2]
    quiet = replace(known, narrowing=False)
    for pair in itertools.islice(itertools.combinations(names, 2), MOST_SEEN + 5):
        quiet = quiet.after(given=[site for site in names if site not in pair])
    assert len(quiet.seen) == MOST_SEEN
    assert quiet.seen[-1].sites == frozenset(names) - set(pair)
