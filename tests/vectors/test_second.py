"""The second implementation, written from the page alone, completes rounds with ours."""

from pathlib import Path
from runpy import run_path

import pytest

from consilium.server.secure_sum.protocol import SecureSum
from consilium.shared.secure_sum.messages import Action, declared_sizes
from tests.in_process import (
    CONFIGURATION,
    LOST,
    MODEL,
    SPEC,
    InProcessSites,
    LocalSite,
    identities,
    names,
    parameters,
    plain_sum,
    run_round,
)

PATH = Path(__file__).with_name("second.py")
SECOND = run_path(str(PATH))
WRONG = (9).to_bytes(33, "big")
PAIRS = [(5, {}), (9, {"degree": 6, "threshold": 6, "minimum_sites": 6})]


def seed_of(site):
    return site.encode().ljust(32, b".")


def told(agreed, spec=SPEC):
    """What the study fixes, as the second implementation takes it."""
    return SECOND["Parameters"](
        agreed.study_digest,
        agreed.run_id,
        [(*member, agreed.roster.sizes[member[0]]) for member in agreed.roster.members],
        declared_sizes(agreed.roster),
        agreed.threshold,
        agreed.minimum_sites,
        agreed.collusion,
        agreed.degree,
        spec.ring_bits,
        [(s.name, s.length, s.linf, s.scale) for s in spec.segments],
    )


class SecondSite:
    """The second implementation's site in the place of ours."""

    def __init__(self, site, agreed):
        self.site = site
        self.ours = LocalSite.__new__(LocalSite)  # for its vectors alone
        self.ours.site, self.ours.spec, self.ours.vectors = site, SPEC, {}
        self.second = SECOND["Site"](
            site, seed_of(site), told(agreed), lambda round: self.vector(round).tolist()
        )

    def vector(self, round):
        return self.ours.vector(round)

    def answer(self, action, body):
        return self.second.answer(body)


def mixed(count, folder, second, **changes):
    agreed = parameters(count, **changes)
    sites = [
        SecondSite(site, agreed)
        if site in second
        else LocalSite(site, key, agreed, folder / f"{site}.sqlite", threads=1)
        for site, key in identities(count).items()
    ]
    return agreed, InProcessSites(sites)


def test_it_imports_nothing_of_ours():
    assert "consilium." not in PATH.read_text().replace("consilium/1/", "")


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("count", "changes"), PAIRS, ids=["complete", "sparse"])
@pytest.mark.parametrize("how_many", [1, 3])
def test_its_sites_take_part_among_ours(tmp_path, count, changes, how_many):
    second = names(count)[1 : 1 + how_many]
    agreed, sites = mixed(count, tmp_path, second, **changes)
    coordinator = SecureSum(agreed, sites, timeout_s=1.0, threads=1)
    assert told(agreed).study_hash == agreed.study_hash
    assert coordinator.open().refusals == {}
    for round in (1, 2):
        result = run_round(coordinator, round)
        assert (result.survivors, result.refusals) == (sites.names(), {})
        assert (result.ring_total == plain_sum(sites, sites.names(), round)).all()
    for lost in (second[0], names(count)[0]):  # one of its, then one of ours
        round += 1
        sites.faults = {(lost, Action.UPDATE): LOST}
        result = run_round(coordinator, round)
        assert result.dropped == (lost,)
        assert (result.ring_total == plain_sum(sites, result.survivors, round)).all()
    sites.faults = {}
    assert run_round(coordinator, round + 1).survivors == sites.names()


@pytest.mark.parametrize(("count", "changes"), PAIRS, ids=["complete", "sparse"])
def test_its_coordinator_sums_over_our_sites(tmp_path, count, changes):
    agreed, sites = mixed(count, tmp_path, names(count)[3:4], **changes)

    def ask(action, bodies):
        return dict(sites.ask(Action(action), bodies, timeout_s=1.0))

    coordinator = SECOND["Coordinator"](told(agreed), ask)
    for round, lost in ((1, None), (2, None), (3, names(count)[2]), (4, None)):
        sites.faults = {(lost, Action.UPDATE): LOST} if lost else {}
        if round == 4:
            coordinator.keys = {}  # the site that was away is back: all deal anew
        total, weight, survivors = coordinator.sum(round, MODEL, CONFIGURATION)
        assert tuple(survivors) == tuple(s for s in sites.names() if s != lost)
        assert weight == 7 * len(survivors)
        assert total == plain_sum(sites, tuple(survivors), round).tolist()
        assert set(coordinator.named) <= {lost}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["seed", "mask"])
@pytest.mark.parametrize("liar", ["theirs", "ours"])
def test_both_complain_of_the_same_lies_and_believe_each_others_proofs(
    tmp_path, monkeypatch, kind, liar
):
    """A wrong share for one site of each kind; each coordinator names the dealer."""
    from consilium.client.secure_sum import letters

    theirs, ours = names(7)[1], names(7)[2]
    dealer = theirs if liar == "theirs" else ours
    victims = [names(7)[4], names(7)[5]]
    for place, lead in enumerate(("ours", "theirs")):
        (folder := tmp_path / str(place)).mkdir()
        agreed, sites = mixed(7, folder, [theirs, victims[0]])
        if liar == "theirs":
            sites.sites[dealer].second.spoil = lambda k, holder, share: (
                WRONG if k == kind and holder in victims else share
            )
        else:
            true = letters.seal_box

            def seal(share, *, to, use, ephemeral, true=true):
                lie = use.kind == kind and use.dealer == dealer and use.holder in victims
                return true(WRONG if lie else share, to=to, use=use, ephemeral=ephemeral)

            monkeypatch.setattr(letters, "seal_box", seal)
        if lead == "ours":
            coordinator = SecureSum(agreed, sites, timeout_s=1.0, threads=1)
            coordinator.open()
            named = run_round(coordinator, 1).refusals
        else:
            coordinator = SECOND["Coordinator"](
                told(agreed), lambda a, b, s=sites: dict(s.ask(Action(a), b, timeout_s=1.0))
            )
            coordinator.sum(1, MODEL, CONFIGURATION)
            named = coordinator.named
        assert set(named) == {dealer}
        monkeypatch.undo()
