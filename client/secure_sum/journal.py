"""The site's durable memory of the rounds for which it has masked an update.

A site masks one update per round. It claims the round on disk before it makes the mask, so it can
never mask a second one for that round, not even after a crash or in a second process.

With each claim it notes where the site's audit log then ended. A log that lacks that entry is older
than the journal.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from consilium.shared.errors import ProtocolError, SettingsError
from consilium.shared.files.permissions import PRIVATE_FILE

PATIENCE_S = 30.0  # for whoever else has the file open
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS claims (study_hash BLOB PRIMARY KEY, round INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS log_end (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), "
    "entry INTEGER NOT NULL, digest BLOB NOT NULL)",
)


@dataclass(frozen=True, kw_only=True)
class LogEnd:
    """The last entry of an audit log: its number, and the digest of its line (32 bytes)."""

    entry: int
    digest: bytes


class RoundJournal:
    """Claimed rounds in an SQLite file, readable by the site's account only.

    Write-ahead logging with `synchronous=FULL` flushes the log to disk before a claim returns, so
    the claim survives power loss. Safe for threads and processes; the file must be on a local disk.

    Args:
        path: the file.
        log_end: returns where the site's audit log ends now, on disk; None if it keeps none.

    Raises:
        SettingsError: the file cannot be created, opened or written.
    """

    def __init__(self, path: Path, log_end: Callable[[], LogEnd] | None = None) -> None:
        self._path, self._log_end = path, log_end
        self._lock = Lock()
        try:
            path.touch(mode=PRIVATE_FILE, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None
        self._write_ahead()
        for statement in ("PRAGMA synchronous=FULL", *_SCHEMA):
            self._execute(statement)

    def highest(self, study_hash: bytes) -> int:
        """Return the highest round claimed in the run of this study hash; 0 if none."""
        with self._lock:
            return self._highest(study_hash)

    def claim(self, study_hash: bytes, round: int) -> None:
        """Claim a round for good.

        Guarantee: of all calls with the same arguments, in all processes, only one returns.

        Raises:
            ProtocolError: this round or a later one was claimed before.
            SettingsError: the file cannot be written, so nothing was claimed.
        """
        end = self._log_end() if self._log_end is not None else None
        with self._writing():
            highest = self._highest(study_hash)
            if round <= highest:
                raise ProtocolError(
                    f"round {round} was asked for after round {highest} was masked at this "
                    "site; a round is masked once, so continue with a higher number",
                    case="masked-before",
                )
            self._execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", study_hash, round)
            if end is not None:
                self._execute(
                    "INSERT OR REPLACE INTO log_end VALUES (1, ?, ?)", end.entry, end.digest
                )

    def raise_to(self, study_hash: bytes, round: int) -> bool:
        """Claim all rounds of a run up to this one; return whether any was not claimed yet.

        Raises:
            SettingsError: the file cannot be written, so nothing was claimed.
        """
        with self._writing():
            if round <= self._highest(study_hash):
                return False
            self._execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", study_hash, round)
            return True

    def log_end(self) -> LogEnd | None:
        """Return where the audit log ended at the last claim, or None if that was never noted."""
        with self._lock:
            row = self._execute("SELECT entry, digest FROM log_end").fetchone()
        return LogEnd(entry=row[0], digest=row[1]) if row else None

    def close(self) -> None:
        """Close the file; otherwise it closes when the journal is garbage collected."""
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the file's write lock: all that is written meanwhile is on disk, or nothing."""
        with self._lock:
            self._execute("BEGIN IMMEDIATE")
            try:
                yield
                self._execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.rollback()

    def _write_ahead(self) -> None:
        """Keep a write-ahead log; here SQLite itself does not wait for whoever opens it, too."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.Error as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise self._unusable(error) from None
                time.sleep(0.005)
            else:
                return

    def _highest(self, study_hash: bytes) -> int:
        query = "SELECT round FROM claims WHERE study_hash = ?"
        row = self._execute(query, study_hash).fetchone()
        return int(row[0]) if row else 0

    def _execute(self, statement: str, *values: bytes | int) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> SettingsError:
        return SettingsError(
            f"the round journal {self._path} cannot be used ({error}); "
            "make its folder writable for the site's account, or restore the file"
        )
