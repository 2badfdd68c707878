"""The audit log: append-only, hash-chained, signed, one JSON line per event.

A line holds its number, the time, the event, the digest of the line before it, the signer's
identity, and an Ed25519 signature over all of that. Numbers rise by one from 1. Line 1 chains to a
digest of the owner's name and identity.

Guarantee: when :meth:`AuditLog.append` returns, the entry is on disk; a process killed at any point
leaves a log whose acknowledged entries all verify. What an attacker who owns the disk can and
cannot hide is in docs/audit.md; :mod:`consilium.shared.audit.check` finds what does not fit.
"""

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from consilium.shared.audit.entry import (
    LARGEST_LINE,
    AuditEntry,
    genesis,
    line_digest,
)
from consilium.shared.audit.events import AuditEvent, Healed, KeyRotated, Opened, Sealed
from consilium.shared.audit.heads import AuditHead, is_signed
from consilium.shared.audit.segments import MOST, next_segment, segments
from consilium.shared.clock import utc_now
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE

FILE_NAME = "audit.jsonl"
SEALED_FILE = 0o400
_CHUNK = 1 << 12


class AuditLog:
    """One side's log, opened for writing; the file is made (mode 0600) if it is not there.

    Threads and processes may share the file: each append takes an exclusive lock on it and
    continues from the line that is last then. A line that a crash left unfinished was never
    acknowledged; opening replaces it by a :class:`Healed` entry that names its digest.

    Args:
        path: the file.
        owner: this side's name; a site's name, or ``coordinator``.
        key: signs the entries.
        version: of this build, noted in line 1 of a new log.
        clock: the time to be noted.

    Raises:
        AuditError: the file cannot be used, its last line does not verify, or the log is of
            another owner or key.
    """

    def __init__(
        self,
        path: Path,
        *,
        owner: str,
        key: IdentityKey,
        version: str,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.path, self.owner = path, owner
        self._key, self._clock = key, clock
        self._thread = threading.Lock()
        self._make_file()
        self._reached = 0
        with self._writing() as file:
            if os.fstat(file).st_size == 0:
                if segments(path):
                    raise self._foreign("its sealed segments are there, and it is empty")
                self._write(
                    file, (0, genesis(owner, key.public)), [Opened(owner=owner, version=version)]
                )
            self._last(file)
            self._check_owner(file)

    def append(self, *events: AuditEvent) -> AuditHead:
        """Add entries, in this order; return the new head once all are on disk.

        Raises:
            AuditError: nothing could be recorded, so what was to be recorded must not happen.
        """
        with self._writing() as file:
            return self._write(file, self._last(file), events)

    def head(self) -> AuditHead:
        """The last line's number and digest, signed.

        Raises:
            AuditError: the file cannot be used.
        """
        with self._writing() as file:
            return self._signed(*self._last(file))

    def head_at(self, number: int) -> AuditHead | None:
        """The head that this log had at an entry, signed; None if there is no such entry.

        The log is read backwards from its end.

        Raises:
            AuditError: the file cannot be used.
        """
        with self._writing() as file:
            found = _digest_at(file, number)
            for segment in reversed(segments(self.path)) if found is None else ():
                old = os.open(segment, os.O_RDONLY)
                try:
                    found = _digest_at(old, number)
                finally:
                    os.close(old)
                if found is not None:
                    break
        return self._signed(number, found) if found else None

    def seal(self, *, by: str) -> Path:
        """Close the file that is written as a segment, and go on in a new one; return the segment.

        Guarantee: a process killed at any point leaves either the one file or both, and no entry
        is lost or written twice.

        Args:
            by: who asked for it.

        Raises:
            AuditError: the files cannot be written; nothing has changed then.
        """
        with self._writing() as file:
            number, last = self._last(file)
            segment, place = next_segment(self.path)
            if segment > MOST:
                raise self._foreign(f"it has {MOST} segments, the most there can be")
            line = self._line(number + 1, last, Sealed(segment=segment, by=by))
            place.unlink(missing_ok=True)  # a second name of the file, left by a crash
            os.link(self.path, place)
            try:
                write_atomically(self.path, line, mode=PRIVATE_FILE)
            except OSError:
                if place.samefile(self.path):
                    place.unlink()
                raise
            place.chmod(SEALED_FILE)
            self._reached = number + 1
        return place

    def _make_file(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE))
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unusable(error) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[int]:
        """Hold the file's exclusive lock, having healed its last line if a crash left it torn.

        The file is opened anew each time: a lock of its own for each writer, also after a fork.
        """
        with self._thread:
            try:
                file = self._locked()
                try:
                    self._heal(file)
                    yield file
                finally:
                    os.close(file)
            except OSError as error:
                raise self._unusable(error) from error

    def _locked(self) -> int:
        """Open the file and lock it; again, if it was sealed while this waited for the lock."""
        while True:
            file = os.open(self.path, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(file), self.path.stat()):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _write(
        self, file: int, after: tuple[int, bytes], events: Sequence[AuditEvent]
    ) -> AuditHead:
        """Add entries after the line of this number and digest, which is the last one."""
        number, last = after
        lines = []
        for event in events:
            number += 1
            lines.append(self._line(number, last, event))
            last = line_digest(lines[-1])
        end = os.fstat(file).st_size
        try:
            _write_at(file, b"".join(lines), end)
        except OSError:
            with contextlib.suppress(OSError):  # the next writer heals a torn line
                os.ftruncate(file, end)
            raise
        self._reached = number
        return self._signed(number, last)

    def _signed(self, number: int, last: bytes) -> AuditHead:
        return AuditHead.sign(self._key, owner=self.owner, number=number, digest=last)

    def _line(self, number: int, previous: bytes, event: AuditEvent) -> bytes:
        unsigned = AuditEntry(
            number=number,
            at=self._clock().isoformat(),
            event=event,
            previous=previous,
            signer=self._key.public,
            signature=b"",
        )
        signature = self._key.sign(unsigned.statement())
        line = AuditEntry(**{**vars(unsigned), "signature": signature}).to_line()
        if len(line) > LARGEST_LINE:
            raise AuditError(
                f"an audit entry of kind {event.kind} has {len(line)} bytes, above the bound of "
                f"{LARGEST_LINE}; record a digest instead"
            )
        return line

    def _last(self, file: int) -> tuple[int, bytes]:
        """Number and digest of the last line."""
        number, last = self._line_before(file, os.fstat(file).st_size)
        if number < self._reached:
            raise self._foreign(f"it ends at entry {number}, and entry {self._reached} was written")
        return number, last

    def _line_before(self, file: int, end: int) -> tuple[int, bytes]:
        """Number and digest of the line that ends at this offset; it must be one of this key."""
        if end == 0:
            raise self._foreign("it is empty")
        start = _start_of_line(file, end - 1)
        line = os.pread(file, end - start, start)
        try:
            entry = AuditEntry.from_line(line)
        except AuditError as error:
            raise self._foreign("its last line is not an entry") from error
        if not is_signed(entry.signer, entry.statement(), entry.signature):
            raise self._foreign("the signature of its last line does not verify")
        rotated = isinstance(entry.event, KeyRotated) and entry.event.new_identity
        if self._key.public not in (entry.signer, rotated):
            raise self._foreign("its last line is signed by another key than this installation's")
        return entry.number, line_digest(line)

    def _check_owner(self, file: int) -> None:
        first = next(iter(segments(self.path)), None)
        if first is None:
            line = _first_line(file)
        else:
            with first.open("rb") as oldest:
                line = _first_line(oldest.fileno())
        event = AuditEntry.from_line(line).event
        if not isinstance(event, Opened) or event.owner != self.owner:
            raise self._foreign(f"it does not begin as the log of {self.owner}")

    def _heal(self, file: int) -> None:
        """Replace an unfinished last line by an entry that says so, in place.

        The entry is written over the torn bytes before anything is cut off, so that at no moment
        the log ends in a whole line with the torn bytes gone and unmentioned.
        """
        end = os.fstat(file).st_size
        start = _start_of_line(file, end)
        if start == end:
            return
        torn = os.pread(file, end - start, start)
        if start == 0:  # not even the first line was acknowledged: the log begins anew
            os.ftruncate(file, 0)
            return
        number, last = self._line_before(file, start)
        if self._is_next(torn + b"\n", number, last):
            _write_at(file, b"\n", end)
            return
        event = Healed(removed_bytes=len(torn), removed_digest=hashlib.sha256(torn).digest())
        line = self._line(number + 1, last, event)
        _write_at(file, line, start)
        os.ftruncate(file, start + len(line))
        os.fsync(file)

    def _is_next(self, line: bytes, number: int, last: bytes) -> bool:
        """Tell whether this is a whole entry of ours that follows the line given."""
        try:
            entry = AuditEntry.from_line(line)
        except AuditError:
            return False
        whole = is_signed(self._key.public, entry.statement(), entry.signature)
        return whole and (entry.number, entry.previous) == (number + 1, last)

    def _foreign(self, why: str) -> AuditError:
        return AuditError(
            f"audit log {self.path}: {why}; nothing is recorded or released until it is mended: "
            "run 'audit verify', and restore the log from the backup"
        )

    def _unusable(self, error: OSError) -> AuditError:
        return AuditError(
            f"audit log {self.path}: cannot be written ({error.strerror}), and nothing may happen "
            "unrecorded; free space, or make the folder writable for this account"
        )


def _write_at(file: int, content: bytes, offset: int) -> None:
    """Write all of it and flush it to the disk."""
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
    os.fsync(file)


def _start_of_line(file: int, end: int) -> int:
    """Offset behind the last line break before ``end``; reads at most two lines backwards."""
    offset = end
    while offset > 0:
        size = min(_CHUNK, offset)
        chunk = os.pread(file, size, offset - size)
        found = chunk.rfind(b"\n")
        if found >= 0:
            return offset - size + found + 1
        offset -= size
        if end - offset > 2 * LARGEST_LINE:
            raise AuditError(
                f"the audit log ends in more than {LARGEST_LINE} bytes without a line break, which "
                "no entry has; run 'audit verify', and restore the log from the backup"
            )
    return 0


def _digest_at(file: int, number: int) -> bytes | None:
    """Return the digest of the line of this number; empty if the file shows there is none.

    None if all of its lines have higher numbers. It is read backwards from its end.
    """
    end = os.fstat(file).st_size
    while end > 0:
        start = _start_of_line(file, end - 1)
        line = os.pread(file, end - start, start)
        entry = AuditEntry.from_line(line)
        if entry.number <= number:
            return line_digest(line) if entry.number == number else b""
        end = start
    return None


def _first_line(file: int) -> bytes:
    head = os.pread(file, LARGEST_LINE, 0)
    return head[: head.find(b"\n") + 1]
