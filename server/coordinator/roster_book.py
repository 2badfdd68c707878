"""The register's book of rosters: what is proposed, who agreed, what has been in force.

Each change is one transaction, so it is on disk or it was not made; a number is never used again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from consilium.server.coordinator.register import Register, Submitted, newest_version
from consilium.shared.audit.events import RosterInForce
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import rosters_in_force
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import Roster
from consilium.shared.enrolment.messages import roster_digest
from consilium.shared.enrolment.roster_version import (
    AgreedRoster,
    RosterVersion,
    changes_in_words,
)
from consilium.shared.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A roster that is proposed for a study.

    Attributes:
        number: of the version that it would be.
        roster: its sites and identities, without sizes.
        joined: sites that it adds; ``left`` those that it takes away.
        declared: the sizes known by now, also of sites that join.
        agreed: by site that stays, the signature with which it agreed.
        version: what they signed; None before the first did.
    """

    number: int
    roster: Roster
    joined: tuple[str, ...]
    left: tuple[str, ...]
    declared: Mapping[str, Declaration]
    agreed: Mapping[str, bytes]
    version: RosterVersion | None

    @property
    def unapproved(self) -> tuple[str, ...]:
        """Sites that are to join and whose hospitals have not approved the study yet."""
        return tuple(site for site in self.joined if site not in self.declared)

    @property
    def missing(self) -> tuple[str, ...]:
        """Sites that stay and have not agreed yet."""
        staying = set(self.roster) - set(self.joined)
        return tuple(sorted(staying - self.agreed.keys()))

    @property
    def in_words(self) -> str:
        """Who joins and leaves, and what it waits for."""
        changes = changes_in_words(self.joined, self.left)
        if self.unapproved:
            return f"{changes}; waits for {', '.join(self.unapproved)} to approve the study"
        waits = ", ".join(self.missing)
        return f"{changes}; " + (
            f"waits for {waits} to agree" if waits else "all agreed: in force from the next round"
        )


def propose(register: Register, digest: bytes, members: Mapping[str, bytes]) -> int:
    """Note what is proposed in place of what was; return its number, which is never used again."""
    plain = json.dumps({site: identity.hex() for site, identity in sorted(members.items())})
    with register.transaction() as connection:
        newest = connection.execute(
            "SELECT MAX(number) FROM roster_proposals WHERE digest = ?", (digest,)
        ).fetchone()[0]
        number = 1 + max(newest or 1, newest_version(connection, digest))
        connection.execute("UPDATE roster_proposals SET open = 0 WHERE digest = ?", (digest,))
        connection.execute(
            "INSERT INTO roster_proposals VALUES (?, ?, ?, NULL, 1)", (digest, number, plain)
        )
    return number


def cancel(register: Register, study: Submitted) -> int:
    """Take back what is proposed; return its number.

    Raises:
        SettingsError: nothing is proposed.
    """
    found = proposal_of(register, study)
    if found is None:
        raise SettingsError(f"no other roster is proposed for study {study.name}")
    with register.transaction() as connection:
        connection.execute("UPDATE roster_proposals SET open = 0 WHERE digest = ?", (study.digest,))
    return found.number


def proposal_of(register: Register, study: Submitted) -> Proposal | None:
    """Return what is proposed for a study; None if nothing is."""
    with register.transaction() as connection:
        row = connection.execute(
            "SELECT number, members, version FROM roster_proposals WHERE digest = ? AND open = 1",
            (study.digest,),
        ).fetchone()
        if row is None:
            return None
        number, plain, version = row
        agreed = connection.execute(
            "SELECT site, signature FROM roster_agreements WHERE digest = ? AND number = ?",
            (study.digest, number),
        ).fetchall()
        declared = connection.execute(
            "SELECT site, declared FROM declarations WHERE digest = ?", (study.digest,)
        ).fetchall()
    members = {site: bytes.fromhex(identity) for site, identity in json.loads(plain).items()}
    joined = tuple(sorted(members.keys() - set(study.roster)))
    sizes = {s: Declaration.from_bytes(data) for s, data in declared if s in members}
    return Proposal(
        number=number,
        roster=Roster(tuple(members.items())),
        joined=joined,
        left=tuple(sorted(set(study.roster) - members.keys())),
        declared=sizes,
        agreed=dict(agreed),
        version=None if version is None else RosterVersion.from_bytes(version),
    )


def keep_agreement(register: Register, version: RosterVersion, site: str, signature: bytes) -> None:
    """Note that a site signed this version.

    Raises:
        SettingsError: it is not proposed any more.
    """
    with register.transaction() as connection:
        kept = connection.execute(
            "UPDATE roster_proposals SET version = ? WHERE digest = ? AND number = ? AND open = 1",
            (version.to_bytes(), version.study, version.number),
        ).rowcount
        if not kept:
            raise SettingsError(f"roster {version.number} is not proposed any more")
        connection.execute(
            "INSERT OR REPLACE INTO roster_agreements VALUES (?, ?, ?, ?)",
            (version.study, version.number, site, signature),
        )


def put_in_force(register: Register, study: Submitted, *, round: int) -> bool:
    """Put what is proposed into force, in one step, if all that stay agreed; return whether it is.

    Args:
        register: the coordinator's.
        study: as it is now.
        round: number of the next sum.
    """
    found = proposal_of(register, study)
    if found is None or found.version is None or found.missing or found.unapproved:
        return False
    version, digest = found.version, study.digest
    agreed = AgreedRoster(version=version, agreed=dict(found.agreed), round=round)
    with register.transaction() as connection:
        closed = connection.execute(
            "UPDATE roster_proposals SET open = 0 WHERE digest = ? AND number = ? AND open = 1",
            (digest, version.number),
        ).rowcount
        if not closed:  # cancelled meanwhile, or the roster changed
            return False
        connection.execute("DELETE FROM members WHERE digest = ?", (digest,))
        connection.executemany(
            "INSERT INTO members VALUES (?, ?, ?)",
            [(digest, site, identity) for site, identity in version.members.items()],
        )
        connection.execute(  # who was dismissed before is no member any more, or joins again
            "DELETE FROM roster_changes WHERE digest = ? AND identity = ?", (digest, b"")
        )
        connection.execute(
            "UPDATE studies SET signature = ? WHERE digest = ?", (version.offer, digest)
        )
        connection.execute(
            "INSERT INTO roster_versions VALUES (?, ?, ?, ?)",
            (digest, version.number, version.before, agreed.to_bytes()),
        )
    return True


def version_after(
    register: Register, digest: bytes, number: int, before: bytes
) -> AgreedRoster | None:
    """Return the version in force that follows a roster, of this number or later."""
    with register.transaction() as connection:
        row = connection.execute(
            "SELECT agreed FROM roster_versions WHERE digest = ? AND number >= ? AND before = ? "
            "ORDER BY number LIMIT 1",
            (digest, number, before),
        ).fetchone()
    return None if row is None else AgreedRoster.from_bytes(row[0])


def versions_of(register: Register, digest: bytes) -> list[AgreedRoster]:
    """Return the versions of a study's roster that have been in force, in order."""
    with register.transaction() as connection:
        rows = connection.execute(
            "SELECT agreed FROM roster_versions WHERE digest = ? ORDER BY number", (digest,)
        ).fetchall()
    return [AgreedRoster.from_bytes(row[0]) for row in rows]


def events_in_force(register: Register, study: Submitted) -> list[RosterInForce]:
    """Return what an audit log says of the versions that have been in force, in order."""
    versions = versions_of(register, study.digest)
    if not versions:
        return []
    found: list[RosterInForce] = []
    before = set(study.first_sites)
    for agreed in versions:
        version, earlier = agreed.version, before
        before = set(version.members)
        found.append(
            RosterInForce(
                study=study.name,
                study_digest=study.digest,
                version=version.number,
                roster=roster_digest(version.roster),
                round=agreed.round,
                joined=tuple(sorted(before - earlier)),
                left=tuple(sorted(earlier - before)),
            )
        )
    return found


def note_in_force(register: Register, audit: AuditLog, study: Submitted) -> None:
    """Record versions in force that the log does not name yet, also after a crash."""
    events = events_in_force(register, study)
    if not events:
        return
    known = {event.version for event in rosters_in_force(audit.path, study.digest)}
    new = [event for event in events if event.version not in known]
    if new:
        audit.append(*new)
