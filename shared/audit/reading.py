"""Reading an audit log line by line, so that memory does not grow with it."""

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from consilium.shared.audit.entry import LARGEST_LINE, AuditEntry
from consilium.shared.audit.events import (
    Approved,
    HeadSeen,
    KeyRotated,
    Opened,
    RosterAgreed,
    RosterChanged,
    RosterInForce,
)
from consilium.shared.audit.heads import AuditHead, head_statement, is_signed
from consilium.shared.audit.segments import segments
from consilium.shared.errors import AuditError


def read_lines(path: Path, *, sealed: bool = True) -> Iterator[bytes]:
    """Yield the lines that are complete now, each at most :data:`LARGEST_LINE` bytes and a bit.

    Args:
        path: the file that is written.
        sealed: whether the lines of the sealed segments beside it come first.

    Raises:
        AuditError: a file cannot be read.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # not while a line is half written
            left = os.fstat(file.fileno()).st_size
            fcntl.flock(file, fcntl.LOCK_UN)
            for segment in segments(path) if sealed else ():
                if os.path.samestat(segment.stat(), os.fstat(file.fileno())):
                    break  # sealed since this began: its lines are this file's
                with segment.open("rb") as old:
                    while line := old.readline(LARGEST_LINE + 1):
                        yield line
            while left > 0 and (line := file.readline(min(left, LARGEST_LINE + 1))):
                left -= len(line)
                yield line
    except OSError as error:
        raise AuditError(
            f"audit log {path}: cannot be read ({error.strerror}); check the path and who may read "
            "it"
        ) from error


@contextmanager
def held_still(path: Path) -> Iterator[None]:
    """Let no process add to a log meanwhile; whoever wants to waits.

    Raises:
        OSError: the file cannot be opened.
    """
    while True:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue  # it was sealed meanwhile
            yield
            return


def recorded_heads(path: Path, *, owner: str, identities: Collection[bytes]) -> list[AuditHead]:
    """Return the heads of ``owner``'s log that another side's log has recorded, in order.

    Heads that ``owner`` did not sign with one of its ``identities`` are nobody's evidence and are
    left out, so the other side cannot accuse with an invented one.

    Raises:
        AuditError: the file cannot be read.
    """
    heads = []
    for line in read_lines(path):
        try:
            event = AuditEntry.from_line(line).event
        except AuditError:
            continue  # check_log names it
        if isinstance(event, HeadSeen) and event.peer == owner:
            statement = head_statement(owner, event.number, event.digest)
            if any(is_signed(identity, statement, event.signature) for identity in identities):
                heads.append(
                    AuditHead(
                        owner=owner,
                        number=event.number,
                        digest=event.digest,
                        signature=event.signature,
                    )
                )
    return heads


def newest_heads(path: Path, identities: Mapping[str, bytes]) -> dict[str, AuditHead]:
    """Return the newest head of each owner's log that another side's log has recorded.

    Args:
        path: the log that recorded them.
        identities: Ed25519 identity (32 bytes) by owner; heads signed by none of them are left out.

    Raises:
        AuditError: the file cannot be read.
    """
    shown: dict[str, dict[int, HeadSeen]] = {}
    for line in read_lines(path):
        try:
            event = AuditEntry.from_line(line).event
        except AuditError:
            continue  # check_log names it
        if isinstance(event, HeadSeen) and event.peer in identities:
            shown.setdefault(event.peer, {})[event.number] = event
    newest = {}
    for owner, by_number in shown.items():
        for number in sorted(by_number, reverse=True):
            seen = by_number[number]
            statement = head_statement(owner, number, seen.digest)
            if is_signed(identities[owner], statement, seen.signature):
                newest[owner] = AuditHead(
                    owner=owner, number=number, digest=seen.digest, signature=seen.signature
                )
                break
    return newest


RosterEvent = Approved | RosterAgreed | RosterChanged | RosterInForce


def roster_events(path: Path, study_digest: bytes) -> list[RosterEvent]:
    """Return what a log says of a study's rosters and approvals, in order.

    Raises:
        AuditError: the file cannot be read.
    """
    found: list[RosterEvent] = []
    named = study_digest.hex().encode()
    for line in read_lines(path):
        if named not in line or not (b"roster-" in line or b"approved" in line):
            continue  # a site looks often, and parsing takes most of the time
        try:
            event = AuditEntry.from_line(line).event
        except AuditError:
            continue
        if isinstance(event, RosterEvent) and event.study_digest == study_digest:
            found.append(event)
    return found


def roster_changes(path: Path, study_digest: bytes) -> list[RosterChanged]:
    """Return which keys a log says changed in a study's rosters, in order.

    Raises:
        AuditError: the file cannot be read.
    """
    return [e for e in roster_events(path, study_digest) if isinstance(e, RosterChanged)]


def rosters_in_force(path: Path, study_digest: bytes) -> list[RosterInForce]:
    """Return which rosters with other sites a log says a study had, in order.

    Raises:
        AuditError: the file cannot be read.
    """
    return [e for e in roster_events(path, study_digest) if isinstance(e, RosterInForce)]


def identities_of(path: Path) -> tuple[bytes, ...]:
    """Return every identity that a log names as its own: the first and those rotated to.

    Raises:
        AuditError: the file cannot be read.
    """
    found: dict[bytes, None] = {}
    for line in read_lines(path):
        try:
            entry = AuditEntry.from_line(line)
        except AuditError:
            continue
        if isinstance(entry.event, Opened):
            found[entry.signer] = None
        if isinstance(entry.event, KeyRotated):
            found[entry.event.new_identity] = None
    return tuple(found)
