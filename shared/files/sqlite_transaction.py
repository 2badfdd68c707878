"""One transaction on an SQLite file that several processes write: all of it on disk, or nothing."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from consilium.shared.errors import ConsiliumError


def make_tables(connection: sqlite3.Connection, schema: str, version: int) -> int:
    """Make what a file of this version or a new one lacks of its tables; return its version.

    A file of another version is left as it is. Call it in a transaction.

    Args:
        connection: to the file.
        schema: statements that may be run again, each ended by a semicolon.
        version: of the schema, above 0, kept as SQLite's ``user_version``.
    """
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found not in (0, version):
        return found
    for statement in schema.split(";"):
        connection.execute(statement)
    if found != version:  # it writes, also what is there already
        connection.execute(f"PRAGMA user_version = {version}")
    return version


@contextlib.contextmanager
def transaction(
    path: Path, *, wait_s: float, unusable: Callable[[sqlite3.Error], ConsiliumError]
) -> Iterator[sqlite3.Connection]:
    """Hold the file's only write lock on a connection of its own, closed at the end.

    Committed at the end, or rolled back on any error. EXTRA flushes the file and its folder before
    the end returns: with less a power cut could bring the old journal back, and with it the state
    before the commit.

    Args:
        path: the file, in rollback-journal mode.
        wait_s: seconds to wait for another writer.
        unusable: makes the error to raise when SQLite fails.
    """
    try:
        connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None)
    except sqlite3.Error as error:
        raise unusable(error) from error
    try:
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:  # a full disk has ended it already
                with contextlib.suppress(sqlite3.Error):  # or it would hide the first error
                    connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise unusable(error) from error
    finally:
        connection.close()
