"""The hospital's privacy ledger: every release is entered on disk before it leaves.

A release is *reserved* before anything is sent and *confirmed* afterwards. Reserved counts as
spent: after a crash in between, budget may be lost, but no release goes uncounted. SQLite has each
entry on disk (safe against power failure) before :meth:`Ledger.reserve` returns. Only one process
at a time can reserve, so several cannot overspend together.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from consilium.client.ledger.certificate import SpentBudget
from consilium.client.ledger.memory import MemoryRows
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
from consilium.client.ledger.rows import SCHEMA, Rows, SqliteRows
from consilium.shared.clock import utc_now
from consilium.shared.errors import BudgetError, PrivacyError
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.files.sqlite_transaction import transaction

__all__ = ["Ledger", "Release", "Summary"]

SCHEMA_VERSION = 2
_VERSION = f"PRAGMA user_version = {SCHEMA_VERSION}"
LOCK_TIMEOUT_S = 60.0
TOLERANCE = 1e-9  # relative; noise is calibrated to end exactly at the budget


class Ledger:
    """A hospital's releases in one SQLite file, readable by its owner only.

    Safe to share among threads and processes. Each call opens its own connection.

    Args:
        path: the file; created with mode 0600 if it does not exist. None keeps them in memory, for
            a simulation: with the same refusals, and gone with the process unless :meth:`write_to`
            is called.
        lifetime_epsilon: most that all studies together may spend on one patient, at ``delta``.
        delta: the lifetime guarantee's delta.
        clock: returns the time for new entries.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        lifetime_epsilon: float,
        delta: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._path, self._lifetime_epsilon, self._delta = path, lifetime_epsilon, delta
        self._clock = clock
        self._reached = 0
        self._memory = MemoryRows()
        if path is not None:
            self._prepare(path)

    def _prepare(self, path: Path) -> None:
        """Make the file and its tables, if they do not exist."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE))
            path.chmod(PRIVATE_FILE)
        except OSError as error:
            raise PrivacyError(
                f"ledger {path}: cannot be opened ({error.strerror}), and nothing may leave "
                "without it; check the folder and its permissions"
            ) from error
        with self._file(path) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if not 0 <= version <= SCHEMA_VERSION:
                raise PrivacyError(
                    f"ledger {path}: has version {version}, this build reads {SCHEMA_VERSION}; "
                    "use the build that wrote it"
                )
            _make_tables(connection)
            if version != SCHEMA_VERSION:  # it writes, also what is there already
                connection.execute(_VERSION)

    def reserve(
        self,
        release: Release,
        *,
        study_epsilon: float,
        study_delta: float,
        most: int | None = None,
    ) -> float:
        """Charge a release before it leaves; after this it may leave once.

        There are ``most`` releases of this purpose in the study, over all of its runs. Reserving
        the same (study_hash, round, purpose) again charges nothing; it is refused if the release
        differs.

        Returns:
            The study's epsilon at ``study_delta``, this release included.

        Guarantee: on return the entry is on disk, and on no shard do all entries together exceed
        the study's epsilon at its delta or the lifetime epsilon at its delta.

        Raises:
            BudgetError: the study's or the lifetime budget would be exceeded, or ``most``; nothing
                is charged.
            PrivacyError: another release is entered under this run, round and purpose, or the file
                was put back to an older state since this object used it last.
        """
        low, high = release.shards
        if not 0 <= low <= high <= SHARDS:
            raise PrivacyError(
                f"ledger: shards {low} to {high} must lie within 0 to {SHARDS}, low first; "
                "correct the release"
            )
        with self._transaction() as rows:
            noted_before = self._is_noted(rows, release)
            entries = list(rows.entries())
            self._check_grown(entries)
            written_off = rows.written_off()
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
            alike = sum(one.purpose == release.purpose for one in noted)
            if most is not None and alike >= most:
                raise BudgetError(
                    f"{_named(release)} is one more than the {most} that the study has; the "
                    "coordinator must run the study that was approved"
                )
            spent = self._check_study([*noted, release], study_epsilon, study_delta)
            since = [entry.release for entry in entries if entry.number > written_off.upto]
            self._check_lifetime([*since, release], already=written_off.epsilon)
            self._reached = rows.insert(
                release, study_epsilon, study_delta, self._clock(), confirmed=False
            )
        return spent

    def confirm(self, release: Release) -> None:
        """Record that a reserved release has left; repeating it changes nothing.

        Raises:
            PrivacyError: the release was never reserved.
        """
        with self._transaction() as rows:
            if not self._is_noted(rows, release):
                raise PrivacyError(
                    f"ledger: {release.purpose} of round {release.round} of study "
                    f"{release.study_name} was never reserved; reserve before release"
                )
            rows.confirm(release, self._clock())

    def charge_again(self, release: Release, *, study_epsilon: float, study_delta: float) -> bool:
        """Enter a release that has left, as the audit log tells; return whether it was missing.

        No bound is checked: what has left is spent.

        Raises:
            PrivacyError: another release is entered under this run, round and purpose.
        """
        with self._transaction() as rows:
            if self._is_noted(rows, release):
                return False
            rows.insert(release, study_epsilon, study_delta, self._clock(), confirmed=True)
            return True

    def carry(self, spent: SpentBudget) -> int:
        """Enter what this hospital had spent under its former identity; return how much was new.

        No bound is checked: what was spent is spent. Repeating it changes nothing.

        Guarantee: afterwards every study of ``spent`` has at least the account it had there, and so
        has the lifetime, if no other budget was ever carried here; all in one transaction.

        Raises:
            PrivacyError: the ledger has entries of its own, or another certificate's.
        """
        with self._transaction() as rows:
            missing = [one for one in spent.releases if not self._is_noted(rows, one.release)]
            if len(list(rows.entries())) + len(missing) > len(spent.releases):
                raise PrivacyError(
                    f"ledger {self._path}: has entries of its own, and a former budget can be "
                    "carried into a new ledger only; use a folder that 'init' has just made"
                )
            upto = 0
            for one in missing:
                number = rows.insert(
                    one.release, one.study_epsilon, one.study_delta, self._clock(), confirmed=True
                )
                upto = number if one.closed else upto
            if spent.written_off > rows.written_off().epsilon:
                rows.write_off(WriteOff(upto=upto, epsilon=spent.written_off), self._clock())
        return len(missing)

    def write_off(self) -> WriteOff:
        """Count the whole lifetime budget as spent, in place of all entries so far.

        For a ledger that may not know everything that was spent. Every study in it is closed; the
        lifetime budget must be raised before anything else is released.
        """
        with self._transaction() as rows:
            epsilon = max(self._lifetime_epsilon, rows.written_off().epsilon)
            upto = max((entry.number for entry in rows.entries()), default=0)
            found = WriteOff(upto=upto, epsilon=epsilon)
            rows.write_off(found, self._clock())
        return found

    def written_off(self) -> WriteOff:
        """Return the last write-off; one of nothing if there was none."""
        with self._transaction() as rows:
            return rows.written_off()

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries in the order in which they were reserved."""
        with self._transaction() as rows:
            return tuple(rows.entries())

    def write_to(self, path: Path) -> None:
        """Write a copy as a new ledger file, without waiting for the disk.

        For what a simulation leaves behind: it can be read as any site's ledger.
        """
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            _make_tables(connection)
            connection.execute(_VERSION)
            rows, written_off = SqliteRows(connection), self.written_off()
            for entry in self.entries():
                begun = datetime.fromisoformat(entry.reserved_at)
                rows.insert(
                    entry.release, entry.study_epsilon, entry.study_delta, begun, confirmed=False
                )
                if entry.confirmed_at is not None:
                    rows.confirm(entry.release, datetime.fromisoformat(entry.confirmed_at))
            if written_off.upto:
                rows.write_off(written_off, self._clock())
            path.touch(PRIVATE_FILE)
            path.write_bytes(connection.serialize())

    def summary(self) -> Summary:
        """Return spent, reserved and left: per study at its delta, and over the lifetime at its."""
        with self._transaction() as rows:
            entries, written_off = tuple(rows.entries()), rows.written_off()
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
    def _is_noted(rows: Rows, release: Release) -> bool:
        found = rows.noted(release)
        if found is None:
            return False
        if found != (release.events, release.shards):
            raise PrivacyError(
                f"ledger: {release.purpose} of round {release.round} of study "
                f"{release.study_name} is already noted with other events; a round is released "
                "once, go on to the next"
            )
        return True

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Rows]:
        if self._path is None:
            with self._memory.transaction() as rows:
                yield rows
        else:
            with self._file(self._path) as connection:
                yield SqliteRows(connection)

    def _file(self, path: Path) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(path, wait_s=LOCK_TIMEOUT_S, unusable=self._unusable)

    def _unusable(self, error: sqlite3.Error) -> PrivacyError:
        return PrivacyError(
            f"ledger {self._path}: cannot be used ({error}), and nothing may leave without it; "
            "check the file, the disk's space and other processes that hold it"
        )


def _make_tables(connection: sqlite3.Connection) -> None:
    for table in SCHEMA:
        connection.execute(table)


def _named(release: Release) -> str:
    return f"{release.purpose} of round {release.round} of study {release.study_name}"
