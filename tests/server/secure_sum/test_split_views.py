"""A coordinator that tells each site other survivors: what it can hope for, and what it gets.

The search is an integer program: which honest site is told that which others dropped out, so that
the shares they would reveal open a sum over fewer than `minimum_sites`. Under the rules of a
protocol without agreement it finds such lists for five sites and one on the coordinator's side.
Under today's rules every list of survivors needs `threshold` signatures of its own members, and the
search finds none; the old lists, played against the sites, are refused.
"""

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from consilium.shared.secure_sum.thresholds import default_threshold, least_threshold
from tests.adversary import Adversary
from tests.in_process import names

# sites, colluding, honest sites whose sum alone is to open; the searches that succeeded before
ATTACKS = [(5, 1, 1), (5, 0, 2), (7, 1, 1), (9, 1, 1), (10, 0, 4), (6, 1, 2)]


def dropped_lists(sites, threshold, minimum, target, colluding):
    """For each honest site those it is told have dropped, so that `target` sites open alone.

    At each other honest site, `threshold` less the colluding sites' shares of its round key must be
    revealed; a site is told of at most sites - minimum dropped ones. None if no such lists exist.
    """
    honest = range(sites - colluding)
    away = [site for site in honest if site >= target]
    cells = [(teller, gone) for teller in honest for gone in away if teller != gone]
    shares = [[float(gone == site) for _, gone in cells] for site in away]
    told = [[float(teller == site) for teller, _ in cells] for site in honest]
    found = milp(
        np.zeros(len(cells)),
        constraints=LinearConstraint(
            np.array(shares + told),
            [threshold - colluding] * len(away) + [0] * len(honest),
            [sites] * len(away) + [sites - minimum] * len(honest),
        ),
        integrality=np.ones(len(cells)),
        bounds=Bounds(0, 1),
    )
    if found.x is None:
        return None
    lists = {site: set() for site in honest}
    for (teller, gone), chosen in zip(cells, found.x, strict=True):
        if chosen > 0.5:
            lists[teller].add(gone)
    return lists


def two_lists_are_signed(sites, threshold, colluding):
    """Whether honest sites can be split so that each of two lists gets enough signatures.

    One variable for each honest site and list; a site signs at most one; colluding sites sign both.
    """
    honest = sites - colluding
    once = np.hstack([np.eye(honest), np.eye(honest)])
    enough = np.kron(np.eye(2), np.ones(honest))
    found = milp(
        np.zeros(2 * honest),
        constraints=LinearConstraint(
            np.vstack([once, enough]),
            [0] * honest + [threshold - colluding] * 2,
            [1] * honest + [honest] * 2,
        ),
        integrality=np.ones(2 * honest),
        bounds=Bounds(0, 1),
    )
    return found.x is not None


def old_rules(sites, collusion=1):
    """Threshold and minimum of the defaults that had no agreement."""
    threshold = max(sites // 2 + 1, collusion + 1)
    return threshold, max(3, threshold, collusion + 2)


@pytest.mark.parametrize(("sites", "colluding", "target"), ATTACKS)
def test_without_agreement_the_lists_exist(sites, colluding, target):
    """A control: the search is the one that opened single hospitals."""
    assert dropped_lists(sites, *old_rules(sites), target, colluding) is not None


@pytest.mark.parametrize("sites", range(3, 13))
def test_no_two_lists_get_enough_signatures_at_any_permitted_threshold(sites):
    for colluding in range((sites + 2) // 3):
        least = least_threshold(sites, colluding)
        for threshold in range(least, sites + 1):
            assert not two_lists_are_signed(sites, threshold, colluding)
        assert default_threshold(sites, colluding) >= least
        assert two_lists_are_signed(sites, least - 1, colluding)  # one less, and there are


@pytest.mark.parametrize(("sites", "colluding", "target"), ATTACKS)
def test_the_lists_that_opened_single_hospitals_open_nothing(tmp_path, sites, colluding, target):
    """The same lies, signed by the colluding site and by whoever can be brought to sign them."""
    told = dropped_lists(sites, *old_rules(sites), target, colluding)
    adversary = Adversary(tmp_path, sites=sites)
    everyone = names(sites)
    for site in adversary.honest:
        assert adversary.keys(site, 1)
    for site in adversary.honest:
        assert adversary.update(site, 1, adversary.honest, b"one model")
    context = adversary.uploads[-1].message.context
    lists = {
        everyone[site]: tuple(name for place, name in enumerate(everyone) if place not in gone)
        for site, gone in told.items()
        if everyone[site] in adversary.honest
    }
    for site, survivors in lists.items():
        adversary.agree(site, context, survivors)
    revealed = [
        site for site, survivors in lists.items() if adversary.unmask(site, context, survivors)
    ]
    assert revealed == []
    assert adversary.revealed_sums() == []
    assert adversary.violations() == []


def test_a_sum_below_the_threshold_is_not_signed_even_if_all_are_told_the_same(tmp_path):
    adversary = Adversary(tmp_path)
    for site in adversary.honest:
        adversary.keys(site, 1)
    for site in adversary.honest:
        adversary.update(site, 1, adversary.honest, b"one model")
    context = adversary.uploads[-1].message.context
    three = tuple(names(5)[:3])
    assert not any(adversary.agree(site, context, three) for site in three)
