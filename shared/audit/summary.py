"""What an audit log says at a glance, for status pages; nothing is verified here."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from consilium.shared.audit.entry import AuditEntry, line_digest
from consilium.shared.audit.events import (
    Diverged,
    HeadSeen,
    Refused,
    RefusedOften,
    Released,
    RoundClosed,
)
from consilium.shared.audit.reading import read_lines
from consilium.shared.errors import AuditError


@dataclass(frozen=True, kw_only=True)
class AuditSummary:
    """Counts and latest events; times are ISO 8601.

    Attributes:
        entries: lines that are entries.
        head: digest of the last of them.
        last_at: when it was written.
        counts: entries by kind.
        peers: by peer, the last entry of its log that was seen.
        released: the last release and when; ``refused`` and ``closed`` likewise.
        divergences: by peer, how often its log did not continue what it had shown.
    """

    entries: int
    head: bytes
    last_at: str
    counts: dict[str, int]
    peers: dict[str, int]
    released: tuple[str, Released] | None
    refused: tuple[str, Refused] | None
    closed: tuple[str, RoundClosed] | None
    divergences: dict[str, int]


def summarise(path: Path) -> AuditSummary:
    """Read a log once, line by line.

    Raises:
        AuditError: the file cannot be read.
    """
    counts: Counter[str] = Counter()
    divergences: Counter[str] = Counter()
    peers: dict[str, int] = {}
    released: tuple[str, Released] | None = None
    refused: tuple[str, Refused] | None = None
    closed: tuple[str, RoundClosed] | None = None
    entries, head, last_at = 0, b"", ""
    for line in read_lines(path):
        try:
            entry = AuditEntry.from_line(line)
        except AuditError:
            continue
        entries, head, last_at = entries + 1, line_digest(line), entry.at
        counts[entry.event.kind] += 1
        match entry.event:
            case Released():
                released = (entry.at, entry.event)
            case Refused():
                refused = (entry.at, entry.event)
            case RefusedOften() as often:
                refused = (entry.at, _latest(often))
            case RoundClosed():
                closed = (entry.at, entry.event)
            case HeadSeen(peer=peer, number=number):
                peers[peer] = number
            case Diverged(peer=peer, shown_number=number):
                peers[peer] = number
                divergences[peer] += 1
            case _:
                pass
    return AuditSummary(
        entries=entries,
        head=head,
        last_at=last_at,
        counts=dict(counts),
        peers=peers,
        released=released,
        refused=refused,
        closed=closed,
        divergences=dict(divergences),
    )


def _latest(often: RefusedOften) -> Refused:
    """Return a line of many refusals as the one that status pages show."""
    asked, _, sentence = often.first.partition(": ")
    more = f" ({often.refusals} refusals within {often.seconds} s)" if often.refusals > 1 else ""
    return Refused(
        peer=", ".join(often.peers)[:64],
        asked=asked[:100],
        code=", ".join(often.codes)[:64],
        sentence=f"{sentence}{more}",
    )
