"""Releases, and what they cost together: the arithmetic of the ledger, without its file.

Each patient belongs for ever to one of 100 shards. A release touches a range of shards, and what
is spent is the most that any one shard has spent (parallel composition, McSherry 2009, theorem 4):
patients who train and patients who validate do not pay for each other.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from consilium.shared.privacy.accounting import Events, epsilon_spent

SHARDS = 100


@dataclass(frozen=True, kw_only=True)
class Release:
    """Something about to leave: which study, round and purpose, what happened, to which shards.

    ``study_digest`` is the study as approved, whose budget is charged however often it is run;
    ``study_hash`` is one run of it. ``shards`` is (low, high), high excluded, out of 0 to 100;
    equal numbers mean nobody.
    """

    study_digest: bytes
    study_hash: bytes
    study_name: str
    round: int
    purpose: str
    events: Events
    shards: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Account:
    """Epsilon at ``delta``: what confirmed releases cost, all with reserved ones, and the bound.

    spent: confirmed releases. reserved: what reserved ones add. left: bound - spent - reserved.
    """

    spent: float
    reserved: float
    left: float
    bound: float
    delta: float


@dataclass(frozen=True, kw_only=True)
class StudyAccount:
    """One study's account, by the study's own budget."""

    study_digest: bytes
    study_name: str
    releases: int
    account: Account


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Every study's account and the hospital's own over all studies."""

    studies: tuple[StudyAccount, ...]
    total: Account


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """A release as the ledger has it; times are ISO 8601."""

    release: Release
    study_epsilon: float
    study_delta: float
    confirmed: bool
    reserved_at: str
    confirmed_at: str | None


def account_of(entries: Iterable[LedgerEntry], bound: float, delta: float) -> Account:
    """Account of these entries against a bound on epsilon at ``delta``."""
    entries = list(entries)
    spent = largest_spent([entry.release for entry in entries if entry.confirmed], delta)
    charged = largest_spent([entry.release for entry in entries], delta)
    return Account(
        spent=spent,
        reserved=charged - spent,
        left=max(0.0, bound - charged),
        bound=bound,
        delta=delta,
    )


def largest_spent(releases: Iterable[Release], delta: float) -> float:
    """The most that any shard has spent: epsilon at ``delta`` of the releases touching it."""
    releases = list(releases)
    edges = sorted({edge for release in releases for edge in release.shards})
    spent = 0.0
    for low in edges[:-1]:
        touching = [r for r in releases if r.shards[0] <= low < r.shards[1]]
        events = tuple(event for release in touching for event in release.events)
        spent = max(spent, epsilon_spent(events, delta))
    return spent
