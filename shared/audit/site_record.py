"""What a site's audit log says of its releases, against which its other stores are compared."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from consilium.shared.audit.entry import AuditEntry, line_digest
from consilium.shared.audit.events import (
    AuditEvent,
    BudgetCarried,
    Carried,
    Charged,
    OwnPartGivenUp,
    Released,
)
from consilium.shared.audit.reading import read_lines
from consilium.shared.errors import AuditError


@dataclass(frozen=True, kw_only=True)
class RecordedRelease:
    """A release, the number of its entry, and what it cost if that was recorded with it."""

    number: int
    released: Released
    charged: Charged | None


@dataclass(kw_only=True)
class SiteRecord:
    """The releases of a log.

    Attributes:
        entries: number of the last entry; 0 if there is none.
        releases: in order.
        rounds: by run (study hash), the highest round released.
        own_parts: by run, what its last release said of the part that stays at the site.
        digests: by entry asked for, its line's digest, if the log has that entry.
        carried: what was spent under the hospital's former identity, in order.
        written_off: epsilon that counted as spent there beside it.
        former: that identity, 32 bytes; empty if there was none.
    """

    entries: int = 0
    releases: list[RecordedRelease] = field(default_factory=list)
    rounds: dict[bytes, int] = field(default_factory=dict)
    own_parts: dict[bytes, Charged] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    carried: list[Carried] = field(default_factory=list)
    written_off: float = 0.0
    former: bytes = b""


def read_site_record(path: Path, entries: Collection[int] = ()) -> SiteRecord:
    """Read a site's log once; lines that are no entries are left to ``check_log``.

    Args:
        path: the log.
        entries: numbers of the entries whose digests are wanted.

    Raises:
        AuditError: the file cannot be read.
    """
    record, wanted = SiteRecord(), frozenset(entries)
    before: AuditEvent | None = None
    for line in read_lines(path):
        try:
            entry = AuditEntry.from_line(line)
        except AuditError:
            continue
        record.entries = entry.number
        if entry.number in wanted:
            record.digests[entry.number] = line_digest(line)
        if isinstance(entry.event, Released):
            _take(record, entry.number, entry.event, before)
        if isinstance(entry.event, OwnPartGivenUp):
            record.own_parts.pop(entry.event.study_hash, None)
        if isinstance(entry.event, Carried):
            record.carried.append(entry.event)
        if isinstance(entry.event, BudgetCarried):
            record.written_off, record.former = entry.event.written_off, entry.event.identity
        before = entry.event
    return record


def _take(record: SiteRecord, number: int, released: Released, before: AuditEvent | None) -> None:
    run = released.study_hash
    place = (run, released.round)
    charged = before if isinstance(before, Charged) else None
    if charged is not None and (charged.study_hash, charged.round) != place:
        charged = None
    record.releases.append(RecordedRelease(number=number, released=released, charged=charged))
    record.rounds[run] = max(released.round, record.rounds.get(run, 0))
    if charged is not None and charged.own_part:
        record.own_parts[run] = charged
