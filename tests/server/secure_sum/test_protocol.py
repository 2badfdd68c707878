from itertools import combinations

import numpy as np
import pytest

from consilium.shared.errors import EncodingError, RoundVoidError
from consilium.shared.secure_sum.fixed_point import Segment, VectorSpec
from consilium.shared.secure_sum.messages import Action
from tests.in_process import LOST, SPEC, UNHEARD, federation, plain_sum, run_round


@pytest.mark.parametrize("count", [3, 4, 7])
def test_the_sum_over_all_sites_is_exact_for_many_rounds(tmp_path, count):
    coordinator, sites = federation(count, tmp_path)
    coordinator.open()
    for round in (1, 2, 3, 7):
        result = run_round(coordinator, round)
        assert (result.ring_total == plain_sum(sites, sites.names(), round)).all()
        assert result.survivors == sites.names()
        assert result.dropped == ()
        assert result.refusals == {}
        assert result.weight == 7 * count


@pytest.mark.parametrize("ring_bits", [16, 20, 24, 28, 32])
def test_the_sum_is_exact_in_every_ring(tmp_path, ring_bits):
    spec = VectorSpec(ring_bits=ring_bits, segments=(Segment(name="a", length=11, linf=500),))
    coordinator, sites = federation(5, tmp_path, spec)
    coordinator.open()
    sites.faults = {("site-001", Action.UPDATE): LOST}
    result = run_round(coordinator, 1, spec)
    assert (result.ring_total == plain_sum(sites, result.survivors, 1, spec)).all()
    signed = sum(
        sites.sites[s].vector(1).view(np.int32) << (32 - ring_bits) >> (32 - ring_bits)
        for s in result.survivors
    )
    assert (result.parts["a"][:] == signed).all()


def test_a_steady_round_takes_three_exchanges(tmp_path):
    coordinator, sites = federation(4, tmp_path)
    coordinator.open()
    sites.asked.clear()
    run_round(coordinator, 1)
    assert len(sites.asked) == 4 * 3


@pytest.mark.sampled(1)
@pytest.mark.parametrize("fault", [LOST, UNHEARD])
@pytest.mark.parametrize("action", list(Action))
def test_five_sites_sum_exactly_with_any_one_lost_and_it_returns(tmp_path, action, fault):
    coordinator, sites = federation(5, tmp_path)
    for site in sites.names():
        (tmp_path / site).mkdir()
        coordinator, sites = federation(5, tmp_path / site)
        sites.faults = {(site, action): fault}
        coordinator.open()
        result = run_round(coordinator, 1)
        assert (result.ring_total == plain_sum(sites, result.survivors, 1)).all()
        early = action in (Action.CHANNEL, Action.KEYS, Action.UPDATE)
        assert result.dropped == ((site,) if early else ())
        assert "no answer" in result.refusals[site]
        sites.faults = {}
        again = run_round(coordinator, 2)
        assert again.survivors == sites.names()
        assert (again.ring_total == plain_sum(sites, again.survivors, 2)).all()


def test_a_restarted_site_rejoins_at_the_next_round(tmp_path):
    coordinator, sites = federation(4, tmp_path)
    coordinator.open()
    run_round(coordinator, 1)
    sites.sites["site-002"].restart()
    missed = run_round(coordinator, 2)
    assert missed.dropped == ("site-002",)
    assert run_round(coordinator, 3).survivors == sites.names()


def test_two_of_five_lost_before_upload_void_the_round_and_the_next_one_works(tmp_path):
    coordinator, sites = federation(5, tmp_path)
    coordinator.open()
    for lost in combinations(sites.names(), 2):
        sites.faults = {(site, Action.UPDATE): LOST for site in lost}
        with pytest.raises(RoundVoidError, match="3 of 5 sites sent a masked update, and 4 are"):
            run_round(coordinator, 1)
        break
    sites.faults = {}
    assert run_round(coordinator, 2).survivors == sites.names()


def test_a_layout_that_could_wrap_is_refused_before_anyone_is_asked(tmp_path):
    coordinator, sites = federation(4, tmp_path)
    spec = VectorSpec(ring_bits=16, segments=(Segment(name="a", length=2, linf=8192),))
    with pytest.raises(EncodingError, match="wraps"):
        run_round(coordinator, 1, spec)
    assert sites.asked == []


def test_bytes_are_counted_for_each_site_and_phase_times_are_reported(tmp_path):
    coordinator, sites = federation(4, tmp_path)
    coordinator.open()
    result = run_round(coordinator, 1)
    assert set(result.bytes_up) == set(result.bytes_down) == set(sites.names())
    assert min(result.bytes_up.values()) > 4 * SPEC.length
    assert list(result.seconds) == ["keys", "update", "agree", "unmask", "remove"]
