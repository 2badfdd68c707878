"""A thief comes after the round: all recorded traffic and the sites' memory open none that is over.

The thief is given more than the promise excludes: the memory of every site of the federation at
once. What a site still holds then is for the next round.
"""

from collections import defaultdict
from dataclasses import dataclass

import pytest

from consilium.shared.crypto.boxes import BoxKeys, open_box
from consilium.shared.crypto.keys import ExchangeKey
from consilium.shared.secure_sum.dealt_shares import mask_use, seed_use
from consilium.shared.secure_sum.messages import (
    Action,
    MaskedUpdate,
    Refusal,
    RoundKeys,
    Unmasked,
    UpdateRequest,
)
from tests.adversary import reachable
from tests.in_process import UNHEARD, federation, names, run_round

SITES = names(5)
LATE = SITES[-1]


@dataclass(frozen=True)
class Sealed:
    """A box on the wire."""

    kind: str
    round: int
    dealer: str
    holder: str
    context: bytes
    box: bytes


class Recorder:
    """Keeps all traffic, as a coordinator may for ever."""

    def __init__(self, sites) -> None:
        self.boxes: list[Sealed] = []
        self.publics: dict[tuple[str, int], bytes] = {}
        self.lost: set[tuple[str, int]] = set()
        sites.alter = self.keep

    def keep(self, site: str, action: Action, reply: bytes) -> bytes:
        kinds = {Action.KEYS: RoundKeys, Action.UPDATE: MaskedUpdate, Action.UNMASK: Unmasked}
        if action not in kinds:
            return reply
        message = kinds[action].from_bytes(reply)
        keys = message if action is Action.KEYS else getattr(message, "next_keys", None)
        if keys is not None:
            self.publics[site, keys.round] = keys.public
            for holder, letter in keys.letters.items():
                sealed = Sealed("seed", keys.round, site, holder, keys.public, letter.box)
                self.boxes.append(sealed)
        if action is Action.UPDATE:
            for holder, dealt in message.boxes.items():
                sealed = Sealed("mask", message.round, site, holder, message.context, dealt.box)
                self.boxes.append(sealed)
            if (site, message.round) in self.lost:
                return Refusal(site=site, code="lost", sentence="lost").to_bytes()
        return reply


def keys_in(memory: list[object]) -> list[ExchangeKey]:
    """Every private key that follows from what is held: as it is, or derived for a dealer."""
    found = [thing for thing in memory if isinstance(thing, ExchangeKey)]
    for secret in {thing for thing in memory if isinstance(thing, bytes) and len(thing) == 32}:
        found.append(ExchangeKey(secret))
        found += [BoxKeys(secret).key(dealer) for dealer in SITES]
    return found


def opened(agreed, boxes: list[Sealed], keys: list[ExchangeKey]) -> list[tuple[Sealed, bytes]]:
    """The boxes that open under some of the keys, with their shares."""
    found = []
    for sealed in boxes:
        use = (seed_use if sealed.kind == "seed" else mask_use)(
            agreed.study_hash, sealed.round, sealed.dealer, sealed.holder, sealed.context
        )
        for key in keys:
            try:
                found.append((sealed, open_box(key, sealed.box, use=use)))
            except Exception:  # noqa: S112 - whatever does not open does not open
                continue
            break
    return found


def stolen(sites, which=SITES) -> list[object]:
    return [thing for site in which for thing in reachable(sites.sites[site].masking.__dict__)]


@pytest.mark.slow
def test_nothing_of_a_finished_round_opens_with_the_memory_of_all_sites(tmp_path):
    coordinator, sites = federation(5, tmp_path)
    recorder = Recorder(sites)
    coordinator.open()
    for round in (1, 2, 3):
        run_round(coordinator, round)
        over = [sealed for sealed in recorder.boxes if sealed.round <= round]
        assert len(over) == 2 * 20 * round
        keys = keys_in(stolen(sites))
        assert opened(coordinator.parameters, over, keys) == []
        known = {key.public for key in keys}
        assert not {public for (_, r), public in recorder.publics.items() if r <= round} & known


def test_the_thief_opens_what_a_site_needs_for_a_round_to_come(tmp_path):
    """A control: the same search finds the keys that are still needed."""
    coordinator, sites = federation(5, tmp_path)
    recorder = Recorder(sites)
    coordinator.open()
    run_round(coordinator, 1)
    following = [sealed for sealed in recorder.boxes if sealed.round == 2]
    assert len(following) == 20
    keys = keys_in(stolen(sites, [SITES[0]]))
    found = opened(coordinator.parameters, following, keys)
    assert {sealed.holder for sealed, _ in found} == {SITES[0]}
    assert len(found) == 4
    assert recorder.publics[SITES[0], 2] in {key.public for key in keys}


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["late", "not asked to unmask"])
def test_a_site_that_did_not_see_the_end_of_a_round_gives_away_too_few_shares(tmp_path, absent):
    """It still holds what it would need; that opens fewer than t shares of any secret."""
    coordinator, sites = federation(5, tmp_path)
    recorder = Recorder(sites)
    coordinator.open()
    run_round(coordinator, 1)
    if absent == "late":
        recorder.lost = {(LATE, 2)}  # the coordinator has its update, and says it dropped out
    else:
        sites.faults = {(LATE, Action.UNMASK): UNHEARD}
    result = run_round(coordinator, 2)
    assert (LATE in result.dropped) == (absent == "late")
    over = [sealed for sealed in recorder.boxes if sealed.round == 2]
    memory = stolen(sites)
    shares: dict[tuple[str, str], set[str]] = defaultdict(set)
    for sealed, _ in opened(coordinator.parameters, over, keys_in(memory)):
        assert sealed.holder == LATE
        shares[sealed.kind, sealed.dealer].add(sealed.holder)
    state = sites.sites[LATE].masking._round
    shares["mask", LATE].add(LATE)  # its own share of its own mask
    for dealer in state.received.seed_shares:
        shares["seed", dealer].add(LATE)
    assert state.pair_secrets == {}
    assert max(map(len, shares.values())) == 1 < coordinator.parameters.sharing_threshold
    sites.faults, recorder.lost = {}, set()
    run_round(coordinator, 3)
    over = [sealed for sealed in recorder.boxes if sealed.round <= 3]
    assert opened(coordinator.parameters, over, keys_in(stolen(sites))) == []


def test_an_update_request_is_not_kept(tmp_path):
    coordinator, sites = federation(5, tmp_path)
    coordinator.open()
    run_round(coordinator, 1)
    assert not [thing for thing in stolen(sites) if isinstance(thing, UpdateRequest)]
