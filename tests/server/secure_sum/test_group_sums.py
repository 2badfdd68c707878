"""Several secure sums a round: groups fail by themselves, and the median outvotes a bad one."""

import numpy as np
import pytest

from consilium.server.secure_sum.group_sums import GroupSums
from consilium.server.study.aggregation import across_groups
from consilium.shared.errors import RoundVoidError
from consilium.shared.secure_sum.messages import Action
from tests.in_process import (
    CONFIGURATION,
    LOST,
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

GROUPS = [names(12)[:4], names(12)[4:8], names(12)[8:]]


@pytest.fixture
def grouped(tmp_path):
    """Three groups of four sites."""
    keys = identities(12)
    rosters = [sized_roster({s: keys[s] for s in group}, STUDY_DIGEST) for group in GROUPS]
    agreed = [parameters(4, roster=roster) for roster in rosters]
    sites = InProcessSites(
        [
            LocalSite(site, keys[site], group, tmp_path / f"{site}.sqlite", threads=1)
            for group in agreed
            for site in group.roster
        ]
    )
    sums = GroupSums.secure(agreed, sites, timeout_s=1.0)
    sums.open(round=1)
    return sums, sites


def run(sums, round=1, check=lambda total: None):
    return sums.sum(
        round=round,
        layout=lambda group: SPEC,
        model=MODEL,
        configuration=CONFIGURATION,
        check=check,
    )


def test_every_group_gives_its_own_exact_sum(grouped):
    sums, sites = grouped
    result = run(sums)
    assert result.survivors == tuple(names(12))
    assert result.weight == 12 * 7
    assert result.refusals == {}
    for total, group in zip(result.totals, GROUPS, strict=True):
        assert total.survivors == tuple(group)
        assert (total.ring_total == plain_sum(sites, total.survivors, 1)).all()
    whole = sum(total.parts["counts"][:] for total in result.totals)
    assert (result.part("counts") == whole).all()
    assert set(result.bytes_up) == set(result.bytes_down) == set(names(12))
    assert set(result.seconds) == {"keys", "update", "agree", "unmask", "remove"}


def test_a_group_without_enough_sites_is_left_out_and_named(grouped):
    sums, sites = grouped
    sites.faults = {(site, Action.UPDATE): LOST for site in GROUPS[1][:2]}
    result = run(sums)
    assert result.survivors == tuple(GROUPS[0] + GROUPS[2])
    assert set(result.refusals) == set(GROUPS[1])
    assert "2 of 4 sites sent a masked update" in result.refusals[GROUPS[1][3]]


def test_a_survivors_own_refusal_is_told_beside_its_groups_sum(grouped):
    sums, sites = grouped
    sites.faults = {(GROUPS[0][0], Action.UPDATE): LOST}
    result = run(sums)
    assert len(result.survivors) == 11
    assert set(result.refusals) == {GROUPS[0][0]}


def test_a_group_whose_sum_is_implausible_is_left_out(grouped):
    sums, _ = grouped

    def check(total):
        if total.survivors == tuple(GROUPS[2]):
            raise RoundVoidError("the sum is too long")

    result = run(sums, check=check)
    assert result.survivors == tuple(GROUPS[0] + GROUPS[1])
    assert "the sum is too long" in result.refusals[GROUPS[2][0]]


def test_when_half_of_the_groups_give_nothing_the_round_is_void_with_every_reason(grouped):
    sums, sites = grouped
    sites.faults = {(site, Action.UPDATE): LOST for site in GROUPS[0][:2] + GROUPS[1][:3]}
    with pytest.raises(RoundVoidError, match="1 of 3 groups") as caught:
        run(sums)
    assert "2 of 4 sites" in str(caught.value)
    assert "1 of 4 sites" in str(caught.value)
    sites.faults = {}
    assert len(run(sums, round=2).survivors) == 12


def test_the_median_of_groups_ignores_fewer_than_half_of_them():
    rng = np.random.default_rng(3)
    honest = rng.normal(size=(3, 50))
    for wild in (1e9, -1e9):
        bad = np.full((2, 50), wild)
        median_D = across_groups(np.vstack([honest, bad]))
        assert (median_D >= honest.min(axis=0)).all()
        assert (median_D <= honest.max(axis=0)).all()
    assert (across_groups(honest) == np.sort(honest, axis=0)[1]).all()
