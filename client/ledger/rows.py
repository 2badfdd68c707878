"""The ledger's rows: what it asks of whatever keeps them, and their tables in SQLite."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Protocol

from consilium.client.ledger.releases import (
    NOTHING_WRITTEN_OFF,
    PATIENT,
    LedgerEntry,
    Release,
    WriteOff,
)
from consilium.shared.privacy.accounting import Events, PrivacyEvent

SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS releases (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    study_digest BLOB NOT NULL,
    study_hash BLOB NOT NULL,
    round INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    study_name TEXT NOT NULL,
    study_epsilon REAL NOT NULL,
    study_delta REAL NOT NULL,
    events TEXT NOT NULL,
    low_shard INTEGER NOT NULL,
    high_shard INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'confirmed')),
    reserved_at TEXT NOT NULL,
    confirmed_at TEXT,
    UNIQUE (study_hash, round, purpose)
)
""",
    """
CREATE TABLE IF NOT EXISTS written_off (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    upto INTEGER NOT NULL,
    epsilon REAL NOT NULL,
    at TEXT NOT NULL
)
""",
    """
CREATE TABLE IF NOT EXISTS units (
    study_digest BLOB PRIMARY KEY,
    unit TEXT NOT NULL
)
""",
)


class Rows(Protocol):
    """A ledger's rows within one transaction."""

    def noted(self, release: Release) -> tuple[Events, tuple[int, int]] | None:
        """Return events and shards of the entry with this run, round and purpose, if any."""

    def entries(self) -> Iterator[LedgerEntry]:
        """Yield all entries in the order in which they were reserved."""

    def written_off(self) -> WriteOff:
        """Return the last write-off; one of nothing if there was none."""

    def insert(
        self,
        release: Release,
        study_epsilon: float,
        study_delta: float,
        now: datetime,
        *,
        confirmed: bool,
    ) -> int:
        """Insert an entry; return its number."""

    def confirm(self, release: Release, now: datetime) -> None:
        """Mark the entry with this run, round and purpose as confirmed, if it is reserved."""

    def write_off(self, found: WriteOff, now: datetime) -> None:
        """Insert a write-off."""


class SqliteRows:
    """The rows in an SQLite file, on an open connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def noted(self, release: Release) -> tuple[Events, tuple[int, int]] | None:
        """See :class:`Rows`."""
        found = self._connection.execute(
            "SELECT events, low_shard, high_shard FROM releases "
            "WHERE study_hash = ? AND round = ? AND purpose = ?",
            (release.study_hash, release.round, release.purpose),
        ).fetchone()
        return None if found is None else (events_from_json(found[0]), (found[1], found[2]))

    def entries(self) -> Iterator[LedgerEntry]:
        """See :class:`Rows`."""
        rows = self._connection.execute(
            "SELECT releases.study_digest, study_hash, study_name, round, purpose, events, "
            "low_shard, high_shard, study_epsilon, study_delta, state, reserved_at, confirmed_at, "
            "number, unit "
            "FROM releases LEFT JOIN units ON units.study_digest = releases.study_digest "
            "ORDER BY number"
        )
        for digest, run, name, round, purpose, events, low, high, *rest in rows:
            epsilon, delta, state, reserved_at, confirmed_at, number, unit = rest
            yield LedgerEntry(
                number=number,
                release=Release(
                    study_digest=digest,
                    study_hash=run,
                    study_name=name,
                    round=round,
                    purpose=purpose,
                    events=events_from_json(events),
                    shards=(low, high),
                    unit=unit or PATIENT,
                ),
                study_epsilon=epsilon,
                study_delta=delta,
                confirmed=state == "confirmed",
                reserved_at=reserved_at,
                confirmed_at=confirmed_at,
            )

    def written_off(self) -> WriteOff:
        """See :class:`Rows`."""
        row = self._connection.execute(
            "SELECT upto, epsilon FROM written_off ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return WriteOff(upto=row[0], epsilon=row[1]) if row else NOTHING_WRITTEN_OFF

    def insert(
        self,
        release: Release,
        study_epsilon: float,
        study_delta: float,
        now: datetime,
        *,
        confirmed: bool,
    ) -> int:
        """See :class:`Rows`."""
        at = now.isoformat()
        if release.unit != PATIENT:  # of a study all of whose releases count the same
            self._connection.execute(
                "INSERT OR IGNORE INTO units VALUES (?, ?)", (release.study_digest, release.unit)
            )
        cursor = self._connection.execute(
            "INSERT INTO releases VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                release.study_digest,
                release.study_hash,
                release.round,
                release.purpose,
                release.study_name,
                study_epsilon,
                study_delta,
                _events_to_json(release.events),
                *release.shards,
                "confirmed" if confirmed else "reserved",
                at,
                at if confirmed else None,
            ),
        )
        return int(cursor.lastrowid or 0)

    def confirm(self, release: Release, now: datetime) -> None:
        """See :class:`Rows`."""
        self._connection.execute(
            "UPDATE releases SET state = 'confirmed', confirmed_at = ? WHERE "
            "study_hash = ? AND round = ? AND purpose = ? AND state = 'reserved'",
            (now.isoformat(), release.study_hash, release.round, release.purpose),
        )

    def write_off(self, found: WriteOff, now: datetime) -> None:
        """See :class:`Rows`."""
        self._connection.execute(
            "INSERT INTO written_off VALUES (NULL, ?, ?, ?)",
            (found.upto, found.epsilon, now.isoformat()),
        )


def _events_to_json(events: Events) -> str:
    return json.dumps([asdict(event) for event in events], sort_keys=True)


def events_from_json(text: str) -> Events:
    """Return events as a row holds them."""
    return tuple(PrivacyEvent(**fields) for fields in json.loads(text))
