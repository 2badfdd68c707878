"""Releases and their combined cost: the ledger's arithmetic, without its file.

Each patient belongs for good to one of 100 shards, and a release touches a range of shards. What is
spent is the most that any one shard has spent (parallel composition, McSherry 2009, theorem 4), so
training does not use up the budget of patients who only validate, nor the reverse.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from consilium.shared.audit.events import Charged
from consilium.shared.errors import AuditError
from consilium.shared.privacy.accounting import Events, PrivacyEvent, epsilon_spent

SHARDS = 100
PATIENT = "patient"


@dataclass(frozen=True, kw_only=True)
class Release:
    """Something about to leave: its study, round and purpose, privacy events, and shards.

    ``study_digest`` is the approved study, whose budget is charged for all of its runs together;
    ``study_hash`` identifies one run. ``shards`` is (low, high), high excluded, between 0 and 100;
    equal numbers mean no patient. ``unit`` is what the study counts as a patient, "patient" or
    "recording".
    """

    study_digest: bytes
    study_hash: bytes
    study_name: str
    round: int
    purpose: str
    events: Events
    shards: tuple[int, int]
    unit: str = PATIENT


@dataclass(frozen=True, kw_only=True)
class Account:
    """An account of epsilon at ``delta``, against a bound.

    spent: cost of confirmed releases. reserved: what reserved releases add to it. left: bound -
    spent - reserved.
    """

    spent: float
    reserved: float
    left: float
    bound: float
    delta: float


@dataclass(frozen=True, kw_only=True)
class StudyAccount:
    """One study's account, against the study's own budget."""

    study_digest: bytes
    study_name: str
    releases: int
    account: Account
    unit: str = PATIENT


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The account of every study, and the hospital's lifetime account over all studies."""

    studies: tuple[StudyAccount, ...]
    total: Account


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """An entry of the ledger, by rising number; times are ISO 8601."""

    number: int
    release: Release
    study_epsilon: float
    study_delta: float
    confirmed: bool
    reserved_at: str
    confirmed_at: str | None


@dataclass(frozen=True, kw_only=True)
class WriteOff:
    """Epsilon of the lifetime that counts as spent in place of all entries up to number ``upto``.

    A ledger that cannot know everything that was spent is closed with the whole lifetime budget:
    the lost ledger kept all releases together within it. What is released afterwards adds to it
    (basic composition: Dwork and Roth 2014, theorem 3.16), epsilons and deltas alike.
    """

    upto: int
    epsilon: float


NOTHING_WRITTEN_OFF = WriteOff(upto=0, epsilon=0.0)


def account_of(
    entries: Iterable[LedgerEntry],
    bound: float,
    delta: float,
    written_off: WriteOff = NOTHING_WRITTEN_OFF,
) -> Account:
    """Return the account of these entries against a bound on epsilon at ``delta``."""
    entries = [entry for entry in entries if entry.number > written_off.upto]
    confirmed = [entry.release for entry in entries if entry.confirmed]
    spent = written_off.epsilon + largest_spent(confirmed, delta)
    charged = written_off.epsilon + largest_spent([entry.release for entry in entries], delta)
    return Account(
        spent=spent,
        reserved=charged - spent,
        left=max(0.0, bound - charged),
        bound=bound,
        delta=delta,
    )


def largest_spent(releases: Iterable[Release], delta: float) -> float:
    """Return the most that any shard has spent: epsilon at ``delta`` of its releases."""
    releases = list(releases)
    edges = sorted({edge for release in releases for edge in release.shards})
    spent = 0.0
    for low in edges[:-1]:
        touching = [r for r in releases if r.shards[0] <= low < r.shards[1]]
        events = tuple(event for release in touching for event in release.events)
        spent = max(spent, epsilon_spent(events, delta))
    return spent


def charges_to_json(releases: Sequence[Release]) -> str:
    """Return what the audit log says of releases of one round, to charge them again from it."""
    plain = [
        [release.purpose, *release.shards, [asdict(event) for event in release.events]]
        + ([] if release.unit == PATIENT else [release.unit])
        for release in releases
    ]
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def releases_charged(charged: Charged) -> tuple[Release, ...]:
    """Return the releases that an entry of the audit log says were charged.

    Raises:
        AuditError: it is not written as :func:`charges_to_json` writes it.
    """
    try:
        return tuple(
            Release(
                study_digest=charged.study_digest,
                study_hash=charged.study_hash,
                study_name=charged.study,
                round=charged.round,
                purpose=purpose,
                events=tuple(PrivacyEvent(**fields) for fields in events),
                shards=(low, high),
                unit=str(unit[0]) if unit else PATIENT,
            )
            for purpose, low, high, events, *unit in json.loads(charged.charges)
        )
    except (ValueError, TypeError) as error:
        raise AuditError(
            f"the charges of round {charged.round} of study {charged.study} in the audit log are "
            "malformed; run 'audit verify'"
        ) from error
