"""The graph of masks: who is whose neighbour, and that honest survivors stay connected."""

import random
import re
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import hypergeom

from consilium.shared.errors import StudyError
from consilium.shared.secure_sum.mask_graph import (
    check_degree,
    least_degree,
    neighbours,
    second_eigenvalue,
    sharing_threshold,
    stays_connected,
    void_probability,
)


def adjacency(sites, degree):
    matrix = np.zeros((sites, sites))
    for position in range(sites):
        matrix[position, list(neighbours(position, sites, degree))] = 1
    return matrix


def connected(matrix, sites):
    """Breadth first, the slow and obvious way."""
    sites = set(sites)
    reached, edge = set(), {min(sites)}
    while edge:
        reached |= edge
        edge = {b for a in edge for b in sites if matrix[a, b]} - reached
    return reached == sites


@pytest.mark.parametrize(("sites", "degree"), [(9, 4), (9, 8), (10, 6), (201, 58), (1000, 82)])
def test_every_site_has_the_degrees_number_of_neighbours_and_the_relation_is_mutual(sites, degree):
    matrix = adjacency(sites, degree)
    assert (matrix.sum(axis=1) == degree).all()
    assert (matrix == matrix.T).all()
    assert not matrix.diagonal().any()


@pytest.mark.parametrize(("sites", "degree"), [(9, 4), (10, 6), (33, 12), (201, 58)])
def test_the_second_eigenvalue_is_that_of_the_adjacency_matrix(sites, degree):
    spectrum = np.linalg.eigvalsh(adjacency(sites, degree))
    assert second_eigenvalue(sites, degree) == pytest.approx(spectrum[-2], abs=1e-8)


@pytest.mark.parametrize(
    ("sites", "degree", "collusion"), [(9, 6, 1), (9, 4, 0), (10, 6, 2), (11, 6, 1)]
)
def test_whoever_survives_and_whoever_colludes_the_honest_survivors_are_connected(
    sites, degree, collusion
):
    """Exhaustive: every set of survivors that sites would open, less every set of colluders."""
    assert stays_connected(sites, degree, collusion)
    matrix = adjacency(sites, degree)
    needed = sharing_threshold(degree, collusion)
    opened = 0
    for size in range(1, sites + 1):
        for survivors in combinations(range(sites), size):
            chosen = list(survivors)
            if (matrix[np.ix_(chosen, chosen)].sum(axis=1) + 1 < needed).any():
                continue
            opened += 1
            for colluders in combinations(survivors, collusion):
                assert connected(matrix, set(survivors) - set(colluders))
    assert opened > 1


def test_a_large_graph_keeps_honest_survivors_connected_too():
    """Sampled, with colluders chosen as neighbours of one site, where they hurt most."""
    sites, collusion = 250, 12
    degree = least_degree(sites, collusion)
    matrix, needed = adjacency(sites, degree), sharing_threshold(degree, collusion)
    rng = random.Random(1)
    opened = 0
    for _ in range(40):
        survivors = set(rng.sample(range(sites), 205))
        while True:
            weak = {s for s in survivors if matrix[s, list(survivors)].sum() + 1 < needed}
            if not weak:
                break
            survivors -= weak
        if not survivors:
            continue
        opened += 1
        victim = min(survivors)
        near = sorted(neighbours(victim, sites, degree) & survivors)
        assert connected(matrix, survivors - set(rng.sample(near, collusion)))
    assert opened > 30


def test_a_ring_of_near_neighbours_would_fall_apart():
    """A control: not every graph of this degree is good, so the condition is not always true."""
    assert not stays_connected(41, 4, 1)
    assert second_eigenvalue(41, 4) > 2


@pytest.mark.parametrize(("degree", "collusion"), [(4, 0), (6, 1), (74, 40), (58, 3)])
def test_holders_and_colluding_sites_cannot_open_both_secrets(degree, collusion):
    """Each honest holder reveals one kind of share, each colluding one both."""
    holders, needed = degree + 1, sharing_threshold(degree, collusion)
    assert holders + collusion < 2 * needed
    assert holders + collusion >= 2 * (needed - 1)


@pytest.mark.parametrize(
    ("degree", "words"), [(7, "even number"), (0, "even number"), (14, "even")]
)
def test_impossible_degrees_are_refused(degree, words):
    with pytest.raises(StudyError, match=words):
        check_degree(13, degree, 0)


def test_degrees_that_do_not_surely_connect_are_refused():
    with pytest.raises(StudyError, match=re.escape("choose 66, or tolerate fewer")):
        check_degree(201, 8, 5)
    check_degree(201, 66, 5)
    check_degree(201, 200, 150)


def test_the_probability_of_a_void_round_is_the_hypergeometric_tail():
    sites, degree, collusion, dropped = 250, 40, 3, 50
    alive = hypergeom(sites - 1, sites - 1 - dropped, degree)
    expected = sites * alive.cdf(sharing_threshold(degree, collusion) - 1)
    assert void_probability(sites, degree, collusion, dropped) == pytest.approx(expected, rel=1e-9)
    assert void_probability(sites, degree, collusion, 0) == 0
    assert void_probability(sites, degree, collusion, 200) == 1


def test_the_least_degree_grows_with_dropout_and_collusion_and_is_far_below_everyone():
    assert least_degree(201, 1) == 58
    assert least_degree(1000, 1) == 82
    assert least_degree(1000, 1, dropout=0.1) < 82 < least_degree(1000, 100)
    for sites, collusion in ((201, 1), (300, 30), (1000, 5)):
        degree = least_degree(sites, collusion)
        assert stays_connected(sites, degree, collusion)
        assert void_probability(sites, degree, collusion, -(-sites // 5)) <= 1e-6


def test_where_no_sparse_graph_serves_everyone_is_a_neighbour():
    assert least_degree(7, 3) == 6
    assert neighbours(2, 4, 3) == {0, 1, 3}
