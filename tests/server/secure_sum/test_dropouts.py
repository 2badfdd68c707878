"""Every way to lose sites: the sum is exact, or refused with the reason."""

import random
from itertools import combinations_with_replacement, product

import pytest

from consilium.shared.errors import RoundVoidError
from consilium.shared.secure_sum.messages import Action
from tests.in_process import (
    LOST,
    UNHEARD,
    federation,
    memory_folder,
    parameters,
    plain_sum,
    run_round,
)

PHASES = tuple(Action)


def expect(agreed, fates):
    """What the protocol promises: the survivors, or the words of the reason.

    `fates` gives by site the phase from which it is gone, or None.
    """

    def left(action):
        """Sites that still answer in that phase."""
        stage = PHASES.index(action)
        return [s for s, fate in fates.items() if fate is None or PHASES.index(fate) > stage]

    for action, least, words in (
        (Action.CHANNEL, agreed.minimum_sites, "announced a channel key"),
        (Action.KEYS, agreed.minimum_sites, "have keys"),
        (Action.UPDATE, agreed.minimum_sites, "sent a masked update"),
        (Action.AGREE, agreed.threshold, "signed the survivors"),
        (Action.UNMASK, agreed.threshold, "revealed their shares"),
    ):
        if len(left(action)) < least:
            return None, f"{len(left(action))} of {len(fates)} sites {words}, and {least} are"
    return left(Action.UPDATE), ""


def check_pattern(coordinator, sites, round, fates, fault):
    """Run one round in which the sites go away as told; every round exchanges keys anew."""
    gone = {
        (site, action): fault
        for site, fate in fates.items()
        if fate is not None
        for action in PHASES[PHASES.index(fate) :]
    }
    sites.faults = gone
    survivors, reason = expect(coordinator.parameters, fates)
    if survivors is None:
        with pytest.raises(RoundVoidError, match=reason):
            run_round(coordinator, round)
        return
    result = run_round(coordinator, round)
    assert result.survivors == tuple(sorted(survivors))
    assert (result.ring_total == plain_sum(sites, result.survivors, round)).all()
    assert result.weight == 7 * len(survivors)
    assert set(result.dropped) == set(fates) - set(survivors)
    assert {site for site, fate in fates.items() if fate is not None} == set(result.refusals)


def run_patterns(count, patterns, fault, **changes):
    with memory_folder() as folder:
        coordinator, sites = federation(count, folder, **changes)
        for place, pattern in enumerate(patterns):
            fates = dict(zip(sites.names(), pattern, strict=True))
            if Action.CHANNEL in pattern:  # a channel once open stays: begin the run again
                (folder / str(place)).mkdir()
                coordinator, sites = federation(count, folder / str(place), **changes)
            check_pattern(coordinator, sites, 2 * place + 1, fates, fault)


def all_patterns(count):
    return list(product((None, *PHASES), repeat=count))


def one_phase_patterns(count):
    """Every subset of the sites lost together, at every phase."""
    return [
        tuple(phase if lost else None for lost in subset)
        for phase in PHASES
        for subset in product((False, True), repeat=count)
    ]


@pytest.mark.parametrize("fault", [LOST, UNHEARD])
def test_three_sites_losing_any_at_any_phases(fault):
    run_patterns(3, all_patterns(3), fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [LOST, UNHEARD])
@pytest.mark.parametrize("count", [4, 5])
def test_four_and_five_sites_losing_every_subset_at_every_phase(count, fault):
    run_patterns(count, one_phase_patterns(count), fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [LOST, UNHEARD])
def test_four_sites_losing_any_at_any_phases(fault):
    run_patterns(4, [p for p in all_patterns(4) if p.count(None) >= 1], fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [LOST, UNHEARD])
def test_five_sites_losing_any_number_at_any_phases(fault):
    """All 126 but for which site has which fate: that is drawn."""
    rng = random.Random(5)
    patterns = [
        tuple(rng.sample(fates, 5))
        for fates in combinations_with_replacement((None, *PHASES), 5)
        if fates.count(None) >= 1
    ]
    run_patterns(5, patterns, fault)


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, 7, 8, 9])
def test_six_to_nine_sites_losing_some_at_some_phases(count):
    rng = random.Random(count)
    likely = [None] * 9 + list(PHASES)
    patterns = [tuple(rng.choice(likely) for _ in range(count)) for _ in range(30)]
    threshold = 2 * count // 3 + 1
    run_patterns(
        count,
        patterns,
        LOST,
        collusion=0,
        threshold=max(threshold - 1, count // 2 + 1),
        minimum_sites=max(threshold - 1, 3),
    )


def test_the_parameters_of_these_tests_do_lose_rounds_and_do_keep_some():
    """A control: the expectations above are neither always a sum nor never."""
    outcomes = [
        expect(parameters(5), dict(zip("abcde", pattern, strict=True)))[0]
        for pattern in one_phase_patterns(5)
    ]
    assert any(outcome is None for outcome in outcomes)
    assert any(outcome is not None and len(outcome) == 4 for outcome in outcomes)
