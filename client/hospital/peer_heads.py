"""How far the other hospitals' audit logs, and by their word this one's, are known to have come.

Every round's configuration shows the head of each site's last release, signed by that site. Each
site keeps the newest of each other site, so a log that went back is noticed by all, also if the
coordinator forgot the newest head or hides it.
"""

import os
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from consilium.shared.audit.heads import AuditHead
from consilium.shared.errors import AuditError
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.files.sqlite_transaction import transaction

FILE_NAME = "heads.sqlite"
LOCK_TIMEOUT_S = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS heads (
    study_digest BLOB NOT NULL,
    identity BLOB NOT NULL,
    number INTEGER NOT NULL,
    encoded BLOB NOT NULL,
    released_since INTEGER NOT NULL,
    PRIMARY KEY (study_digest, identity)
)
"""


class PeerHeads:
    """The newest heads in one SQLite file, by study and by the identity that signed them.

    Studies that run at the same time overtake each other, so a head is expected to rise within one.

    Raises:
        AuditError: the file cannot be used; so do all methods.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE))
        except OSError as error:
            raise self._unusable(error) from error
        with self._transaction() as connection:
            connection.execute(_SCHEMA)

    def least(self, study_digest: bytes) -> dict[bytes, int]:
        """Return by identity the lowest entry at which its next head in this study may stand."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT identity, number + released_since FROM heads WHERE study_digest = ?",
                (study_digest,),
            )
            return dict(rows.fetchall())

    def note(self, study_digest: bytes, shown: Mapping[bytes, AuditHead]) -> None:
        """Keep verified heads, by identity, where they are newer than those kept."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO heads VALUES (?, ?, ?, ?, 0) "
                "ON CONFLICT (study_digest, identity) DO UPDATE SET number = excluded.number, "
                "encoded = excluded.encoded, released_since = 0 "
                "WHERE excluded.number > heads.number",
                [
                    (study_digest, identity, head.number, head.to_bytes())
                    for identity, head in shown.items()
                ],
            )

    def released(self, study_digest: bytes, identities: Collection[bytes]) -> None:
        """Note that these sites have released since: their next head must be a newer one."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE heads SET released_since = 1 WHERE study_digest = ? AND identity = ?",
                [(study_digest, identity) for identity in identities],
            )

    def newest(self, identity: bytes) -> AuditHead | None:
        """Return the newest head signed by an identity, over all studies; None if there is none."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT encoded FROM heads WHERE identity = ? ORDER BY number DESC LIMIT 1",
                (identity,),
            ).fetchone()
        return AuditHead.from_bytes(row[0]) if row else None

    def newest_of(self, owner: str) -> list[AuditHead]:
        """Return the newest head of each identity that signed as this site."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT identity, encoded FROM heads ORDER BY number")
            heads = {identity: AuditHead.from_bytes(encoded) for identity, encoded in rows}
        return [head for head in heads.values() if head.owner == owner]

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._path, wait_s=LOCK_TIMEOUT_S, unusable=self._unusable)

    def _unusable(self, error: Exception) -> AuditError:
        return AuditError(
            f"the other sites' audit heads {self._path} cannot be used ({error}), and no round is "
            "answered without them; make the folder writable for the site's account"
        )
