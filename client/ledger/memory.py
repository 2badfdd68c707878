"""A ledger's rows in memory, for simulations, in which nothing leaves and nothing is flushed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from threading import Lock

from consilium.client.ledger.releases import (
    NOTHING_WRITTEN_OFF,
    LedgerEntry,
    Release,
    WriteOff,
)
from consilium.shared.privacy.accounting import Events

Key = tuple[bytes, int, str]


class MemoryRows:
    """See :class:`consilium.client.ledger.rows.Rows`; gone with the process."""

    def __init__(self) -> None:
        self._entries: dict[Key, LedgerEntry] = {}
        self._written_off = NOTHING_WRITTEN_OFF
        self._lock = Lock()

    @contextmanager
    def transaction(self) -> Iterator["MemoryRows"]:
        """Hold the only lock; every method changes all or nothing, so nothing is rolled back."""
        with self._lock:
            yield self

    def noted(self, release: Release) -> tuple[Events, tuple[int, int]] | None:
        """See :class:`.Rows`."""
        found = self._entries.get(_key(release))
        return None if found is None else (found.release.events, found.release.shards)

    def entries(self) -> Iterator[LedgerEntry]:
        """See :class:`.Rows`."""
        return iter(self._entries.values())

    def written_off(self) -> WriteOff:
        """See :class:`.Rows`."""
        return self._written_off

    def insert(
        self,
        release: Release,
        study_epsilon: float,
        study_delta: float,
        now: datetime,
        *,
        confirmed: bool,
    ) -> int:
        """See :class:`.Rows`."""
        at = now.isoformat()
        number = len(self._entries) + 1
        self._entries[_key(release)] = LedgerEntry(
            number=number,
            release=release,
            study_epsilon=study_epsilon,
            study_delta=study_delta,
            confirmed=confirmed,
            reserved_at=at,
            confirmed_at=at if confirmed else None,
        )
        return number

    def confirm(self, release: Release, now: datetime) -> None:
        """See :class:`.Rows`."""
        entry = self._entries[_key(release)]
        if not entry.confirmed:
            self._entries[_key(release)] = replace(
                entry, confirmed=True, confirmed_at=now.isoformat()
            )

    def write_off(self, found: WriteOff, now: datetime) -> None:
        """See :class:`.Rows`."""
        del now
        self._written_off = found


def _key(release: Release) -> Key:
    return release.study_hash, release.round, release.purpose
