"""Secure sums in which each site shares masks with some others only."""

import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from consilium.client.secure_sum.round_state import pair_seeds
from consilium.shared.errors import ProtocolError, RoundVoidError
from consilium.shared.secure_sum.messages import Action
from tests.in_process import (
    LOST,
    SPEC,
    federation,
    halted,
    memory_folder,
    plain_sum,
    run_round,
)

NINE = {"degree": 6, "threshold": 6, "minimum_sites": 6}


def far_from_each_other(agreed, count):
    """Sites whose loss leaves every other site enough neighbours."""
    lost = []
    for site in agreed.roster:
        left = set(agreed.roster) - {*lost, site}
        if len(lost) < count and agreed.supported(left) == left:
            lost.append(site)
    return lost


@pytest.mark.sampled(1)
@pytest.mark.parametrize("action", [Action.KEYS, Action.UPDATE, Action.UNMASK])
def test_the_sum_is_exact_with_sites_lost_at_any_phase(tmp_path, action):
    coordinator, sites = federation(9, tmp_path, **NINE)
    lost = far_from_each_other(coordinator.parameters, 2)
    assert len(lost) == 2
    sites.faults = {(site, action): LOST for site in lost}
    coordinator.open()
    for round in (1, 2):
        result = run_round(coordinator, round)
        assert set(result.dropped) == (set() if action is Action.UNMASK else set(lost))
        assert (result.ring_total == plain_sum(sites, result.survivors, round)).all()
        sites.faults = {}
        lost = []


@pytest.mark.slow
def test_two_hundred_and_one_sites_sum_exactly_with_a_tenth_lost():
    """Twice the size from which the graph is sparse by itself."""
    with memory_folder() as folder:
        coordinator, sites = federation(201, folder, degree=58, threshold=135, minimum_sites=135)
        coordinator.open()
        sites.faults = {(site, Action.UPDATE): LOST for site in sites.names()[5::10]}
        result = run_round(coordinator, 1)
    assert len(result.dropped) == 20
    assert (result.ring_total == plain_sum(sites, result.survivors, 1)).all()


def test_a_site_exchanges_shares_and_boxes_with_its_circle_only(tmp_path):
    site, request, _ = halted(9, tmp_path, Action.UPDATE, **NINE)
    circle = site.masking.parameters.circle(site.site)
    assert set(request.letters) == circle - {site.site}
    site.masking.begin(request)
    reply = site.masking.mask(np.zeros(SPEC.length, np.uint32), SPEC)
    assert set(reply.boxes) == circle - {site.site}


def test_a_site_most_of_whose_circle_is_absent_does_not_mask(tmp_path):
    site, request, _ = halted(9, tmp_path, Action.UPDATE, **NINE)
    circle = site.masking.parameters.circle(site.site)
    absent = sorted(circle - {site.site})[:3]
    kept = tuple(p for p in request.participants if p.site not in absent)
    with pytest.raises(ProtocolError, match="4 sites of this site's circle take part"):
        site.masking.begin(replace(request, participants=kept))


def test_survivors_without_enough_neighbours_are_neither_signed_nor_unmasked(tmp_path):
    """Six of nine survive, as many as the study asks for, but one has lost three neighbours."""
    changes = {**NINE, "minimum_sites": 6}
    site, request, _ = halted(9, tmp_path, Action.AGREE, **changes)
    agreed = site.masking.parameters
    lonely = next(s for s in agreed.roster if s != site.site and site.site in agreed.circle(s))
    gone = sorted(agreed.circle(lonely) - {lonely, site.site})[:3]
    survivors = tuple(sorted(set(agreed.roster) - set(gone)))
    assert len(survivors) == 6
    with pytest.raises(ProtocolError, match="too few surviving neighbours"):
        site.masking.agree(replace(request, survivors=survivors))
    site.masking.agree(request)


def test_the_coordinator_voids_a_round_in_which_a_survivor_lost_its_neighbours(tmp_path):
    coordinator, sites = federation(9, tmp_path, **NINE)
    agreed = coordinator.parameters
    coordinator.open()
    lonely = agreed.roster.names[4]
    gone = sorted(agreed.circle(lonely) - {lonely})[:3]
    sites.faults = {(site, Action.UPDATE): LOST for site in gone}
    with pytest.raises(RoundVoidError, match="too many neighbours of a surviving site failed"):
        run_round(coordinator, 1)
    sites.faults = {}
    assert run_round(coordinator, 2).survivors == sites.names()


def test_a_site_without_enough_neighbours_sits_the_round_out(tmp_path):
    """Three neighbours of a site have no keys: it is not asked, and the others are summed."""
    coordinator, sites = federation(14, tmp_path, degree=6, threshold=8, minimum_sites=8)
    agreed = coordinator.parameters
    lonely, gone = next(
        (lonely, gone)
        for lonely in agreed.roster
        for gone in combinations(sorted(agreed.circle(lonely) - {lonely}), 3)
        if agreed.supported(set(agreed.roster) - set(gone)) == set(agreed.roster) - {lonely, *gone}
    )
    sites.faults = {(site, Action.CHANNEL): LOST for site in gone}
    coordinator.open()
    result = run_round(coordinator, 1)
    assert set(result.dropped) == {lonely, *gone}
    assert (lonely, Action.UPDATE) not in sites.asked
    assert (result.ring_total == plain_sum(sites, result.survivors, 1)).all()


def test_a_graph_that_could_fall_apart_is_refused(tmp_path):
    sentence = re.escape("4 neighbours among 12 sites of which 1 may collude")
    with pytest.raises(Exception, match=sentence):
        federation(12, tmp_path, degree=4, threshold=7, minimum_sites=7)


def test_masks_are_shared_between_neighbours_alone(tmp_path):
    """The keystreams of a site: its own and one a neighbour, not one a site."""
    site, request, _ = halted(9, tmp_path, Action.UPDATE, **NINE)
    site.masking.begin(request)
    plus, minus = pair_seeds(site.masking.parameters, site.site, site.masking._round, bytes(32))
    assert len(plus) + len(minus) == 6
