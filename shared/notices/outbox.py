"""Events to tell, the notices made of them, and what became of each, in ``notices.sqlite``.

An event is noted once, whoever sees it how often, together with how far its source was read. Events
of one kind about one subject that come within the quiet time are told together, in one notice.

Guarantee: an event stands in exactly one notice. A notice's identifier never changes, and no
attempt to deliver it begins before the attempt is on disk; so a notice arrives at most once, but
where a process or a server dies between taking and acknowledging: then again, with the same
identifier.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consilium.shared.errors import SettingsError
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.files.sqlite_transaction import make_tables, transaction
from consilium.shared.notices.kinds import NoticeEvent, Sender, subject_and_text

FILE_NAME = "notices.sqlite"
FORMAT = 1
WAIT_S = 30.0
DAY_S = 86_400.0
DAILY = "approval-waiting"  # the one kind that is repeated while it is so
LONGEST_PAUSE_S = 3600.0
MOST_ATTEMPTS = 78  # about three days; a number, since clocks are put right meanwhile
MOST_A_DAY = 50  # notices of one kind; more wait, and are told together
MOST_PENDING = 5000  # events of one kind that are not told yet; more are counted and lost

_SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, about TEXT NOT NULL, fields TEXT NOT NULL,
    notice TEXT
);
CREATE INDEX IF NOT EXISTS pending ON events (kind, about) WHERE notice IS NULL;
CREATE TABLE IF NOT EXISTS notices (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, about TEXT NOT NULL, formed REAL NOT NULL,
    content TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries (
    notice TEXT NOT NULL REFERENCES notices(id), address TEXT NOT NULL,
    attempts INTEGER NOT NULL, due REAL NOT NULL, outcome TEXT, said TEXT NOT NULL, at REAL,
    PRIMARY KEY (notice, address)
);
CREATE INDEX IF NOT EXISTS open_deliveries ON deliveries (address, due) WHERE outcome IS NULL;
"""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What is sent: identifier, kind, when it was made (seconds since 1970), subject and text.

    ``fields`` are the same facts for programs: sender, study, digest, sites, rounds, day.
    """

    id: str
    kind: str
    formed: float
    subject: str
    text: str
    fields: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A notice on its way to one address; ``attempts`` counts this one."""

    notice: Notice
    address: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class OutboxSummary:
    """What became of all notices so far; ``failure`` is the last one: when, where, why."""

    sent: int
    waiting: int
    given_up: int
    lost: int
    failed_attempts: int
    failure: tuple[float, str, str] | None


class Outbox:
    """The open outbox; threads and processes may share it.

    Args:
        path: the file; made if it is not there.
        sender: who tells.

    Raises:
        SettingsError: the file cannot be used, or is of another version.
    """

    def __init__(self, path: Path, sender: Sender) -> None:
        self._path, self._sender = path, sender
        try:
            path.touch(mode=PRIVATE_FILE, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error) from None
        with self._transaction() as connection:
            version = make_tables(connection, _SCHEMA, FORMAT)
            if version != FORMAT:
                raise SettingsError(
                    f"{path}: has version {version}, this build reads {FORMAT}; remove it, and "
                    "notices begin anew"
                )

    def marks(self) -> dict[str, str]:
        """Return what was noted of the sources, by name."""
        with self._transaction() as connection:
            return dict(connection.execute("SELECT name, value FROM marks").fetchall())

    def note(self, events: Iterable[NoticeEvent], marks: Mapping[str, str | None]) -> int:
        """Note events and how far their sources were read, in one step; return how many are new.

        Args:
            events: what happened; those that are known already change nothing.
            marks: values by name; None removes one.
        """
        new = 0
        with self._transaction() as connection:
            pending = Counter[str](
                dict(
                    connection.execute(
                        "SELECT kind, COUNT(*) FROM events WHERE notice IS NULL GROUP BY kind"
                    )
                )
            )
            lost = 0
            for event in events:
                key = event.id(self._sender.identity)
                if connection.execute("SELECT 1 FROM events WHERE id = ?", (key,)).fetchone():
                    continue
                if pending[event.kind] >= MOST_PENDING:
                    lost += 1
                    continue
                pending[event.kind] += 1
                connection.execute(
                    "INSERT INTO events VALUES (?, ?, ?, ?, NULL)",
                    (key, event.kind, event.about, json.dumps(asdict(event))),
                )
                new += 1
            for name, value in marks.items():
                if value is None:
                    connection.execute("DELETE FROM marks WHERE name = ?", (name,))
                else:
                    connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))
            if lost:
                connection.execute(
                    "INSERT INTO marks VALUES ('lost', ?) ON CONFLICT (name) DO UPDATE SET "
                    "value = CAST(value AS INTEGER) + excluded.value",
                    (lost,),
                )
        return new

    def form(self, addresses: Sequence[str], *, quiet_s: float, now: float) -> int:
        """Make notices of events that wait, where it is not quiet time; return how many.

        Args:
            addresses: to whom each notice goes.
            quiet_s: of one kind about one subject, at least so long after the last.
            now: seconds since 1970.
        """
        formed = 0
        with self._transaction() as connection:
            waiting = connection.execute(
                "SELECT kind, about FROM events WHERE notice IS NULL GROUP BY kind, about "
                "ORDER BY MIN(rowid)"
            ).fetchall()
            for kind, about in waiting:
                # A time yet to come is of a clock that was put back.
                last = connection.execute(
                    "SELECT MAX(formed) FROM notices WHERE kind = ? AND about = ? AND formed <= ?",
                    (kind, about, now),
                ).fetchone()[0]
                today = _count(
                    connection,
                    "SELECT COUNT(*) FROM notices WHERE kind = ? AND formed > ? AND formed <= ?",
                    kind,
                    now - DAY_S,
                    now,
                )
                wait_s = DAY_S if kind == DAILY else quiet_s
                if today < MOST_A_DAY and (last is None or now - last >= wait_s):
                    self._form(connection, kind, about, addresses, now)
                    formed += 1
        return formed

    def _form(
        self,
        connection: sqlite3.Connection,
        kind: str,
        about: str,
        addresses: Sequence[str],
        now: float,
    ) -> None:
        rows = connection.execute(
            "SELECT id, fields FROM events WHERE notice IS NULL AND kind = ? AND about = ? "
            "ORDER BY rowid",
            (kind, about),
        ).fetchall()
        events = [_event(fields) for _, fields in rows]
        notice = notice_of(self._sender, events, id=rows[0][0], now=now)
        connection.execute(
            "INSERT INTO notices VALUES (?, ?, ?, ?, ?)",
            (notice.id, kind, about, now, json.dumps(asdict(notice))),
        )
        connection.executemany(
            "UPDATE events SET notice = ? WHERE id = ?", [(notice.id, key) for key, _ in rows]
        )
        connection.executemany(
            "INSERT INTO deliveries VALUES (?, ?, 0, ?, NULL, '', NULL)",
            [(notice.id, address, now) for address in addresses],
        )

    def begin(
        self, addresses: Sequence[str], *, first_pause_s: float, now: float
    ) -> Delivery | None:
        """Begin the next attempt that is due at one of these addresses; None if none is.

        The attempt is on disk when this returns, with the time of the next one.
        """
        query = (
            "SELECT notice, address, attempts, content FROM deliveries JOIN notices ON notice = id "
            "WHERE outcome IS NULL AND address = ? AND (due <= ? OR due > ?) "
            "ORDER BY due, notices.rowid LIMIT 1"
        )
        with self._transaction() as connection:
            for address in addresses:
                # A time beyond the longest pause is of a clock that was put back.
                row = connection.execute(query, (address, now, now + LONGEST_PAUSE_S)).fetchone()
                if row is not None:
                    break
            else:
                return None
            attempts = row[2] + 1
            pause_s = min(first_pause_s * 2.0 ** min(row[2], 30), LONGEST_PAUSE_S)
            connection.execute(
                "UPDATE deliveries SET attempts = ?, due = ? WHERE notice = ? AND address = ?",
                (attempts, now + pause_s, row[0], row[1]),
            )
        return Delivery(notice=Notice(**json.loads(row[3])), address=row[1], attempts=attempts)

    def delivered(self, delivery: Delivery, *, said: str, now: float) -> None:
        """Note that the address's server took the notice."""
        self._close(delivery, "sent", said, now)

    def failed(self, delivery: Delivery, *, said: str, now: float) -> bool:
        """Note that an attempt failed; return whether it was the last one."""
        over = delivery.attempts >= MOST_ATTEMPTS
        self._close(delivery, "given-up" if over else None, said, now)
        return over

    def give_up_others(self, addresses: Sequence[str], *, now: float) -> None:
        """Give up what waits for addresses that the settings do not name any more."""
        with self._transaction() as connection:
            for notice, address in connection.execute(
                "SELECT notice, address FROM deliveries WHERE outcome IS NULL"
            ).fetchall():
                if address not in addresses:
                    connection.execute(
                        "UPDATE deliveries SET outcome = 'given-up', said = ?, at = ? "
                        "WHERE notice = ? AND address = ?",
                        ("the settings do not name it any more", now, notice, address),
                    )

    def summary(self) -> OutboxSummary:
        """Return what became of all notices so far."""
        with self._transaction() as connection:
            by_outcome = dict(
                connection.execute("SELECT outcome, COUNT(*) FROM deliveries GROUP BY outcome")
            )
            failed = _count(
                connection,
                "SELECT COALESCE(SUM(attempts - (outcome IS 'sent')), 0) FROM deliveries",
            )
            pending = _count(connection, "SELECT COUNT(*) FROM events WHERE notice IS NULL")
            lost = connection.execute("SELECT value FROM marks WHERE name = 'lost'").fetchone()
            failure = connection.execute(
                "SELECT at, address, said FROM deliveries WHERE at IS NOT NULL AND "
                "outcome IS NOT 'sent' ORDER BY at DESC LIMIT 1"
            ).fetchone()
        return OutboxSummary(
            sent=by_outcome.get("sent", 0),
            waiting=by_outcome.get(None, 0) + pending,
            given_up=by_outcome.get("given-up", 0),
            lost=int(lost[0]) if lost else 0,
            failed_attempts=failed,
            failure=failure,
        )

    def _close(self, delivery: Delivery, outcome: str | None, said: str, now: float) -> None:
        with self._transaction() as connection:
            connection.execute(
                "UPDATE deliveries SET outcome = ?, said = ?, at = ? "
                "WHERE notice = ? AND address = ?",
                (outcome, said, now, delivery.notice.id, delivery.address),
            )

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(
            self._path, wait_s=WAIT_S, unusable=lambda error: _unusable(self._path, error)
        )


def notice_of(sender: Sender, events: Sequence[NoticeEvent], *, id: str, now: float) -> Notice:  # noqa: A002 - the table's own word
    """Return the notice that tells these events, all of one kind and about the same."""
    subject, text = subject_and_text(sender, events)
    last = events[-1]
    fields: dict[str, Any] = {
        "side": sender.side,
        "site": sender.name if sender.side == "site" else None,
        "study": last.study or None,
        "study_digest": last.study_digest or None,
        "sites": list(last.sites),
        "rounds": [event.round for event in events if event.round is not None],
        "day": last.day or None,
        "case": last.case or None,
    }
    return Notice(id=id, kind=last.kind, formed=now, subject=subject, text=text, fields=fields)


def read_summary(folder: Path) -> OutboxSummary | None:
    """Return what became of the notices of this side's folder; None if it has no outbox.

    Raises:
        SettingsError: the outbox cannot be used.
    """
    file = folder / FILE_NAME
    if not file.exists():
        return None
    return Outbox(file, Sender(side="site", name="", identity=b"")).summary()


def _event(fields: str) -> NoticeEvent:
    plain = json.loads(fields)
    return NoticeEvent(**plain | {"sites": tuple(plain["sites"])})


def _count(connection: sqlite3.Connection, query: str, *values: object) -> int:
    return int(connection.execute(query, values).fetchone()[0])


def _unusable(path: Path, error: Exception) -> SettingsError:
    return SettingsError(
        f"{path}: cannot be used ({error}); make the folder writable for this account, free disk "
        "space, or remove the file: notices begin anew then"
    )
