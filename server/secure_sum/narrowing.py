"""Which sites to leave out after sums came out void: adaptive group testing by whole rounds.

A round whose sum is garbage says that at least one of its sites broke the protocol, not which. So
the next rounds are asked of fewer sites: those left out behave as if they had dropped, and each
round is an ordinary one with fresh keys, noise and charges, over at least ``minimum`` sites. A
round that gives a sum speaks for its sites, one that is void against them; neither for good, as a
site may lie in one round and not in the next. What is believed is a probability for every small
set of culprits and for how often they lie (Bayes' rule); whom to leave out next is chosen among the
most suspected so that the outcome tells most (mutual information: of equal suspects about one half,
as in binary search). At most ``n - minimum`` sites can be left out of a round, so for ``minimum``
near two thirds of n the first rounds clear thirds, and the rest halves.

A culprit sees who takes part, and may lie only when a chosen other does. Then the two cannot be
told apart, and it may be the other that is left out; if the culprit does it again, it is found.

Guarantee: the sites to ask are never fewer than ``minimum``, and after ``most_rounds`` fresh rounds
an incident ends: without the most suspected, or with the statement that the study cannot go on.
"""

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.shared.crypto.transcript import digest

CONVICTED = 0.95
"""A site is left out for good once it is a culprit with at least this probability."""

CALM = 0.9
"""An incident ends once the next round gives a sum with at least this probability."""

HABITS = (0.99, 0.5, 0.15)
"""How often a culprit lies, as probability a round; equally likely beforehand."""

GLITCH = 1e-4
"""Probability that a round of honest sites is garbage."""

RARITY = 0.05
"""Each further culprit makes a set of culprits this much less likely beforehand."""

LIKELY = 0.5
"""At its bound an incident ends without so few of the most suspected that this is the probability
of a sum."""

TELLING = 0.5
"""Of the choices that tell at least this part of the most, the one likeliest to give a
sum is made."""

WORTHWHILE = 0.05
"""A round that is expected to tell fewer bits about the culprits is not asked for its own sake."""

LARGEST_FAMILY = 50_000
"""As many sets of culprits are weighed at most: up to 3 of 60 sites, 2 of 300, 1 of more."""

MOST_SEEN = 256
"""Different outcomes remembered; the oldest are forgotten."""


Possible = Callable[[frozenset[str]], bool]


def _any(_: frozenset[str]) -> bool:
    """Every set of sites is possible."""
    return True


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An outcome: the sites of a round, whether it was garbage, and how often that was seen."""

    sites: frozenset[str]
    void: bool
    times: int = 1


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """What is known of one group's culprits, and whom the next round asks.

    Attributes:
        sites: of the group, at least ``minimum``.
        minimum: fewest sites whose sum is released.
        culprits: as many are sought in one incident.
        seen: outcomes since the first garbage.
        rounds: fresh rounds of the open incident so far; 0 if there is none.
        narrowing: whether an incident is open.
        left_out: sites that the next rounds do without, as suspects.
        absent: sites that did not answer when they were last asked.
        hopeless: whether no sum can be had without the suspects; ``left_out`` then names them.
    """

    sites: tuple[str, ...]
    minimum: int
    culprits: int = 1
    seen: tuple[Seen, ...] = ()
    rounds: int = 0
    narrowing: bool = False
    left_out: tuple[str, ...] = ()
    absent: frozenset[str] = frozenset()
    hopeless: bool = False

    @property
    def asked(self) -> tuple[str, ...]:
        """The sites that the next round asks, in the group's order."""
        return tuple(site for site in self.sites if site not in self.left_out)

    @property
    def most_rounds(self) -> int:
        """Fresh rounds of one incident at most."""
        return max(1, self.culprits) * (2 * math.ceil(math.log2(len(self.sites))) + 2)

    def after(
        self,
        *,
        given: Collection[str] = (),
        garbage: Sequence[Collection[str]] = (),
        possible: Possible = _any,
    ) -> "Narrowing":
        """Return what is known after a round.

        Args:
            given: sites whose sum the round gave; empty if it was void.
            garbage: sets of sites, in each of which at least one broke the protocol.
            possible: whether a round can be had of these sites alone (in a sparse graph of masks).
        """
        if not garbage and not self.seen:
            return self
        outcomes = [(sites, True) for sites in garbage]
        outcomes += [(given, False)] if given else []
        heard = [sites for sites, _ in outcomes if len(sites) >= self.minimum]
        absent = (self.absent | set(self.asked)).difference(*heard) if heard else self.absent
        after = replace(
            self,
            seen=_with_outcomes(self.seen, outcomes),
            absent=absent,
            rounds=self.rounds + 1 if self.narrowing else 0,
            narrowing=self.narrowing or bool(garbage),
        )
        return after._decided(possible) if after.narrowing else after

    def _decided(self, possible: Possible) -> "Narrowing":
        """Return the same with the sites to leave out next, and whether the incident is over."""
        belief, spare = _Belief(self.sites, self.seen), len(self.sites) - self.minimum
        suspects = belief.by_suspicion
        guilty = [site for site in suspects if belief.probability[site] >= CONVICTED]
        if len(guilty) > spare:
            return self._over(guilty, hopeless=True)
        if belief.clean(guilty) >= CALM:
            return self._over(guilty)
        choices = [
            suspects[:count]
            for count in range(spare + 1)
            if count == 0 or possible(frozenset(suspects[count:]))
        ]
        enough = [out for out in choices if belief.clean(out) >= LIKELY]
        present = [out for out in choices if len(out) <= max(0, spare - len(self.absent))]
        told = [belief.information(out) for out in present]
        if self.rounds < self.most_rounds and (max(told) >= WORTHWHILE or not enough):
            telling = [
                out for out, bits in zip(present, told, strict=True) if bits >= TELLING * max(told)
            ]
            chosen: list[str] = max(telling, key=belief.clean)
            return replace(self, left_out=tuple(sorted(chosen)))
        if enough:
            return self._over(enough[0])
        return self._over(belief.narrowed(), hopeless=True)

    def _over(self, left_out: Collection[str], *, hopeless: bool = False) -> "Narrowing":
        out = tuple(sorted(left_out))
        return replace(self, left_out=out, hopeless=hopeless, narrowing=False, rounds=0)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "sites": list(self.sites),
            "minimum": self.minimum,
            "culprits": self.culprits,
            "seen": [[sorted(one.sites), one.void, one.times] for one in self.seen],
            "rounds": self.rounds,
            "narrowing": self.narrowing,
            "left_out": list(self.left_out),
            "absent": sorted(self.absent),
            "hopeless": self.hopeless,
        }

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Narrowing":
        """Return what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is not that.
        """
        return cls(
            sites=tuple(facts["sites"]),
            minimum=facts["minimum"],
            culprits=facts["culprits"],
            seen=tuple(
                Seen(sites=frozenset(sites), void=void, times=times)
                for sites, void, times in facts["seen"]
            ),
            rounds=facts["rounds"],
            narrowing=facts["narrowing"],
            left_out=tuple(facts["left_out"]),
            absent=frozenset(facts["absent"]),
            hopeless=facts["hopeless"],
        )


def _with_outcomes(
    seen: tuple[Seen, ...], outcomes: Sequence[tuple[Collection[str], bool]]
) -> tuple[Seen, ...]:
    counted = {(one.sites, one.void): one.times for one in seen}
    for sites, void in outcomes:
        key = frozenset(sites), void
        counted[key] = counted.pop(key, 0) + 1
    kept = list(counted.items())[-MOST_SEEN:]
    return tuple(Seen(sites=sites, void=void, times=times) for (sites, void), times in kept)


@lru_cache(maxsize=4)
def _family(sites: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return all sets of culprits weighed: members (H, 3), padded; prior probability (H,)."""
    rows: list[tuple[int, ...]] = [()]
    sizes = [1]
    for size in (1, 2, 3):
        if size > sites or len(rows) + math.comb(sites, size) > LARGEST_FAMILY:
            break
        rows += itertools.combinations(range(sites), size)
        sizes.append(math.comb(sites, size))
    members_Y3 = np.full((len(rows), 3), sites)
    for index, row in enumerate(rows):
        members_Y3[index, : len(row)] = row
    prior_Y = np.concatenate(
        [np.full(count, RARITY**size / count) for size, count in enumerate(sizes)]
    )
    return members_Y3, prior_Y / prior_Y.sum()


class _Belief:
    """Probabilities of every set of culprits and habit, given what was seen."""

    def __init__(self, sites: tuple[str, ...], seen: tuple[Seen, ...]) -> None:
        self._sites = sites
        self._members_Y3, prior_Y = _family(len(sites))
        log_Y3 = np.repeat(np.log(prior_Y)[:, None], len(HABITS), axis=1)
        for one in seen:
            clean_Y3 = self._clean_Y3(one.sites)
            log_Y3 += one.times * np.log(1 - clean_Y3 if one.void else clean_Y3)
        weight_Y3 = np.exp(log_Y3 - log_Y3.max())
        self._weight_Y3 = weight_Y3 / weight_Y3.sum()

    def _clean_Y3(self, asked: Collection[str]) -> NDArray[np.float64]:
        """Probability that a round of these sites gives a sum, by set of culprits and habit."""
        there = np.array([site in asked for site in (*self._sites, None)])
        liars_Y = there[self._members_Y3].sum(axis=1)
        clean_Y3: NDArray[np.float64] = (1 - np.array(HABITS)) ** liars_Y[:, None]
        return (1 - GLITCH) * clean_Y3

    @cached_property
    def probability(self) -> dict[str, float]:
        """By site, the probability that it is a culprit."""
        weight_Y = self._weight_Y3.sum(axis=1)
        members_3Y = self._members_Y3.T
        total = np.bincount(members_3Y.ravel(), np.tile(weight_Y, len(members_3Y)))
        return {site: float(total[place]) for place, site in enumerate(self._sites)}

    @cached_property
    def by_suspicion(self) -> list[str]:
        """The sites, most suspected first; equals in an order that nobody chooses."""

        def rank(site: str) -> tuple[float, bytes]:
            return -round(self.probability[site], 9), digest("narrowing", len(self._sites), site)

        return sorted(self._sites, key=rank)

    def clean(self, left_out: Collection[str]) -> float:
        """Probability that a round without these sites gives a sum."""
        clean_Y3 = self._clean_Y3(set(self._sites) - set(left_out))
        return float((self._weight_Y3 * clean_Y3).sum())

    def information(self, left_out: Collection[str]) -> float:
        """What a round without these sites is expected to tell about the culprits, in bits."""
        clean_Y3 = self._clean_Y3(set(self._sites) - set(left_out))
        noise = float((self._weight_Y3 * _entropy(clean_Y3)).sum())
        return float(_entropy(np.array((self._weight_Y3 * clean_Y3).sum()))) - noise

    def narrowed(self) -> list[str]:
        """The most suspected sites that hold all culprits with probability ``CALM``."""
        weight_Y = self._weight_Y3.sum(axis=1)
        order = self.by_suspicion
        for count in range(1, len(order)):
            named = np.array([site in order[:count] for site in self._sites] + [True])
            if weight_Y[named[self._members_Y3].all(axis=1)].sum() >= CALM:
                return order[:count]
        return order


def _entropy(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of a yes with this probability, in bits."""
    inside = np.clip(chance, 1e-300, 1 - 1e-16)
    return -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside))
