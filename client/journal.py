"""The site's durable memory of the rounds it has masked an update for.

A masked update of a round leaves a site once. The claim is on disk before the mask is made, so
neither a crash nor a second process of the same site can make another one.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from shared.errors import ProtocolError, SettingsError

_SCHEMA = "CREATE TABLE IF NOT EXISTS claims (study_hash BLOB PRIMARY KEY, round INTEGER NOT NULL)"


class RoundJournal:
    """Claims of rounds in an SQLite file, readable by the site's account only.

    `synchronous=EXTRA` also flushes the directory, so a claim that returned survives power loss.
    Each call opens the file anew: safe across threads and processes.

    Raises:
        SettingsError: the file cannot be created, opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.touch(mode=0o600, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None
        with self._open() as connection:
            self._execute(connection, _SCHEMA)

    def highest(self, study_hash: bytes) -> int:
        """The highest round claimed under this study hash; 0 if none."""
        with self._open() as connection:
            return self._highest(connection, study_hash)

    def claim(self, study_hash: bytes, round: int) -> None:
        """Claim a round for ever.

        Guarantee: of all calls with the same arguments, in all processes, one returns.

        Raises:
            ProtocolError: this round or a later one was claimed before.
        """
        with self._open() as connection:
            self._execute(connection, "BEGIN IMMEDIATE")
            highest = self._highest(connection, study_hash)
            if round <= highest:
                raise ProtocolError(
                    f"round {round} was asked for after round {highest} was masked at this site; "
                    "a round is masked once, so continue with a higher number"
                )
            self._execute(
                connection, "INSERT OR REPLACE INTO claims VALUES (?, ?)", study_hash, round
            )
            self._execute(connection, "COMMIT")

    def _open(self) -> "closing[sqlite3.Connection]":
        try:
            connection = sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
            connection.execute("PRAGMA synchronous=EXTRA")
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        return closing(connection)

    def _highest(self, connection: sqlite3.Connection, study_hash: bytes) -> int:
        query = "SELECT round FROM claims WHERE study_hash = ?"
        row = self._execute(connection, query, study_hash).fetchone()
        return int(row[0]) if row else 0

    def _execute(
        self, connection: sqlite3.Connection, statement: str, *values: bytes | int
    ) -> sqlite3.Cursor:
        try:
            return connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> SettingsError:
        return SettingsError(
            f"the round journal {self._path} cannot be used ({error}); "
            "make its folder writable for the site's account, or restore the file"
        )
