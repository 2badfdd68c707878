"""The ledger's tables in SQLite, and their rows as entries."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

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


def read_entries(connection: sqlite3.Connection) -> Iterator[LedgerEntry]:
    """Yield all entries in the order in which they were reserved."""
    rows = connection.execute(
        "SELECT releases.study_digest, study_hash, study_name, round, purpose, events, low_shard, "
        "high_shard, study_epsilon, study_delta, state, reserved_at, confirmed_at, number, unit "
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


def read_written_off(connection: sqlite3.Connection) -> WriteOff:
    """Return the last write-off; one of nothing if there was none."""
    row = connection.execute(
        "SELECT upto, epsilon FROM written_off ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return WriteOff(upto=row[0], epsilon=row[1]) if row else NOTHING_WRITTEN_OFF


def insert(
    connection: sqlite3.Connection,
    release: Release,
    study_epsilon: float,
    study_delta: float,
    now: datetime,
    *,
    confirmed: bool,
) -> int:
    """Insert an entry; return its number."""
    at = now.isoformat()
    if release.unit != PATIENT:  # of a study all of whose releases count the same
        connection.execute(
            "INSERT OR IGNORE INTO units VALUES (?, ?)", (release.study_digest, release.unit)
        )
    cursor = connection.execute(
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


def _events_to_json(events: Events) -> str:
    return json.dumps([asdict(event) for event in events], sort_keys=True)


def events_from_json(text: str) -> Events:
    """Return events as a row holds them."""
    return tuple(PrivacyEvent(**fields) for fields in json.loads(text))
