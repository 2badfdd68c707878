"""The hospital's privacy ledger: every release is entered on disk before it leaves.

A release is *reserved* before anything is sent and *confirmed* afterwards. Reserved counts as
spent: after a crash in between, budget may be lost, but no release goes uncounted. SQLite has each
entry on disk (safe against power failure) before :meth:`Ledger.reserve` returns. Only one process
at a time can reserve, so several cannot overspend together.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from consilium.client.ledger.releases import (
    SHARDS,
    LedgerEntry,
    Release,
    StudyAccount,
    Summary,
    account_of,
    largest_spent,
)
from consilium.shared.clock import utc_now
from consilium.shared.errors import BudgetError, PrivacyError
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.files.sqlite_transaction import transaction
from consilium.shared.privacy.accounting import Events, PrivacyEvent

__all__ = ["Ledger", "Release", "Summary"]

SCHEMA_VERSION = 1
LOCK_TIMEOUT_S = 60.0
TOLERANCE = 1e-9  # relative; noise is calibrated to end exactly at the budget

_SCHEMA = """
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
"""


class Ledger:
    """A hospital's releases in one SQLite file, readable by its owner only.

    Safe to share among threads and processes. Each call opens its own connection.

    Args:
        path: the file; created with mode 0600 if it does not exist.
        lifetime_epsilon: most that all studies together may spend on one patient, at ``delta``.
        delta: the lifetime guarantee's delta.
        clock: returns the time for new entries.
    """

    def __init__(
        self,
        path: Path,
        *,
        lifetime_epsilon: float,
        delta: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._path, self._lifetime_epsilon, self._delta = path, lifetime_epsilon, delta
        self._clock = clock
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE))
            path.chmod(PRIVATE_FILE)
        except OSError as error:
            raise PrivacyError(
                f"ledger {path}: cannot be opened ({error.strerror}), and nothing may leave "
                "without it; check the folder and its permissions"
            ) from error
        with self._transaction() as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version not in (0, SCHEMA_VERSION):
                raise PrivacyError(
                    f"ledger {path}: has version {version}, this build reads {SCHEMA_VERSION}; "
                    "use the build that wrote it"
                )
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def reserve(self, release: Release, *, study_epsilon: float, study_delta: float) -> float:
        """Charge a release before it leaves; after this it may leave once.

        Reserving the same (study_hash, round, purpose) again charges nothing; it is refused if the
        release differs.

        Returns:
            The study's epsilon at ``study_delta``, this release included.

        Guarantee: on return the entry is on disk, and on no shard do all entries together exceed
        the study's epsilon at its delta or the lifetime epsilon at its delta.

        Raises:
            BudgetError: the study's or the lifetime budget would be exceeded; nothing is charged.
            PrivacyError: another release is entered under this run, round and purpose.
        """
        low, high = release.shards
        if not 0 <= low <= high <= SHARDS:
            raise PrivacyError(
                f"ledger: shards {low} to {high} must lie within 0 to {SHARDS}, low first; "
                "correct the release"
            )
        with self._transaction() as connection:
            noted_before = self._is_noted(connection, release)
            entries = list(_entries(connection))
            of_study = [
                entry for entry in entries if entry.release.study_digest == release.study_digest
            ]
            noted = [entry.release for entry in of_study]
            if noted_before:
                return largest_spent(noted, study_delta)
            spent = self._check_study([*noted, release], study_epsilon, study_delta)
            self._check_lifetime([*(entry.release for entry in entries), release])
            connection.execute(
                "INSERT INTO releases VALUES "
                "(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'reserved', ?, NULL)",
                (
                    release.study_digest,
                    release.study_hash,
                    release.round,
                    release.purpose,
                    release.study_name,
                    study_epsilon,
                    study_delta,
                    _events_to_json(release.events),
                    low,
                    high,
                    self._clock().isoformat(),
                ),
            )
        return spent

    def confirm(self, release: Release) -> None:
        """Record that a reserved release has left; repeating it changes nothing.

        Raises:
            PrivacyError: the release was never reserved.
        """
        with self._transaction() as connection:
            if not self._is_noted(connection, release):
                raise PrivacyError(
                    f"ledger: {release.purpose} of round {release.round} of study "
                    f"{release.study_name} was never reserved; reserve before release"
                )
            connection.execute(
                "UPDATE releases SET state = 'confirmed', confirmed_at = ? WHERE "
                "study_hash = ? AND round = ? AND purpose = ? AND state = 'reserved'",
                (self._clock().isoformat(), release.study_hash, release.round, release.purpose),
            )

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries in the order in which they were reserved."""
        with self._transaction() as connection:
            return tuple(_entries(connection))

    def summary(self) -> Summary:
        """Return spent, reserved and left: per study at its delta, and over the lifetime at its."""
        entries = self.entries()
        digests = dict.fromkeys(entry.release.study_digest for entry in entries)
        studies = []
        for study_digest in digests:
            own = [entry for entry in entries if entry.release.study_digest == study_digest]
            studies.append(
                StudyAccount(
                    study_digest=study_digest,
                    study_name=own[-1].release.study_name,
                    releases=len(own),
                    account=account_of(own, own[-1].study_epsilon, own[-1].study_delta),
                )
            )
        total = account_of(entries, self._lifetime_epsilon, self._delta)
        return Summary(studies=tuple(studies), total=total)

    @staticmethod
    def _check_study(releases: list[Release], bound: float, delta: float) -> float:
        epsilon, last = largest_spent(releases, delta), releases[-1]
        if epsilon > bound * (1 + TOLERANCE):
            raise BudgetError(
                f"{_named(last)} would bring epsilon to {epsilon:.4g}, above the budget of "
                f"{bound:.4g} of study {last.study_name} at delta {delta:g}; lower [study] rounds "
                "or ask the site to raise the budget"
            )
        return epsilon

    def _check_lifetime(self, releases: list[Release]) -> None:
        """Refuse without a figure: what other studies spent is this site's own affair."""
        epsilon = largest_spent(releases, self._delta)
        if epsilon > self._lifetime_epsilon * (1 + TOLERANCE):
            raise BudgetError(
                f"{_named(releases[-1])} would exceed this site's lifetime budget, which "
                "'consilium-site ledger' shows there; ask the site to raise it"
            )

    @staticmethod
    def _is_noted(connection: sqlite3.Connection, release: Release) -> bool:
        found = connection.execute(
            "SELECT events, low_shard, high_shard FROM releases "
            "WHERE study_hash = ? AND round = ? AND purpose = ?",
            (release.study_hash, release.round, release.purpose),
        ).fetchone()
        if found is None:
            return False
        if (_events_from_json(found[0]), (found[1], found[2])) != (release.events, release.shards):
            raise PrivacyError(
                f"ledger: {release.purpose} of round {release.round} of study "
                f"{release.study_name} is already noted with other events; a round is released "
                "once, go on to the next"
            )
        return True

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._path, wait_s=LOCK_TIMEOUT_S, unusable=self._unusable)

    def _unusable(self, error: sqlite3.Error) -> PrivacyError:
        return PrivacyError(
            f"ledger {self._path}: cannot be used ({error}), and nothing may leave without it; "
            "check the file, the disk's space and other processes that hold it"
        )


def _named(release: Release) -> str:
    return f"{release.purpose} of round {release.round} of study {release.study_name}"


def _entries(connection: sqlite3.Connection) -> Iterator[LedgerEntry]:
    rows = connection.execute(
        "SELECT study_digest, study_hash, study_name, round, purpose, events, low_shard, "
        "high_shard, study_epsilon, study_delta, state, reserved_at, confirmed_at "
        "FROM releases ORDER BY number"
    )
    for digest, run, name, number, purpose, events, low, high, *rest in rows:
        epsilon, delta, state, reserved_at, confirmed_at = rest
        yield LedgerEntry(
            release=Release(
                study_digest=digest,
                study_hash=run,
                study_name=name,
                round=number,
                purpose=purpose,
                events=_events_from_json(events),
                shards=(low, high),
            ),
            study_epsilon=epsilon,
            study_delta=delta,
            confirmed=state == "confirmed",
            reserved_at=reserved_at,
            confirmed_at=confirmed_at,
        )


def _events_to_json(events: Events) -> str:
    return json.dumps([asdict(event) for event in events], sort_keys=True)


def _events_from_json(text: str) -> Events:
    return tuple(PrivacyEvent(**fields) for fields in json.loads(text))
