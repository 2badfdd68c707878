"""Which sites of a roster this hospital knows to be who they say they are.

A coordinator enrols the sites, so it can invent some, or show a hospital's name with a key of its
own. Only people can tell: they read their fingerprints to each other. A site counts as vouched for

- by us: this hospital checked its fingerprint itself; or
- by others: c + 1 hospitals that this hospital has checked say so, where c is the number of
  colluding sites that the study tolerates. One of them alone could be the one that lies.

Only hospitals that we checked ourselves are asked, never those that others vouch for: a chain is as
honest as its worst link, and one liar in it could add as many sites as it likes.

Guarantee: if at most c of the hospitals that this one has checked lie about whom they vouch for,
every site that counts as vouched for is the hospital of that name under its own key, or under one
that its recovery code names in its place (:mod:`consilium.shared.enrolment.recovery`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from consilium.shared.crypto.keys import Roster
from consilium.shared.enrolment.fingerprint import fingerprint
from consilium.shared.enrolment.vouchers import Vouchers
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one other site of a roster is known here.

    Attributes:
        site: its name.
        by: who vouches for it under the roster's key, this hospital included; of others only those
            that this hospital has checked.
        against: who vouches for it under another key; none, if this hospital vouches for this one.
        vouched: whether it counts as vouched for.
    """

    site: str
    by: tuple[str, ...]
    against: tuple[str, ...]
    vouched: bool


@dataclass(frozen=True, kw_only=True)
class RosterTrust:
    """What this hospital knows of others.

    Attributes:
        site: this hospital's name.
        own: fingerprints that it checked, by name.
        given: lists of other hospitals, by signer; their signatures have been verified.
        succeeded: the fingerprint in whose place another came by a verified succession, by the new
            one; who vouches for the former vouches for it.
    """

    site: str
    own: Mapping[str, bytes]
    given: Mapping[str, Vouchers]
    succeeded: Mapping[bytes, bytes] = field(default_factory=dict)

    def standings(self, study: Study, roster: Roster) -> tuple[Standing, ...]:
        """Return how each other site of the study is known, in the study's order."""
        identities = dict(roster.members)
        checked = [
            (signer, given.fingerprints)
            for signer, given in sorted(self.given.items())
            if self.own.get(signer) in self._of_one_hospital(given.signer)
        ]
        words = [(self.site, self.own), *checked]
        needed = witnesses_needed(study)
        return tuple(
            self._standing(other, fingerprint(other, identities[other]), words, needed)
            for other in study.sites
            if other != self.site
        )

    def _standing(
        self, site: str, shown: bytes, words: list[tuple[str, Mapping[str, bytes]]], needed: int
    ) -> Standing:
        said = {who: told[site] for who, told in words if site in told}
        same = self._of_one_hospital(shown)
        by = tuple(who for who, told in said.items() if told in same)
        against = tuple(who for who, told in said.items() if told not in same)
        if self.site in by:
            return Standing(site=site, by=by, against=(), vouched=True)
        vouched = not against and len(by) >= needed
        return Standing(site=site, by=by, against=against, vouched=vouched)

    def _of_one_hospital(self, shown: bytes) -> tuple[bytes, ...]:
        """Return this fingerprint and those in whose place it came."""
        same = [shown]
        while (former := self.succeeded.get(same[-1])) is not None and former not in same:
            same.append(former)
        return tuple(same)


def witnesses_needed(study: Study) -> int:
    """Return how many hospitals must vouch for a site that this one has not checked itself."""
    return study.aggregation.tolerated_collusion + 1


def vouched_by_default(study: Study) -> int:
    """Return how many others must be vouched for, of those summed with a site.

    A site that nobody vouched for may be the coordinator's, so it counts among the c that may
    collude: at most c may be unknown. And at least c + 1 are known, so that not all of them are
    among those c.
    """
    collusion = study.aggregation.tolerated_collusion
    return max(collusion + 1, study.group_size - 1 - collusion)


def summed_with(study: Study, site: str) -> frozenset[str]:
    """Return the other sites of this site's group: its update hides among theirs alone."""
    group = next(group for group in study.groups if site in group)
    return frozenset(group) - {site}
