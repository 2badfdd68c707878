"""What a budget certificate says of a ledger, and a new ledger's entries from it.

Releases of one study on the same shards are added up (composition does not depend on their order),
so a certificate grows with the number of studies, not of rounds.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from consilium.client.ledger.releases import PATIENT, LedgerEntry, Release, WriteOff
from consilium.shared.audit.events import Carried
from consilium.shared.crypto.transcript import digest
from consilium.shared.errors import AuditError
from consilium.shared.privacy.accounting import Events, PrivacyEvent

PURPOSE = "carried"
EVENTS_A_RELEASE = 4  # so that an entry of the audit log holds them


@dataclass(frozen=True, kw_only=True)
class CarriedRelease:
    """What was spent in one study on some shards, by an identity that has been replaced.

    ``closed``: it was spent before a ledger was written off, so the study's budget counts as spent.
    """

    release: Release
    study_epsilon: float
    study_delta: float
    closed: bool


@dataclass(frozen=True, kw_only=True)
class SpentBudget:
    """All that a ledger counts as spent: sums by study and shards, and what was written off.

    ``split_key`` assigns the hospital's patients to their shards (32 bytes).
    """

    releases: tuple[CarriedRelease, ...]
    written_off: float
    split_key: bytes

    @property
    def closed(self) -> int:
        """How many of the releases, the first ones, are closed by a write-off."""
        return sum(one.closed for one in self.releases)

    def events(self, identity: bytes, certificate: bytes) -> list[Carried]:
        """Return the entries of the audit log that say what is carried over, closed ones first."""
        return [
            Carried(
                identity=identity,
                certificate_digest=certificate,
                study=one.release.study_name,
                study_digest=one.release.study_digest,
                study_hash=one.release.study_hash,
                round=one.release.round,
                study_epsilon=one.study_epsilon,
                study_delta=one.study_delta,
                charges=json.dumps(_fields(one), separators=(",", ":")),
                closed=one.closed,
            )
            for one in self.releases
        ]


def spent_budget(
    entries: Iterable[LedgerEntry], written_off: WriteOff, *, identity: bytes, split_key: bytes
) -> SpentBudget:
    """Return what a ledger counts as spent by this identity (32 bytes); reserved counts."""
    sums: dict[tuple[bool, bytes, tuple[int, int], str], dict[PrivacyEvent, int]] = {}
    last: dict[tuple[bool, bytes, tuple[int, int], str], LedgerEntry] = {}
    for entry in entries:
        release, closed = entry.release, entry.number <= written_off.upto
        place = (not closed, release.study_digest, release.shards, release.unit)
        last[place] = entry
        times = sums.setdefault(place, {})
        for event in release.events:
            kind = PrivacyEvent(
                mechanism=event.mechanism,
                sampling_rate=event.sampling_rate,
                noise_multiplier=event.noise_multiplier,
                steps=1,
            )
            times[kind] = times.get(kind, 0) + event.steps
    run, releases = digest("carried-budget", identity), list[CarriedRelease]()
    for place in sorted(sums, key=repr):
        whole = tuple(kind.repeated(steps) for kind, steps in sorted(sums[place].items()))
        for at in range(0, max(len(whole), 1), EVENTS_A_RELEASE):
            events = whole[at : at + EVENTS_A_RELEASE]
            releases.append(_carried(last[place], run, len(releases) + 1, events, bool(place[0])))
    return SpentBudget(
        releases=tuple(releases), written_off=written_off.epsilon, split_key=split_key
    )


def to_bytes(spent: SpentBudget) -> bytes:
    """Return the content of a certificate."""
    plain = {
        "releases": [
            {
                "study": one.release.study_name,
                "digest": one.release.study_digest.hex(),
                "epsilon": one.study_epsilon,
                "delta": one.study_delta,
                "closed": one.closed,
                "charges": _fields(one),
            }
            for one in spent.releases
        ],
        "written_off": spent.written_off,
        "split_key": spent.split_key.hex(),
    }
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def from_bytes(content: bytes, identity: bytes) -> SpentBudget:
    """Read the content of a certificate of this identity (32 bytes).

    Raises:
        AuditError: it is malformed.
    """
    run = digest("carried-budget", identity)
    try:
        plain = json.loads(content)
        releases = tuple(
            _from_fields(
                one["charges"],
                study_digest=bytes.fromhex(one["digest"]),
                study_hash=run,
                study=str(one["study"]),
                round=at,
                study_epsilon=float(one["epsilon"]),
                study_delta=float(one["delta"]),
                closed=bool(one["closed"]),
            )
            for at, one in enumerate(plain["releases"], 1)
        )
        return SpentBudget(
            releases=releases,
            written_off=float(plain["written_off"]),
            split_key=bytes.fromhex(plain["split_key"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise AuditError(
            "the content of the budget certificate is malformed; use another copy of it"
        ) from error


def carried_release(event: Carried) -> CarriedRelease:
    """Return what an entry of the audit log says was carried over.

    Raises:
        AuditError: it is malformed.
    """
    try:
        return _from_fields(
            json.loads(event.charges),
            study_digest=event.study_digest,
            study_hash=event.study_hash,
            study=event.study,
            round=event.round,
            study_epsilon=event.study_epsilon,
            study_delta=event.study_delta,
            closed=event.closed,
        )
    except (ValueError, TypeError) as error:
        raise AuditError(
            f"the budget carried over for study {event.study} in the audit log is malformed; run "
            "'audit verify'"
        ) from error


def _carried(
    last: LedgerEntry, run: bytes, number: int, events: Events, opened: bool
) -> CarriedRelease:
    release = last.release
    return CarriedRelease(
        release=Release(
            study_digest=release.study_digest,
            study_hash=run,
            study_name=release.study_name,
            round=number,
            purpose=PURPOSE,
            events=events,
            shards=release.shards,
            unit=release.unit,
        ),
        study_epsilon=last.study_epsilon,
        study_delta=last.study_delta,
        closed=not opened,
    )


def _fields(one: CarriedRelease) -> list[object]:
    release = one.release
    events = [[e.mechanism, e.sampling_rate, e.noise_multiplier, e.steps] for e in release.events]
    return [*release.shards, events, *([] if release.unit == PATIENT else [release.unit])]


def _from_fields(
    fields: list[object],
    *,
    study_digest: bytes,
    study_hash: bytes,
    study: str,
    round: int,
    study_epsilon: float,
    study_delta: float,
    closed: bool,
) -> CarriedRelease:
    low, high, events, *unit = fields
    if not isinstance(events, list) or not isinstance(low, int) or not isinstance(high, int):
        raise TypeError("shards and events")
    return CarriedRelease(
        release=Release(
            study_digest=study_digest,
            study_hash=study_hash,
            study_name=study,
            round=round,
            purpose=PURPOSE,
            events=tuple(
                PrivacyEvent(
                    mechanism=mechanism,
                    sampling_rate=rate,
                    noise_multiplier=noise,
                    steps=steps,
                )
                for mechanism, rate, noise, steps in events
            ),
            shards=(low, high),
            unit=str(unit[0]) if unit else PATIENT,
        ),
        study_epsilon=study_epsilon,
        study_delta=study_delta,
        closed=closed,
    )
