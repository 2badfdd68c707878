"""The hospital's privacy ledger: every release is entered on disk before it leaves.

A release is *reserved* before anything is sent and *confirmed* afterwards. Reserved counts as
spent: after a crash in between, budget may be lost, but no release goes uncounted. SQLite has each
entry on disk (safe against power failure) before :meth:`Ledger.reserve` returns. Only one process
at a time can reserve, so several cannot overspend together.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from consilium.client.ledger.certificate import SpentBudget
from consilium.client.ledger.releases import (
    SHARDS,
    LedgerEntry,
    Release,
    StudyAccount,
    Summary,
    WriteOff,
    account_of,
    largest_spent,
)
from consilium.client.ledger.rows import (
    SCHEMA,
    events_from_json,
    insert,
    read_entries,
    read_written_off,
)
from consilium.shared.clock import utc_now
from consilium.shared.errors import BudgetError, PrivacyError
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.files.sqlite_transaction import transaction

__all__ = ["Ledger", "Release", "Summary"]

SCHEMA_VERSION = 2
LOCK_TIMEOUT_S = 60.0
TOLERANCE = 1e-9  # relative; noise is calibrated to end exactly at the budget


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
        self._reached = 0
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
            if not 0 <= version <= SCHEMA_VERSION:
                raise PrivacyError(
                    f"ledger {path}: has version {version}, this build reads {SCHEMA_VERSION}; "
                    "use the build that wrote it"
                )
            for table in SCHEMA:
                connection.execute(table)
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
            PrivacyError: another release is entered under this run, round and purpose, or the file
                was put back to an older state since this object used it last.
        """
        low, high = release.shards
        if not 0 <= low <= high <= SHARDS:
            raise PrivacyError(
                f"ledger: shards {low} to {high} must lie within 0 to {SHARDS}, low first; "
                "correct the release"
            )
        with self._transaction() as connection:
            noted_before = self._is_noted(connection, release)
            entries = list(read_entries(connection))
            self._check_grown(entries)
            written_off = read_written_off(connection)
            of_study = [
                entry for entry in entries if entry.release.study_digest == release.study_digest
            ]
            noted = [entry.release for entry in of_study]
            if noted_before:
                return largest_spent(noted, study_delta)
            if of_study and of_study[0].number <= written_off.upto:
                raise BudgetError(
                    f"study {release.study_name} spent from this site's budget before a ledger "
                    "was lost and written off, so all of its budget counts as spent; ask for a new "
                    "study"
                )
            spent = self._check_study([*noted, release], study_epsilon, study_delta)
            since = [entry.release for entry in entries if entry.number > written_off.upto]
            self._check_lifetime([*since, release], already=written_off.epsilon)
            self._reached = insert(
                connection, release, study_epsilon, study_delta, self._clock(), confirmed=False
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

    def charge_again(self, release: Release, *, study_epsilon: float, study_delta: float) -> bool:
        """Enter a release that has left, as the audit log tells; return whether it was missing.

        No bound is checked: what has left is spent.

        Raises:
            PrivacyError: another release is entered under this run, round and purpose.
        """
        with self._transaction() as connection:
            if self._is_noted(connection, release):
                return False
            insert(connection, release, study_epsilon, study_delta, self._clock(), confirmed=True)
            return True

    def carry(self, spent: SpentBudget) -> int:
        """Enter what this hospital had spent under its former identity; return how much was new.

        No bound is checked: what was spent is spent. Repeating it changes nothing.

        Guarantee: afterwards every study of ``spent`` has at least the account it had there, and so
        has the lifetime, if no other budget was ever carried here; all in one transaction.

        Raises:
            PrivacyError: the ledger has entries of its own, or another certificate's.
        """
        with self._transaction() as connection:
            missing = [one for one in spent.releases if not self._is_noted(connection, one.release)]
            known = [entry.release for entry in read_entries(connection)]
            if len(known) + len(missing) > len(spent.releases):
                raise PrivacyError(
                    f"ledger {self._path}: has entries of its own, and a former budget can be "
                    "carried into a new ledger only; use a folder that 'init' has just made"
                )
            upto = 0
            for one in missing:
                number = insert(
                    connection, one.release, one.study_epsilon, one.study_delta, self._clock(),
                    confirmed=True,
                )  # fmt: skip
                upto = number if one.closed else upto
            if spent.written_off > read_written_off(connection).epsilon:
                connection.execute(
                    "INSERT INTO written_off VALUES (NULL, ?, ?, ?)",
                    (upto, spent.written_off, self._clock().isoformat()),
                )
        return len(missing)

    def write_off(self) -> WriteOff:
        """Count the whole lifetime budget as spent, in place of all entries so far.

        For a ledger that may not know everything that was spent. Every study in it is closed; the
        lifetime budget must be raised before anything else is released.
        """
        with self._transaction() as connection:
            before = read_written_off(connection)
            epsilon = max(self._lifetime_epsilon, before.epsilon)
            upto = max((entry.number for entry in read_entries(connection)), default=0)
            connection.execute(
                "INSERT INTO written_off VALUES (NULL, ?, ?, ?)",
                (upto, epsilon, self._clock().isoformat()),
            )
        return WriteOff(upto=upto, epsilon=epsilon)

    def written_off(self) -> WriteOff:
        """Return the last write-off; one of nothing if there was none."""
        with self._transaction() as connection:
            return read_written_off(connection)

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries in the order in which they were reserved."""
        with self._transaction() as connection:
            return tuple(read_entries(connection))

    def summary(self) -> Summary:
        """Return spent, reserved and left: per study at its delta, and over the lifetime at its."""
        with self._transaction() as connection:
            entries, written_off = tuple(read_entries(connection)), read_written_off(connection)
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
                    unit=own[-1].release.unit,
                )
            )
        total = account_of(entries, self._lifetime_epsilon, self._delta, written_off)
        return Summary(studies=tuple(studies), total=total)

    def _check_grown(self, entries: list[LedgerEntry]) -> None:
        """Refuse a file that has lost an entry since this object wrote it."""
        last = entries[-1].number if entries else 0
        if last < self._reached:
            raise PrivacyError(
                f"ledger {self._path}: ends at entry {last}, and entry {self._reached} was written "
                "to it: it was put back to an older state while the site ran; stop the site and "
                "run 'consilium-site recover'"
            )
        self._reached = last

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

    def _check_lifetime(self, releases: list[Release], *, already: float) -> None:
        """Refuse without a figure: what other studies spent is this site's own affair."""
        epsilon = already + largest_spent(releases, self._delta)
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
        if (events_from_json(found[0]), (found[1], found[2])) != (release.events, release.shards):
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
