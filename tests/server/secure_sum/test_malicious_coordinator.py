"""No interleaving, replay or lie reveals more than one permitted sum a round."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import consilium.client.secure_sum.masking
import consilium.client.secure_sum.round_state
from consilium.client.secure_sum.round_state import MaskedRound
from tests.adversary import COLLUDER, HONEST, SITES, Adversary
from tests.in_process import memory_folder, names

EVERYONE = (*HONEST, COLLUDER)
SPARSE = {"degree": 6, "threshold": 6, "minimum_sites": 6}
ROUND = st.integers(1, 3)
PICK = st.sampled_from([-1, -1, 0, 1])
RUBBISH = st.sampled_from([False, False, True])
MODEL = st.sampled_from([b"one model", b"one model", b"another model"])


def machine(count, **changes):  # noqa: C901 - it counts the rules of the class inside
    """A state machine of a coordinator with that many sites, the last of them on its side."""
    *honest, colluder = names(count)
    everyone = (*honest, colluder)
    site_names = st.sampled_from(honest)
    some = st.sets(site_names, min_size=1)
    without_one = [tuple(s for s in everyone if s != lost) for lost in everyone]
    survivor_lists = st.sampled_from([everyone, everyone, *without_one]) | st.sets(
        st.sampled_from(everyone), min_size=3
    ).map(lambda s: tuple(sorted(s)))

    class MaliciousCoordinator(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self._folder = memory_folder()
            self.adversary = Adversary(self._folder.__enter__(), sites=count, **changes)

        def teardown(self):
            self._folder.__exit__(None, None, None)

        def context(self, data):
            contexts = [upload.message.context for upload in self.adversary.uploads]
            return data.draw(st.sampled_from([*contexts[-4:], bytes(32)]))

        @initialize(round=ROUND, opening=st.sampled_from(["nothing", "keys", "updates"]))
        def begin(self, round, opening):
            if opening != "nothing":
                self.ask_all_for_keys(round)
            if opening == "updates":
                self.ask_all_for_updates(round)

        @rule(sites=some, round=ROUND, pick=PICK)
        def ask_for_keys(self, sites, round, pick):
            for site in sorted(sites):
                self.adversary.keys(site, round, pick)

        @rule(round=ROUND)
        def ask_all_for_keys(self, round):
            for site in honest:
                self.adversary.keys(site, round)

        @precondition(lambda self: self.adversary.keys_pool)
        @rule(sites=some, members=some, round=ROUND, model=MODEL, pick=PICK, rubbish=RUBBISH)
        def ask_for_updates(self, sites, members, round, model, pick, rubbish):
            for site in sorted(sites):
                self.adversary.update(site, round, members, model, pick, rubbish=rubbish)

        @precondition(lambda self: self.adversary.keys_pool)
        @rule(round=ROUND)
        def ask_all_for_updates(self, round):
            for site in honest:
                self.adversary.update(site, round, honest, b"one model")

        @precondition(lambda self: self.adversary.uploads)
        @rule(sites=some, survivors=survivor_lists, data=st.data())
        def ask_to_agree(self, sites, survivors, data):
            context = self.context(data)
            for site in sorted(sites):
                self.adversary.agree(site, context, survivors)

        @precondition(lambda self: self.adversary.uploads)
        @rule(
            sites=some, survivors=survivor_lists, own=st.booleans(), rubbish=RUBBISH, data=st.data()
        )
        def ask_to_unmask(self, sites, survivors, own, rubbish, data):
            context = self.context(data)
            for site in sorted(sites):
                self.adversary.unmask(site, context, survivors, own=own, rubbish=rubbish)

        @precondition(lambda self: self.adversary.uploads)
        @rule(survivors=survivor_lists, data=st.data())
        def open_a_sum(self, survivors, data):
            context = self.context(data)
            for ask in (self.adversary.agree, self.adversary.unmask):
                for site in honest:
                    ask(site, context, survivors)

        @rule(site=site_names)
        def restart(self, site):
            self.adversary.restart(site)

        @invariant()
        def nothing_but_permitted_sums_can_be_computed(self):
            assert self.adversary.violations() == []

    return MaliciousCoordinator


class TestMaliciousCoordinator(machine(SITES).TestCase):
    settings = settings(max_examples=10, stateful_step_count=25, deadline=None)


@pytest.mark.slow
class TestMaliciousCoordinatorAtLength(machine(SITES).TestCase):
    settings = settings(max_examples=600, stateful_step_count=40, deadline=None)


class TestMaliciousCoordinatorOfASparseGraph(machine(9, **SPARSE).TestCase):
    settings = settings(max_examples=6, stateful_step_count=20, deadline=None)


@pytest.mark.slow
class TestMaliciousCoordinatorOfASparseGraphAtLength(machine(9, **SPARSE).TestCase):
    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def play(adversary, survivors=EVERYONE, unmasked_for=None):
    """An orderly round, opened for `survivors`, or for each site's own list."""
    for site in HONEST:
        adversary.keys(site, 1)
    for site in HONEST:
        adversary.update(site, 1, HONEST, b"one model")
    context = adversary.uploads[-1].message.context
    for site in HONEST:
        adversary.agree(site, context, survivors)
    for site in HONEST:
        adversary.unmask(site, context, (unmasked_for or {}).get(site, survivors))
    return context


def test_an_orderly_round_reveals_exactly_its_sum(tmp_path):
    """A control: the adversary's knowledge is counted, so an opened sum is seen as opened."""
    adversary = Adversary(tmp_path)
    play(adversary)
    assert adversary.revealed_sums() == [(1, frozenset(HONEST))]
    assert adversary.violations() == []


def test_a_round_with_a_dropped_site_reveals_the_sum_of_the_others(tmp_path):
    adversary = Adversary(tmp_path)
    play(adversary, survivors=(*HONEST[1:], COLLUDER))
    assert adversary.revealed_sums() == [(1, frozenset(HONEST[1:]))]
    assert adversary.violations() == []


def test_the_checker_sees_a_breach_when_the_sites_checks_are_removed(monkeypatch):
    """A control: without the checks before revealing, the same adversary takes single updates."""
    monkeypatch.setattr(consilium.client.secure_sum.masking, "check_survivors", lambda *_: None)
    monkeypatch.setattr(consilium.client.secure_sum.masking, "check_agreement", lambda *_: None)
    reveal = consilium.client.secure_sum.masking.SiteMasking.unmask

    def answer_everything(self, request):
        state, journal = self._round, self._next
        reply = reveal(self, request)
        self._round, self._finished, self._next = state, None, journal
        return reply

    monkeypatch.setattr(
        consilium.client.secure_sum.masking.SiteMasking, "unmask", answer_everything
    )
    with tempfile.TemporaryDirectory() as folder:
        adversary = Adversary(Path(folder))
        context = play(adversary)
        assert isinstance(adversary.sites[HONEST[0]].masking._round, MaskedRound)
        for site in HONEST[1:]:
            adversary.unmask(site, context, (*HONEST[1:], COLLUDER))
        assert adversary.violations() == [f"round 1: a sum over ['{HONEST[0]}'] alone"]


def test_two_survivor_sets_open_at_most_one_sum(tmp_path):
    """The coordinator tells half of the sites that one site survived and half that it did not."""
    adversary = Adversary(tmp_path)
    without = (*HONEST[1:], COLLUDER)
    for site in HONEST:
        adversary.keys(site, 1)
    for site in HONEST:
        adversary.update(site, 1, HONEST, b"one model")
    context = adversary.uploads[-1].message.context
    for survivors, sites in ((EVERYONE, HONEST[:2]), (without, HONEST[2:])):
        for site in sites:
            assert adversary.agree(site, context, survivors)
    for survivors in (EVERYONE, without):
        for site in HONEST:
            assert not adversary.unmask(site, context, survivors)
    assert adversary.revealed_sums() == []


def test_sites_shown_two_models_open_no_sum(tmp_path):
    adversary = Adversary(tmp_path)
    for site in HONEST:
        adversary.keys(site, 1)
    for site in HONEST:
        model = b"crafted" if site == HONEST[0] else b"one model"
        assert adversary.update(site, 1, HONEST, model)
    for upload in list(adversary.uploads):
        for ask in (adversary.agree, adversary.unmask):
            for site in HONEST:
                ask(site, upload.message.context, EVERYONE)
    assert adversary.revealed_sums() == []


def play_sparsely(adversary, survivors):
    """An orderly round of nine sites with six neighbours each."""
    for site in adversary.honest:
        adversary.keys(site, 1)
    for site in adversary.honest:
        adversary.update(site, 1, adversary.honest, b"one model")
    context = adversary.uploads[-1].message.context
    for ask in (adversary.agree, adversary.unmask):
        for site in adversary.honest:
            ask(site, context, survivors)


def test_a_round_of_a_sparse_graph_reveals_exactly_the_sum_of_its_survivors(tmp_path):
    adversary = Adversary(tmp_path, sites=9, **SPARSE)
    play_sparsely(adversary, tuple(names(9)[1:]))
    assert adversary.revealed_sums() == [(1, frozenset(adversary.honest[1:]))]
    assert adversary.violations() == []


def test_the_checker_sees_a_site_cut_off_from_its_neighbours(tmp_path, monkeypatch):
    """A control: were a site opened though its neighbours are gone, its update would be bare."""
    monkeypatch.setattr(
        consilium.client.secure_sum.round_state.SumParameters,
        "supported",
        lambda self, sites: set(sites),
    )
    monkeypatch.setattr(
        consilium.client.secure_sum.round_state.SumParameters, "sharing_threshold", 2
    )
    adversary = Adversary(tmp_path, sites=12, degree=6, threshold=7, minimum_sites=7, collusion=1)
    lonely = adversary.honest[3]
    gone = sorted(adversary.agreed.circle(lonely) - {lonely, adversary.colluder})[:5]
    play_sparsely(adversary, tuple(sorted(set(adversary.sites) - set(gone))))
    sums = [group for _, group in adversary.revealed_sums()]
    assert frozenset({lonely}) in sums
