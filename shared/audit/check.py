"""Checking an audit log: the first line that does not fit, and why.

A log is checked against itself (numbers, chain, signatures) and, where the other side's log is at
hand, against the heads that side has recorded (*anchors*). Only they reveal lines missing at the
end, or a log that its owner has rewritten.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from consilium.shared.audit.entry import (
    LARGEST_LINE,
    AuditEntry,
    genesis,
    line_digest,
    rotation_statement,
)
from consilium.shared.audit.events import Diverged, Healed, KeyRotated, Opened
from consilium.shared.audit.heads import AuditHead, is_signed
from consilium.shared.audit.reading import identities_of, read_lines
from consilium.shared.errors import AuditError


class Reason(StrEnum):
    """Why a line does not fit."""

    ALTERED = "altered"
    REMOVED = "removed"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    TORN = "torn"
    WRONG_SIGNER = "wrong signer"
    FOREIGN_HEAD = "foreign head"


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """The first line that does not fit; lines count from 1."""

    line: int
    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason.value}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What a log holds as far as it verifies.

    Attributes:
        owner: of the log; empty if not even line 1 verifies.
        entries: lines that verify, from the first.
        head: digest of the last of them.
        events: how many of each kind.
        anchors: heads recorded by the other side that this log was found to continue.
        healed: lines at which a crash was healed.
        diverged: lines at which the other side showed a head that does not follow its last.
        finding: the first line that does not fit, or None.
    """

    owner: str
    entries: int
    head: bytes
    events: dict[str, int]
    anchors: int
    healed: tuple[int, ...]
    diverged: tuple[int, ...]
    finding: Mismatch | None


@dataclass(kw_only=True)
class _Walk:
    """State of the reading: what the next line must chain to, and who must sign it."""

    trusted: bytes
    owner: str = ""
    number: int = 0
    last: bytes = b""
    signer: bytes = b""
    events: Counter[str] = field(default_factory=Counter)
    anchored: int = 0
    anchors: int = 0
    healed: list[int] = field(default_factory=list)
    diverged: list[int] = field(default_factory=list)


class _MisfitError(Exception):
    """A line does not fit."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail


def check_log(
    path: Path, *, trusted: bytes, owner: str, anchors: Iterable[AuditHead] = ()
) -> AuditReport:
    """Read a whole log and say where it first does not fit.

    A log that another process is writing is checked up to what was complete at the start.

    Args:
        path: the log.
        trusted: the owner's Ed25519 identity (32 bytes), known from elsewhere than the log: the
            one the log was begun with or, after rotations, the present one.
        owner: whose log it must be.
        anchors: heads of this log that the other side has recorded, as :func:`recorded_heads`
            gives them; kept in memory, about 200 bytes each.

    Raises:
        AuditError: the file cannot be read.
    """
    walk = _Walk(trusted=trusted)
    shown = {head.number: head.digest for head in anchors}
    finding = None
    try:
        for line in read_lines(path):
            if walk.number == 0:
                _begin(walk, line, owner, path)
            _step(walk, line)
            _check_anchor(walk, shown)
        _check_end(walk, shown)
    except _MisfitError as misfit:
        number = walk.number + 1
        reason, detail = misfit.reason, misfit.detail
        if reason is Reason.REMOVED and _occurs_later(path, walk):
            reason = Reason.REORDERED
            detail = f"entry {number} is found further down"
        finding = Mismatch(line=number, reason=reason, detail=detail)
    return AuditReport(
        owner=walk.owner,
        entries=walk.number,
        head=walk.last,
        events=dict(walk.events),
        anchors=walk.anchors,
        healed=tuple(walk.healed),
        diverged=tuple(walk.diverged),
        finding=finding,
    )


def _read(line: bytes) -> AuditEntry:
    """Return the entry of a line whose form and signature are right, whoever signed it."""
    if not line.endswith(b"\n") and len(line) <= LARGEST_LINE:
        raise _MisfitError(
            Reason.TORN,
            f"its {len(line)} bytes have no line break at the end: a crash while it was written, "
            "which the next start heals, or the log was cut there",
        )
    try:
        entry = AuditEntry.from_line(line)
    except AuditError as error:
        raise _MisfitError(Reason.ALTERED, str(error)) from error
    if not is_signed(entry.signer, entry.statement(), entry.signature):
        raise _MisfitError(Reason.ALTERED, "its signature does not verify")
    return entry


def _step(walk: _Walk, line: bytes) -> None:
    """Check one line against all before it, and move on to it."""
    entry = _read(line)
    if entry.signer != walk.signer:
        raise _MisfitError(
            Reason.WRONG_SIGNER,
            f"it is signed by {entry.signer.hex()[:16]}, not by {walk.signer.hex()[:16]}, whose "
            "log this is",
        )
    expected = walk.number + 1
    if entry.number != expected:
        raise _MisfitError(
            Reason.REMOVED if entry.number > expected else Reason.REORDERED,
            f"entry {entry.number} stands where entry {expected} belongs",
        )
    if entry.previous != walk.last:
        raise _MisfitError(
            Reason.ALTERED, "it does not continue the line above: one of the two is of another log"
        )
    _take(walk, entry, line)


def _begin(walk: _Walk, line: bytes, owner: str, path: Path) -> None:
    """Take the first line's signer as the log's, if it is the trusted one or rotates to it."""
    entry = _read(line)
    if entry.number != 1:
        raise _MisfitError(Reason.REMOVED, f"entry {entry.number} stands where entry 1 belongs")
    if not isinstance(entry.event, Opened) or entry.event.owner != owner:
        raise _MisfitError(Reason.WRONG_SIGNER, f"it does not begin as the log of {owner}")
    if walk.trusted != entry.signer and walk.trusted not in identities_of(path):
        raise _MisfitError(
            Reason.WRONG_SIGNER,
            f"the log is of {entry.signer.hex()[:16]}, and {walk.trusted.hex()[:16]} is trusted",
        )
    walk.owner, walk.signer = owner, entry.signer
    walk.last = genesis(owner, entry.signer)


def _take(walk: _Walk, entry: AuditEntry, line: bytes) -> None:
    """Move on to a line that fits."""
    if isinstance(entry.event, KeyRotated):
        statement = rotation_statement(
            walk.owner, walk.last, entry.signer, entry.event.new_identity
        )
        if not is_signed(entry.event.new_identity, statement, entry.event.endorsement):
            raise _MisfitError(
                Reason.WRONG_SIGNER, "the key it rotates to does not vouch for continuing this log"
            )
        walk.signer = entry.event.new_identity
    walk.number, walk.last = entry.number, line_digest(line)
    walk.events[entry.event.kind] += 1
    if isinstance(entry.event, Healed):
        walk.healed.append(entry.number)
    if isinstance(entry.event, Diverged):
        walk.diverged.append(entry.number)


def _check_anchor(walk: _Walk, shown: dict[int, bytes]) -> None:
    """Compare the line just taken with what the other side recorded of it."""
    recorded = shown.get(walk.number)
    if recorded is None:
        return
    if recorded != walk.last:
        line, since = walk.number, walk.anchored + 1
        walk.number -= 1  # the finding is about this line
        raise _MisfitError(
            Reason.FOREIGN_HEAD,
            f"the other side recorded another entry {line}, signed by this log's owner: the log "
            f"was written anew somewhere from line {since} to here",
        )
    walk.anchored, walk.anchors = walk.number, walk.anchors + 1


def _check_end(walk: _Walk, shown: dict[int, bytes]) -> None:
    """Check that nothing is missing at the end."""
    beyond = max(shown, default=0)
    if beyond > walk.number:
        raise _MisfitError(
            Reason.TRUNCATED,
            f"the log ends before it, and the other side recorded entry {beyond}",
        )
    if walk.number == 0:
        raise _MisfitError(Reason.TRUNCATED, "the log is empty")


def _occurs_later(path: Path, walk: _Walk) -> bool:
    """Tell whether the entry missing after ``walk`` comes later in the file, validly signed."""
    for line in read_lines(path):
        try:
            entry = AuditEntry.from_line(line)
        except AuditError:
            continue
        if entry.number == walk.number + 1 and entry.previous == (walk.last or entry.previous):
            return is_signed(entry.signer, entry.statement(), entry.signature)
    return False
