"""One transaction on an SQLite file that several processes write: all of it on disk, or nothing."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from consilium.shared.errors import ConsiliumError


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
