"""A site's weight in a sum is the size that it declared: no other can be claimed, none leaks."""

from pathlib import Path

import pytest

from consilium.shared.errors import ProtocolError, RoundVoidError
from consilium.shared.secure_sum.messages import Action
from tests.in_process import (
    LOST,
    STUDY_DIGEST,
    federation,
    halted,
    identities,
    plain_sum,
    run_round,
)
from tests.rosters import sized_roster

SIZES = {"site_000": 300, "site_001": 20, "site_002": 1000, "site_003": 400, "site_004": 90}


def rosters(**sizes: int) -> object:
    return sized_roster(identities(5), STUDY_DIGEST, **{**SIZES, **sizes})


@pytest.mark.parametrize("claims", [0, 301, 10_000, 2**31 - 1, 300 + 2**31])
def test_a_site_that_claims_another_size_than_it_declared_voids_the_round(
    tmp_path: Path, claims: int
) -> None:
    coordinator, sites = federation(5, tmp_path, roster=rosters())
    coordinator.open()
    sites.sites["site-000"].claims = claims
    with pytest.raises(RoundVoidError, match="claims another size than it declared"):
        run_round(coordinator, 1)
    sites.sites["site-000"].claims = None
    assert run_round(coordinator, 2).weight == 1810


def test_two_claims_that_add_up_give_neither_of_them_another_weight(tmp_path: Path) -> None:
    """The mean divides by declared sizes, so a claim that cancels out moves nothing."""
    coordinator, sites = federation(5, tmp_path, roster=rosters())
    coordinator.open()
    sites.sites["site-000"].claims, sites.sites["site-001"].claims = 310, 10
    result = run_round(coordinator, 1)
    assert (result.ring_total == plain_sum(sites, sites.names(), 1)).all()
    assert result.roster.sizes["site-000"] == 300


def test_leaving_a_site_out_of_one_round_tells_its_declared_size_alone(tmp_path: Path) -> None:
    """The difference of two rounds' weights was the exact number of a hospital's patients."""
    coordinator, sites = federation(5, tmp_path, roster=rosters())
    coordinator.open()
    everybody = run_round(coordinator, 1).weight
    sites.faults = {("site-003", Action.UPDATE): LOST}
    assert everybody - run_round(coordinator, 2).weight == SIZES["site_003"]


def test_a_coordinator_with_another_size_in_its_roster_gets_no_channel(tmp_path: Path) -> None:
    for site, more in (("site_000", 301), ("site_003", 4000)):
        (tmp_path / site).mkdir()
        one, request, _ = halted(5, tmp_path / site, Action.CHANNEL, roster=rosters())
        lied = federation(5, tmp_path / site, roster=rosters(**{site: more}))[0].parameters
        assert lied.study_hash != one.masking.parameters.study_hash
        object.__setattr__(request, "study_hash", lied.study_hash)
        with pytest.raises(ProtocolError, match="bound to other study parameters"):
            one.masking.channel_key(request)
