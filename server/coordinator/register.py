"""The coordinator's register: invitations, enrolled sites, and studies.

One SQLite file that the commands, the service and the study processes share. Commands write what
the operator wants of a study; its process reads that between rounds and writes how far it has come.
A change is on disk before its caller goes on (:mod:`consilium.shared.files.sqlite_transaction`).
"""

import hashlib
import hmac
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import SettingsError
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.files.sqlite_transaction import make_tables, transaction
from consilium.shared.study.definition import Study, parse_study

LOCK_TIMEOUT_S = 30.0
FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS invitations (
    site TEXT PRIMARY KEY, secret_digest BLOB NOT NULL, expires REAL NOT NULL,
    used_by BLOB
);
CREATE TABLE IF NOT EXISTS sites (
    name TEXT PRIMARY KEY, identity BLOB NOT NULL UNIQUE, node_key BLOB NOT NULL UNIQUE,
    node_id BLOB NOT NULL, enrolled REAL NOT NULL, revoked REAL,
    version TEXT NOT NULL, seen REAL
);
CREATE TABLE IF NOT EXISTS budgets (
    site TEXT PRIMARY KEY, epsilon_left REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS studies (
    digest BLOB PRIMARY KEY, name TEXT NOT NULL, text BLOB NOT NULL, signature BLOB NOT NULL,
    submitted REAL NOT NULL, wanted TEXT NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS members (
    digest BLOB NOT NULL REFERENCES studies(digest), site TEXT NOT NULL, identity BLOB NOT NULL,
    PRIMARY KEY (digest, site)
);
CREATE TABLE IF NOT EXISTS declarations (
    digest BLOB NOT NULL REFERENCES studies(digest), site TEXT NOT NULL, declared BLOB NOT NULL,
    PRIMARY KEY (digest, site)
);
CREATE TABLE IF NOT EXISTS recovery_codes (
    identity BLOB PRIMARY KEY, site TEXT NOT NULL, binding BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS certificates (
    identity BLOB PRIMARY KEY, number INTEGER NOT NULL, certificate BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS successions (
    identity BLOB PRIMARY KEY, successor BLOB NOT NULL, succession BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS roster_changes (
    digest BLOB NOT NULL REFERENCES studies(digest), version INTEGER NOT NULL, site TEXT NOT NULL,
    identity BLOB NOT NULL, at REAL NOT NULL, PRIMARY KEY (digest, version)
);
CREATE TABLE IF NOT EXISTS roster_proposals (
    digest BLOB NOT NULL REFERENCES studies(digest), number INTEGER NOT NULL,
    members TEXT NOT NULL, version BLOB, open INTEGER NOT NULL, PRIMARY KEY (digest, number)
);
CREATE TABLE IF NOT EXISTS roster_agreements (
    digest BLOB NOT NULL, number INTEGER NOT NULL, site TEXT NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (digest, number, site)
);
CREATE TABLE IF NOT EXISTS roster_versions (
    digest BLOB NOT NULL REFERENCES studies(digest), number INTEGER NOT NULL,
    before BLOB NOT NULL, agreed BLOB NOT NULL, PRIMARY KEY (digest, number)
);
"""


class Wanted(StrEnum):
    """What the operator wants of a study."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"


class State(StrEnum):
    """How far a study has come."""

    SUBMITTED = "submitted"
    WAITING = "waiting"  # for sites to approve and connect
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class Member:
    """An enrolled site; times are seconds since 1970, ``seen`` is when it last asked for work.

    ``budget_left`` is the lifetime epsilon that the site says it has left, if it says so.
    """

    name: str
    identity: bytes
    node_key: bytes
    node_id: int
    enrolled: float
    revoked: float | None
    version: str
    seen: float | None
    budget_left: float | None


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A study as submitted, with the roster that was pinned then, and how far it has come.

    ``declared`` has the sizes that sites have declared so far; ``roster`` has them once all have.
    ``version`` counts its rosters from 1; ``gone`` are the sites that left for good.
    """

    digest: bytes
    name: str
    text: bytes
    roster: Roster
    declared: dict[str, Declaration]
    signature: bytes
    wanted: Wanted
    state: State
    detail: str
    version: int = 1
    gone: frozenset[str] = frozenset()

    @property
    def first_sites(self) -> tuple[str, ...]:
        """The sites that the study was submitted with.

        Raises:
            StudyError: another version wrote it, and this one cannot read it.
        """
        return parse_study(self.text.decode(), where=self.name).sites

    @property
    def study(self) -> Study:
        """The study as submitted, among the sites of its roster in force.

        Raises:
            StudyError: another version wrote it, and this one cannot read it.
        """
        return parse_study(self.text.decode(), where=self.name).among(self.roster.names)

    @property
    def undeclared(self) -> tuple[str, ...]:
        """Sites that have not declared their size yet, by name."""
        return tuple(sorted(set(self.roster) - self.declared.keys()))

    @property
    def open(self) -> bool:
        """Whether the study may still ask its sites for anything."""
        return self.state not in (State.FINISHED, State.STOPPED)


class Register:
    """The open register; several threads and processes may use it at once.

    Raises:
        SettingsError: the file cannot be used, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.touch(mode=PRIVATE_FILE, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None
        with self.transaction() as connection:
            version = make_tables(connection, _SCHEMA, FORMAT)
            if version != FORMAT:
                raise SettingsError(
                    f"{path}: has version {version}, this build reads {FORMAT}; "
                    "use the build that wrote it"
                )

    # Invitations and sites.

    def invite(self, site: str, secret: bytes, *, expires: float) -> None:
        """Remember an invitation; an earlier one of this site is void from now on.

        Raises:
            SettingsError: the site is enrolled already.
        """
        with self.transaction() as connection:
            if self._active(connection, site):
                raise SettingsError(f"site {site} is enrolled; revoke it first if it lost its keys")
            connection.execute(
                "INSERT OR REPLACE INTO invitations VALUES (?, ?, ?, NULL)",
                (site, _digest(secret), expires),
            )

    def invited(self, site: str, secret: bytes, node_key: bytes, *, now: float) -> bool:
        """Return whether this invitation may enrol this node key: unused, or used by the same key.

        The second case lets a site ask again when the answer to its first request was lost.
        """
        with self.transaction() as connection:
            row = connection.execute(
                "SELECT secret_digest, expires, used_by FROM invitations WHERE site = ?", (site,)
            ).fetchone()
        if row is None or not hmac.compare_digest(row[0], _digest(secret)):
            return False
        if row[2] is not None:
            return hmac.compare_digest(row[2], _digest(node_key))
        return bool(now < row[1])

    def enrol(
        self, site: str, *, identity: bytes, node_key: bytes, node_id: int, version: str, now: float
    ) -> None:
        """Enrol a site and use up its invitation, in one step.

        Raises:
            SettingsError: the site, or one of its keys, is enrolled already.
        """
        with self.transaction() as connection:
            if self._active(connection, site):
                raise SettingsError(f"site {site} is enrolled already")
            try:
                connection.execute(
                    # Not REPLACE: that would delete another site which has one of the keys.
                    "INSERT INTO sites VALUES (?, ?, ?, ?, ?, NULL, ?, NULL) ON CONFLICT (name) DO "
                    "UPDATE SET identity = excluded.identity, node_key = excluded.node_key, "
                    "node_id = excluded.node_id, enrolled = excluded.enrolled, revoked = NULL, "
                    "version = excluded.version, seen = NULL",
                    (site, identity, node_key, node_id.to_bytes(8, "big"), now, version),
                )
            except sqlite3.IntegrityError:
                raise SettingsError("another site enrolled with one of these keys") from None
            connection.execute(
                "UPDATE invitations SET used_by = ? WHERE site = ?", (_digest(node_key), site)
            )

    def revoke(self, site: str, *, now: float) -> Member:
        """Shut a site out and void its invitation; return its last entry.

        Raises:
            SettingsError: no site of this name is enrolled.
        """
        found = {member.name: member for member in self.members()}.get(site)
        if found is None or found.revoked is not None:
            raise SettingsError(f"site {site} is not enrolled; 'watch' lists those that are")
        with self.transaction() as connection:
            connection.execute("UPDATE sites SET revoked = ? WHERE name = ?", (now, site))
            connection.execute("DELETE FROM invitations WHERE site = ?", (site,))
        return found

    def members(self) -> tuple[Member, ...]:
        """All sites that ever enrolled, by name; a site that enrolled again is listed once."""
        query = (
            "SELECT name, identity, node_key, node_id, enrolled, revoked, version, seen, "
            "epsilon_left FROM sites LEFT JOIN budgets ON site = name ORDER BY name"
        )
        with self.transaction() as connection:
            rows = connection.execute(query).fetchall()
        return tuple(_member(row) for row in rows)

    def member_by_key(self, node_key: bytes) -> Member | None:
        """The enrolled, not revoked site with this node key."""
        for member in self.members():
            if member.node_key == node_key and member.revoked is None:
                return member
        return None

    def saw(self, site: str, version: str, *, budget_left: float | None, now: float) -> None:
        """Note that the site asked for work, its version, and the budget it says it has left."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE sites SET seen = ?, version = ? WHERE name = ?", (now, version, site)
            )
            connection.execute("DELETE FROM budgets WHERE site = ?", (site,))
            if budget_left is not None:
                connection.execute("INSERT INTO budgets VALUES (?, ?)", (site, budget_left))

    # Studies.

    def submit(
        self, *, digest: bytes, name: str, text: bytes, roster: Roster, signature: bytes, now: float
    ) -> None:
        """Note a study with the roster it is submitted with.

        Raises:
            SettingsError: this same study was submitted before.
        """
        row = (digest, name, text, signature, now, Wanted.RUN, State.SUBMITTED, "")
        with self.transaction() as connection:
            try:
                connection.execute("INSERT INTO studies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise SettingsError(
                    f"study {name} ({digest.hex()[:16]}) was submitted before; a new run of the "
                    "same study needs a change to it, such as another seed"
                ) from None
            connection.executemany(
                "INSERT INTO members VALUES (?, ?, ?)",
                [(digest, site, identity) for site, identity in roster.members],
            )

    def studies(self) -> tuple[Submitted, ...]:
        """All studies in the order they were submitted."""
        query = (
            "SELECT digest, name, text, signature, wanted, state, detail FROM studies "
            "ORDER BY submitted"
        )
        with self.transaction() as connection:
            rows = connection.execute(query).fetchall()
            members = {
                row[0]: connection.execute(
                    "SELECT site, identity FROM members WHERE digest = ? ORDER BY site", (row[0],)
                ).fetchall()
                for row in rows
            }
            declared = {
                row[0]: connection.execute(
                    "SELECT site, declared FROM declarations WHERE digest = ?", (row[0],)
                ).fetchall()
                for row in rows
            }
            versions = {row[0]: newest_version(connection, row[0]) for row in rows}
            gone = connection.execute(
                "SELECT digest, site FROM roster_changes WHERE identity = ?", (b"",)
            ).fetchall()
        return tuple(
            replace(
                _submitted(row, members[row[0]], dict(declared[row[0]])),
                version=versions[row[0]],
                gone=frozenset(
                    site
                    for digest, site in gone
                    if digest == row[0] and site in dict(members[row[0]])
                ),
            )
            for row in rows
        )

    def declare(self, digest: bytes, site: str, declared: Declaration) -> None:
        """Note the size that a site declares for a study; the same again changes nothing.

        Raises:
            SettingsError: it declared another size before.
        """
        with self.transaction() as connection:
            row = connection.execute(
                "SELECT declared FROM declarations WHERE digest = ? AND site = ?", (digest, site)
            ).fetchone()
            known = None if row is None else Declaration.from_bytes(row[0]).patients
            if known not in (None, declared.patients):
                raise SettingsError(
                    f"site {site} declared {known} patients for this study before, and a declared "
                    f"size does not change; approve with --patients {known}, or ask for the study "
                    "to be submitted again"
                )
            connection.execute(
                "INSERT OR REPLACE INTO declarations VALUES (?, ?, ?)",
                (digest, site, declared.to_bytes()),
            )

    def replace_member(
        self,
        digest: bytes,
        site: str,
        *,
        before: bytes,
        after: bytes,
        declared: Declaration,
        signature: bytes,
        now: float,
    ) -> int:
        """Put a site's new identity into a study's roster, in one step; return its version.

        Args:
            digest: of the study.
            site: that came back under a new key.
            before: its identity so far.
            after: its new one.
            declared: its size, signed by the new one.
            signature: the coordinator's, over the offer with the new roster.
            now: seconds since 1970.

        Raises:
            SettingsError: the site does not stand there under the former identity any more.
        """
        with self.transaction() as connection:
            changed = connection.execute(
                "UPDATE members SET identity = ? WHERE digest = ? AND site = ? AND identity = ?",
                (after, digest, site, before),
            ).rowcount
            if not changed:
                raise SettingsError(f"site {site} stands under another key in this study by now")
            connection.execute(
                "INSERT OR REPLACE INTO declarations VALUES (?, ?, ?)",
                (digest, site, declared.to_bytes()),
            )
            connection.execute(
                "UPDATE studies SET signature = ? WHERE digest = ?", (signature, digest)
            )
            return self._next_version(connection, digest, site, after, now)

    def dismiss(self, digest: bytes, site: str, *, now: float) -> int:
        """Let a site leave a study for good; return the version of the roster without it.

        Raises:
            SettingsError: it is none of the study's sites, or left before.
        """
        with self.transaction() as connection:
            listed = connection.execute(
                "SELECT 1 FROM members WHERE digest = ? AND site = ?", (digest, site)
            ).fetchone()
            left = connection.execute(
                "SELECT 1 FROM roster_changes WHERE digest = ? AND site = ? AND identity = ?",
                (digest, site, b""),
            ).fetchone()
            if listed is None or left is not None:
                raise SettingsError(
                    f"site {site} is none of the sites of this study"
                    if listed is None
                    else f"site {site} left this study before"
                )
            return self._next_version(connection, digest, site, b"", now)

    @staticmethod
    def _next_version(
        connection: sqlite3.Connection, digest: bytes, site: str, identity: bytes, now: float
    ) -> int:
        version = newest_version(connection, digest) + 1
        connection.execute(  # what was proposed followed the roster before
            "UPDATE roster_proposals SET open = 0 WHERE digest = ?", (digest,)
        )
        connection.execute(
            "INSERT INTO roster_changes VALUES (?, ?, ?, ?, ?)",
            (digest, version, site, identity, now),
        )
        return version

    # Recovery: what is kept for hospitals that may lose their machine.

    def keep_binding(self, site: str, identity: bytes, binding: bytes) -> None:
        """Keep the recovery code that an identity is bound to; the first one stays.

        Raises:
            SettingsError: this identity is bound to another code.
        """
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO recovery_codes VALUES (?, ?, ?)", (identity, site, binding)
            )
            kept = connection.execute(
                "SELECT binding FROM recovery_codes WHERE identity = ?", (identity,)
            ).fetchone()[0]
        if kept != binding:
            raise SettingsError(f"site {site} has another recovery code, and a code stays")

    def bindings(self, site: str) -> list[bytes]:
        """The recovery codes to which identities of this site were bound, encoded."""
        with self.transaction() as connection:
            rows = connection.execute("SELECT binding FROM recovery_codes WHERE site = ?", (site,))
            return [row[0] for row in rows.fetchall()]

    def keep_certificate(self, identity: bytes, number: int, certificate: bytes) -> None:
        """Keep an identity's budget certificate, if none of a later entry is kept."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO certificates VALUES (?, ?, ?) ON CONFLICT (identity) DO UPDATE SET "
                "number = excluded.number, certificate = excluded.certificate "
                "WHERE excluded.number >= certificates.number",
                (identity, number, certificate),
            )

    def certificate(self, identity: bytes) -> bytes | None:
        """The newest budget certificate of an identity, encoded."""
        query = "SELECT certificate FROM certificates WHERE identity = ?"
        with self.transaction() as connection:
            row = connection.execute(query, (identity,)).fetchone()
        return row[0] if row else None

    def succeed(self, before: bytes, after: bytes, succession: bytes) -> bool:
        """Note that one identity takes the place of another; return whether that is new.

        Raises:
            SettingsError: another one took it.
        """
        with self.transaction() as connection:
            new = connection.execute(
                "INSERT OR IGNORE INTO successions VALUES (?, ?, ?)", (before, after, succession)
            ).rowcount
            kept = connection.execute(
                "SELECT successor FROM successions WHERE identity = ?", (before,)
            ).fetchone()[0]
        if kept != after:
            raise SettingsError(
                "this hospital came back under another key before; if that was not you, telephone "
                "the coordinator"
            )
        return bool(new)

    def successor(self, identity: bytes) -> tuple[bytes, bytes] | None:
        """The identity that took the place of this one, and the encoded proof; None if none did."""
        query = "SELECT successor, succession FROM successions WHERE identity = ?"
        with self.transaction() as connection:
            row = connection.execute(query, (identity,)).fetchone()
        return (row[0], row[1]) if row else None

    def study(self, named: str) -> Submitted:
        """The study of this name or digest (its first hexadecimal digits suffice).

        Raises:
            SettingsError: no study fits, or several do.
        """
        studies = self.studies()
        found = [s for s in studies if s.name == named] or [
            s for s in studies if len(named) >= 8 and s.digest.hex().startswith(named)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            digests = ", ".join(s.digest.hex()[:16] for s in found)
            raise SettingsError(f"several studies are named {named}; name its digest: {digests}")
        known = ", ".join(s.name for s in studies) or "none"
        raise SettingsError(f"no study {named!r} was submitted; submitted: {known}")

    def want(self, digest: bytes, wanted: Wanted) -> None:
        """Note what the operator wants of a study."""
        with self.transaction() as connection:
            connection.execute("UPDATE studies SET wanted = ? WHERE digest = ?", (wanted, digest))

    def wanted(self, digest: bytes) -> Wanted:
        """What the operator wants of a study now."""
        with self.transaction() as connection:
            row = connection.execute("SELECT wanted FROM studies WHERE digest = ?", (digest,))
            return Wanted(row.fetchone()[0])

    def note(self, digest: bytes, state: State, detail: str = "") -> None:
        """Note how far a study has come; ``detail`` is one sentence for the operator."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE studies SET state = ?, detail = ? WHERE digest = ?",
                (state, detail[:4000], digest),
            )

    @staticmethod
    def _active(connection: sqlite3.Connection, site: str) -> bool:
        query = "SELECT 1 FROM sites WHERE name = ? AND revoked IS NULL"
        return connection.execute(query, (site,)).fetchone() is not None

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Hold the file's write lock: all that is done within is on disk at its end, or nothing."""
        return transaction(self._path, wait_s=LOCK_TIMEOUT_S, unusable=self._unusable)

    def _unusable(self, error: Exception) -> SettingsError:
        return SettingsError(
            f"{self._path}: cannot be used ({error}); make the coordinator's folder writable for "
            "this account, free disk space, or restore it from a backup"
        )


def _member(
    row: tuple[str, bytes, bytes, bytes, float, float | None, str, float | None, float | None],
) -> Member:
    return Member(
        name=row[0],
        identity=row[1],
        node_key=row[2],
        node_id=int.from_bytes(row[3], "big"),
        enrolled=row[4],
        revoked=row[5],
        version=row[6],
        seen=row[7],
        budget_left=row[8],
    )


def _submitted(
    row: tuple[bytes, str, bytes, bytes, str, str, str],
    members: list[tuple[str, bytes]],
    declarations: dict[str, bytes],
) -> Submitted:
    listed = dict(members)  # a site that joins declares its size before it is a member
    declared = {
        site: Declaration.from_bytes(data) for site, data in declarations.items() if site in listed
    }
    final = len(declared) == len(members)
    sizes = tuple(declared[site] for site, _ in members) if final else ()
    return Submitted(
        digest=row[0],
        name=row[1],
        text=row[2],
        roster=Roster(tuple((site, identity) for site, identity in members), sizes),
        declared=declared,
        signature=row[3],
        wanted=Wanted(row[4]),
        state=State(row[5]),
        detail=row[6],
    )


def newest_version(connection: sqlite3.Connection, digest: bytes) -> int:
    """Return the number of a study's roster in force, by whatever it came; 1 is the first."""
    query = (
        "SELECT COALESCE(MAX(version), 1) FROM (SELECT digest, version FROM roster_changes "
        "UNION ALL SELECT digest, number FROM roster_versions) WHERE digest = ?"
    )
    return int(connection.execute(query, (digest,)).fetchone()[0])


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
