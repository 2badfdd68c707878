"""The site's durable memory of the rounds for which it has masked an update.

A site masks one update per round. It claims the round on disk before it makes the mask, so it can
never mask a second one for that round, not even after a crash or in a second process.
"""

import sqlite3
from pathlib import Path
from threading import Lock

from consilium.shared.errors import ProtocolError, SettingsError
from consilium.shared.files.permissions import PRIVATE_FILE

_SCHEMA = "CREATE TABLE IF NOT EXISTS claims (study_hash BLOB PRIMARY KEY, round INTEGER NOT NULL)"


class RoundJournal:
    """Claimed rounds in an SQLite file, readable by the site's account only.

    Write-ahead logging with `synchronous=FULL` flushes the log to disk before a claim returns, so
    the claim survives power loss. Safe for threads and processes; the file must be on a local disk.

    Raises:
        SettingsError: the file cannot be created, opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        try:
            path.touch(mode=PRIVATE_FILE, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=30.0, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _SCHEMA):
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
        with self._lock:
            self._execute("BEGIN IMMEDIATE")
            try:
                highest = self._highest(study_hash)
                if round <= highest:
                    raise ProtocolError(
                        f"round {round} was asked for after round {highest} was masked at this "
                        "site; a round is masked once, so continue with a higher number"
                    )
                self._execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", study_hash, round)
                self._execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.rollback()

    def close(self) -> None:
        """Close the file; otherwise it closes when the journal is garbage collected."""
        self._connection.close()

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
