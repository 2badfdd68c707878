"""Real rounds find whose garbage voids sums: enough sites in each, no update masked twice."""

from dataclasses import replace

import pytest

from consilium.server.secure_sum.group_sums import GroupSums
from consilium.server.study.checkpoints import load_checkpoint, save_checkpoint
from consilium.server.study.run import check_hope
from consilium.shared.errors import RoundVoidError, StudyEndedError
from consilium.shared.secure_sum.messages import Action, MaskedUpdate
from consilium.shared.secure_sum.packing import pack, unpack
from consilium.shared.secure_sum.tail import TAIL
from tests.in_process import (
    CONFIGURATION,
    MODEL,
    SPEC,
    STUDY_DIGEST,
    InProcessSites,
    LocalSite,
    identities,
    names,
    parameters,
    plain_sum,
)
from tests.rosters import sized_roster
from tests.server.secure_sum.test_misbehaving_sites import LIAR, another_secret, misdealing
from tests.server.study.test_checkpoints import checkpoint
from tests.study_text import small_study


def off_by_one(masked: MaskedUpdate, length: int, ring_bits: int) -> MaskedUpdate:
    """The masked update with its last check coordinate one higher."""
    vector = unpack(masked.packed, length, ring_bits).copy()
    vector[-1] += 1
    return replace(masked, packed=pack(vector, ring_bits))


def of_groups(folder, *sizes: int) -> tuple[GroupSums, InProcessSites]:
    """Groups of these sizes, in the order of the sites' names."""
    every, keys, agreed = names(sum(sizes)), identities(sum(sizes)), []
    for size in sizes:
        group, every = every[:size], every[size:]
        roster = sized_roster({site: keys[site] for site in group}, STUDY_DIGEST)
        agreed.append(parameters(size, roster=roster))
    sites = InProcessSites(
        [
            LocalSite(site, keys[site], group, folder / f"{site}.sqlite", threads=1)
            for group in agreed
            for site in group.roster
        ]
    )
    return GroupSums.secure(agreed, sites, timeout_s=1.0), sites


def garbage_of(sites: InProcessSites, *liars: str) -> None:
    def alter(site: str, action: Action, reply: bytes) -> bytes:
        if site in liars and action is Action.UPDATE:
            masked = MaskedUpdate.from_bytes(reply)
            return off_by_one(masked, SPEC.length + TAIL, SPEC.ring_bits).to_bytes()
        return reply

    sites.alter = alter


def rounds_of(sums: GroupSums, sites: InProcessSites, known, first: int, count: int):
    """Run rounds; return what is known after, and by round (sites asked to mask, survivors)."""
    done = []
    for number in range(first, first + count):
        sites.asked.clear()
        survivors, given, garbage = (), (), ()
        try:
            totals = sums.sum(
                round=number, layout=lambda _: SPEC, model=MODEL, configuration=CONFIGURATION,
                check=lambda _: None, known=known,
            )  # fmt: skip
            survivors = given = totals.survivors
            garbage = totals.garbage
            for total in totals.totals:
                expected = plain_sum(sites, total.survivors, number)
                assert (total.ring_total == expected).all()
        except RoundVoidError as error:
            garbage = error.garbage
        masked = [site for site, action in sites.asked if action is Action.UPDATE]
        assert len(masked) == len(set(masked))  # no update is masked twice in a round
        done.append((tuple(sorted(masked)), survivors))
        known = sums.learned(known, given=given, garbage=garbage)
    return known, done


@pytest.mark.slow
def test_garbage_in_a_check_coordinate_is_traced_by_real_rounds_of_enough_sites(tmp_path) -> None:
    sums, sites = of_groups(tmp_path, 7)
    garbage_of(sites, "site-003")
    sums.open(round=1)
    known, done = rounds_of(sums, sites, sums.nothing_known(), 1, 14)
    assert known[0].left_out == ("site-003",)
    assert not known[0].narrowing
    assert all(len(asked) >= 5 for asked, _ in done)
    assert [bool(survivors) for _, survivors in done].count(False) <= 5
    assert done[-1] == (tuple(sorted(set(sites.names()) - {"site-003"})),) * 2


def test_a_dealer_of_wrong_shares_is_named_and_left_out_at_once(tmp_path) -> None:
    sums, sites = of_groups(tmp_path, 7)
    sums.open(round=1)
    with misdealing(another_secret):
        known, done = rounds_of(sums, sites, sums.nothing_known(), 1, 1)
    assert known[0].left_out == (LIAR,)
    assert [len(survivors) for _, survivors in done] == [0]
    _, done = rounds_of(sums, sites, known, 2, 2)
    assert [len(survivors) for _, survivors in done] == [6, 6]


@pytest.mark.slow
def test_each_group_finds_its_own_and_the_others_go_on(tmp_path) -> None:
    sums, sites = of_groups(tmp_path, 5, 5, 5)
    garbage_of(sites, "site-001")
    sums.open(round=1)
    known, done = rounds_of(sums, sites, sums.nothing_known(), 1, 12)
    assert [group.left_out for group in known] == [("site-001",), (), ()]
    assert all(len(survivors) >= 10 for _, survivors in done)  # never was the round void
    assert all(set(names(15)[5:]) <= set(survivors) for _, survivors in done)
    assert len(done[-1][1]) == 14


def test_a_group_that_cannot_go_on_is_not_asked_and_most_groups_must(tmp_path) -> None:
    sums, sites = of_groups(tmp_path, 3, 4, 4)
    garbage_of(sites, "site-000")
    sums.open(round=1)
    known, done = rounds_of(sums, sites, sums.nothing_known(), 1, 9)
    assert [group.hopeless for group in known] == [True, False, False]
    assert done[-1] == (tuple(names(11)[3:]),) * 2
    state = replace(checkpoint().state, groups=known)
    check_hope(state)
    lost = replace(known[1], hopeless=True, left_out=("site-003", "site-004"))
    with pytest.raises(StudyEndedError, match="2 of 4 sites remain where a sum needs 3"):
        check_hope(replace(state, groups=(known[0], lost, known[2])))


@pytest.mark.slow
def test_a_run_that_crashes_while_narrowing_goes_on_with_what_it_had_learned(tmp_path) -> None:
    sums, sites = of_groups(tmp_path, 7)
    garbage_of(sites, "site-005")
    sums.open(round=1)
    known, _ = rounds_of(sums, sites, sums.nothing_known(), 1, 2)
    assert known[0].narrowing
    saved = replace(checkpoint(), state=replace(checkpoint().state, groups=known), resting=False)
    save_checkpoint(tmp_path, saved)
    found = load_checkpoint(tmp_path)
    assert found is not None
    study = small_study(rounds=30)
    state = found.resumed(study).state  # the round that had begun is skipped and teaches nothing
    assert state.groups == known
    assert state.next_round == saved.state.next_round + 1
    sums.open(round=4, known=state.groups)
    known, done = rounds_of(sums, sites, state.groups, 4, 10)
    assert known[0].left_out == ("site-005",)
    assert [bool(survivors) for _, survivors in done].count(False) <= 4
