"""Which sites share masks: each with all others, or in a large study with its neighbours alone.

The sparse graph is a circulant: sites stand on a ring in the roster's order, and a site's
neighbours are those at certain distances either way. The distances follow from the numbers of
sites and neighbours by hashing, so nobody chooses the graph and every site knows it.

Guarantee: with at most c sites colluding, the honest survivors of a round whose survivors were
accepted are connected by masks that nobody else knows, so of their vectors nothing but the sum can
be computed (Bell et al., CCS 2020, lemma 4.4). It is exact, for any graph, any survivors the
coordinator picks and any c colluding sites, by this chain. Let k be the degree, A the graph's
adjacency matrix, mu its second largest eigenvalue. A site opens the survivors S only if each of
them has at least t - 1 neighbours in S, t the sharing threshold. Inside S

1. the second largest adjacency eigenvalue is at most mu (Cauchy's interlacing);
2. the second smallest Laplacian eigenvalue is therefore at least t - 1 - mu (Weyl's inequality on
   degrees minus adjacency);
3. so t - 1 - mu > c sites would have to leave before S falls apart (Fiedler 1973, theorem 4.1).

Parameters without t - 1 - mu > c are refused. Dropouts can only void a round; how often is what
the degree is chosen for.
"""

import math
from functools import lru_cache

import numpy as np

from consilium.shared.crypto.transcript import digest
from consilium.shared.errors import StudyError

COMPLETE_SITES = 100
"""Up to so many sites each shares masks with all others unless the study says otherwise."""

EXPECTED_DROPOUT = 0.2
"""Part of the sites that may fail in a round of a sparse graph before it is likely void."""

VOID_PROBABILITY = 1e-6
"""Probability at which a round of a sparse graph may be void with that many failed sites."""

_MARGIN = 1e-6  # far above the rounding of a sum of a thousand cosines


@lru_cache(maxsize=64)
def distances(sites: int, degree: int) -> tuple[int, ...]:
    """Distances on the ring at which neighbours stand, either way; ``degree`` / 2 of them, rising.

    They are those of 1, 2, ... below ``sites`` / 2 with the least hashes.
    """
    candidates = range(1, -(-sites // 2))
    chosen = sorted(candidates, key=lambda distance: digest("distance", sites, distance))
    return tuple(sorted(chosen[: degree // 2]))


def neighbours(position: int, sites: int, degree: int) -> frozenset[int]:
    """Positions of a site's neighbours on the ring; all others when ``degree`` is sites - 1."""
    if degree == sites - 1:
        return frozenset(range(sites)) - {position}
    steps = distances(sites, degree)
    ahead = {(position + step) % sites for step in steps}
    return frozenset(ahead | {(position - step) % sites for step in steps})


@lru_cache(maxsize=256)
def second_eigenvalue(sites: int, degree: int) -> float:
    """Second largest adjacency eigenvalue of the circulant: its Fourier coefficients but the first.

    Gray, "Toeplitz and Circulant Matrices" (2006), theorem 7.
    """
    frequencies = np.arange(1, sites // 2 + 1)
    angles = 2 * np.pi / sites * (frequencies[:, None] * np.array(distances(sites, degree)))
    return float((2 * np.cos(angles).sum(axis=1)).max())


def sharing_threshold(degree: int, collusion: int) -> int:
    """Shares, of ``degree`` + 1 dealt, that open a secret in the sparse graph.

    The least t with 2 t > degree + 1 + c: even if honest sites were told of different survivors,
    no more than c colluding ones could help to open both secrets of a site.
    """
    return (degree + 1 + collusion) // 2 + 1


def stays_connected(sites: int, degree: int, collusion: int) -> bool:
    """Tell whether honest survivors are connected for certain: t - 1 - mu > c (see above)."""
    surviving = sharing_threshold(degree, collusion) - 1
    return surviving - second_eigenvalue(sites, degree) > collusion + _MARGIN


def void_probability(sites: int, degree: int, collusion: int, dropped: int) -> float:
    """Bound on the probability that random dropouts void a round of the sparse graph.

    A site's secret opens only with shares of t neighbours that survive; how many do is
    hypergeometric, and the union bound is taken over all sites.

    Args:
        sites: of the roster.
        degree: neighbours of a site.
        collusion: most sites that may collude.
        dropped: sites that fail, chosen at random.
    """
    others, needed = sites - 1, sharing_threshold(degree, collusion)
    failing = sum(
        math.comb(others - dropped, alive) * math.comb(dropped, degree - alive)
        for alive in range(max(0, degree - dropped), min(needed, degree + 1))
    )
    return min(1.0, sites * (failing / math.comb(others, degree)))


def least_degree(sites: int, collusion: int, *, dropout: float = EXPECTED_DROPOUT) -> int:
    """The least degree that stays connected and is rarely void; sites - 1 if no sparse graph does.

    Args:
        sites: of the roster.
        collusion: most sites that may collude.
        dropout: part of the sites that may fail in a round.
    """
    dropped = math.ceil(dropout * sites)
    for degree in range(2, sites - 1, 2):
        if void_probability(
            sites, degree, collusion, dropped
        ) <= VOID_PROBABILITY and stays_connected(sites, degree, collusion):
            return degree
    return sites - 1


def check_degree(sites: int, degree: int, collusion: int) -> None:
    """Check that a graph of this degree keeps the guarantee above.

    Raises:
        StudyError: it does not; the sentence says which degree would.
    """
    if degree == sites - 1:
        return
    if not (2 <= degree < sites - 1 and degree % 2 == 0):
        raise StudyError(
            f"{degree} neighbours among {sites} sites are not possible; "
            f"choose an even number from 2 to {sites - 2}, or all {sites - 1}"
        )
    if not stays_connected(sites, degree, collusion):
        raise StudyError(
            f"{degree} neighbours among {sites} sites of which {collusion} may collude do not "
            "surely connect the honest ones; "
            f"choose {least_degree(sites, collusion)}, or tolerate fewer"
        )
