"""What a person decides about the sites of an approved study, by one way for page and commands.

As with studies (:mod:`consilium.client.commands.decisions`), as many persons agree as the policy
asks for, each stands in the audit log before it counts, and a refusal is sent to nobody: the study
goes on with the roster that it has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.decision_notes import LOCK, DecisionNote, DecisionNotes, State
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.roster_change import NewKey, check_new_key
from consilium.client.hospital.roster_versions import NextRoster
from consilium.client.service.offers import fetch_offer
from consilium.client.service.pinned_connection import approvals_of, connect
from consilium.client.service.roster_agreement import RosterDesk
from consilium.client.service.roster_renewal import accept, changes_of
from consilium.shared.audit.events import Acted, RosterAgreed
from consilium.shared.audit.own_log import open_audit
from consilium.shared.clock import utc_now
from consilium.shared.crypto.transcript import digest
from consilium.shared.enrolment.fingerprint import fingerprint, to_words
from consilium.shared.enrolment.messages import StudyOffer
from consilium.shared.errors import AuthenticationError, PolicyError, SettingsError
from consilium.shared.files.file_lock import file_lock
from consilium.shared.privacy.accounting import plan
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What an agreement came to: who has agreed, and how many persons still must."""

    by: tuple[str, ...]
    missing: int


@dataclass(frozen=True, kw_only=True)
class Rosters:
    """The sites of a study that was approved here, as they are now and as they would be.

    Attributes:
        approval: with the roster in force; None if this site left the study for good.
        proposed: the roster that waits for this hospital, checked; None if none does.
        agreed: the newest that this hospital agreed to, and that is not in force yet.
    """

    approval: Approval | None
    proposed: NextRoster | None = None
    agreed: RosterAgreed | None = None


@contextmanager
def roster_desk(folder: SiteFolder) -> Iterator[RosterDesk]:
    """Connect to the coordinator, to look at rosters and to decide."""
    with connect(folder) as connection:
        yield RosterDesk(
            folder=folder, policy=folder.policy(), approvals=approvals_of(folder),
            audit=open_audit(folder), connection=connection,
        )  # fmt: skip


def look(desk: RosterDesk, study: bytes) -> Rosters:
    """Return the sites of a study, after what is in force by now was taken over.

    Raises:
        ConsiliumError: as :meth:`RosterDesk.follow` and :meth:`RosterDesk.check`.
    """
    version = desk.follow(study)
    approval = desk.approvals.find(study)
    if approval is None:
        return Rosters(approval=None)
    proposed = None if version is None else desk.check(approval, version)
    return Rosters(approval=approval, proposed=proposed, agreed=desk.agreed(study))


def agree(desk: RosterDesk, following: NextRoster, *, by: str) -> Agreement:
    """Agree to a proposed roster as one person; it is sent once as many have as the policy asks.

    Raises:
        SettingsError: this person has agreed already, and the policy asks for another one.
        ConsiliumError: the coordinator cannot be asked, or proposes it no more.
    """
    notes = _notes(desk)
    with file_lock(desk.folder.path / LOCK):
        note = notes.find(following.digest)
        before = note.by if note is not None and note.state == "waiting" else ()
        if by in before:
            raise SettingsError(
                f"{by} has agreed to {_named(following)} already, and this site's policy asks for "
                f"{desk.policy.approvals_needed} persons; it waits for another one"
            )
        names = (*before, by)
        missing = desk.policy.approvals_needed - len(names)
        if missing > 0:
            act = Acted(by=by, act="agree as one of several", subject=_named(following))
            desk.audit.append(act)
            notes.write(following.digest, _note("waiting", names))
            return Agreement(by=names, missing=missing)
        desk.agree(following, by=", ".join(names))
        notes.write(following.digest, _note("approved", names))
    return Agreement(by=names, missing=0)


def refuse(desk: RosterDesk, following: NextRoster, *, by: str) -> None:
    """Note that this hospital does not agree; those who had agreed no longer count.

    Raises:
        SettingsError: it has agreed already, and what it signed stays signed.
    """
    notes = _notes(desk)
    with file_lock(desk.folder.path / LOCK):
        note = notes.find(following.digest)
        if note is not None and note.state == "approved":
            raise SettingsError(
                f"this site has agreed to {_named(following)}; withdraw the approval of the study "
                "if it is not to take part"
            )
        desk.audit.append(Acted(by=by, act="refuse a roster", subject=_named(following)))
        notes.write(following.digest, _note("refused", (by,)))


@dataclass(frozen=True, kw_only=True)
class NewKeys:
    """Sites of an approved study that stand under new keys in what the coordinator offers now.

    Attributes:
        approval: as it is here.
        offer: the study with the new keys.
        doubts: each change with why it is not proved to be the same hospital's; empty if it is.
    """

    approval: Approval
    offer: StudyOffer
    doubts: tuple[tuple[NewKey, str], ...]

    @property
    def digest(self) -> str:
        """That of the new keys, hexadecimal, so that nobody accepts others than were read."""
        return digest("new-keys", *(change.after for change, _ in self.doubts)).hex()

    @property
    def lines(self) -> list[str]:
        """What a person reads of them."""
        found = []
        for change, doubt in self.doubts:
            words = " ".join(to_words(fingerprint(change.site, change.after)))
            found.append(f"{change.site} stands under a new key: {words}")
            found.append(f"  {doubt or 'the same hospital, as its recovery code proves.'}")
        return found


def new_keys(desk: RosterDesk, approval: Approval) -> NewKeys | None:
    """Return which sites of an approved study stand under other keys now; None if none does.

    Raises:
        ConsiliumError: as :func:`changes_of`, or the coordinator cannot be asked.
    """
    offer = fetch_offer(desk.connection, approval.study.digest)
    changes = changes_of(approval, offer, desk.folder, desk.connection)
    doubts = tuple((change, _doubt(desk.folder, change)) for change in changes)
    return NewKeys(approval=approval, offer=offer, doubts=doubts) if doubts else None


def accept_keys(desk: RosterDesk, found: NewKeys, *, by: str) -> None:
    """Let a study go on with new keys; for one that is not proved only vouchers count.

    Raises:
        PolicyError: this hospital does not trust them, or the study cannot go on with them.
    """
    changes = tuple(
        replace(change, proofs=()) if doubt else change for change, doubt in found.doubts
    )
    accept(
        desk.folder, desk.approvals, desk.audit, found.approval, found.offer, changes,
        by=by, policy=desk.policy,
    )  # fmt: skip


def _doubt(folder: SiteFolder, change: NewKey) -> str:
    try:
        check_new_key(change, folder.heads().newest)
    except (AuthenticationError, PolicyError) as error:
        return str(error)
    return ""


def waiting_number(folder: SiteFolder, approval: Approval) -> int | None:
    """Return the number of the roster that waits for this hospital's word, unchecked.

    Raises:
        ConsiliumError: the coordinator cannot be asked.
    """
    with roster_desk(folder) as desk:
        version = desk.waiting(approval)
    return None if version is None else version.number


def decided(desk: RosterDesk, proposed: NextRoster) -> DecisionNote | None:
    """Return what was last decided here about a proposed roster, if anything was."""
    return _notes(desk).find(proposed.digest)


def roster_change_lines(following: NextRoster, approval: Approval) -> list[str]:
    """Return in sentences what a proposed roster changes, for the people who decide."""
    before, after = approval.study, following.study
    sizes, total = following.roster.sizes, sum(following.roster.sizes.values())
    members = dict(following.roster.members)
    lines = [
        f"Roster {following.version.number} is proposed for study {after.name}, digest "
        f"{following.digest.hex()[:16]}; another hospital in it must read the same."
    ]
    for site in following.joined:
        words = " ".join(to_words(fingerprint(site, members[site])))
        lines.append(
            f"  {site} joins, with {sizes[site]} patients ({sizes[site] / total:.0%} of all); "
            f"fingerprint: {words}"
        )
    lines += [f"  {site} leaves for good" for site in following.left]
    lines += [
        f"A sum is opened over {after.minimum_sites} sites or more (now {before.minimum_sites}): "
        f"{after.affords} (now {before.affords}).",
        *_privacy_lines(before, after),
    ]
    return lines


def _privacy_lines(before: Study, after: Study) -> list[str]:
    if plan(after) is None:
        return []
    lines = ["What a round charges your patients stays as it is, and so does the study's epsilon."]
    if after.privacy.mode == "distributed":
        collusion = after.aggregation.tolerated_collusion
        lines.append(
            f"The noise of a sum is shared among {after.minimum_sites - collusion} honest sites "
            f"(now {before.minimum_sites - collusion})."
        )
    return lines


def _notes(desk: RosterDesk) -> DecisionNotes:
    return DecisionNotes(desk.folder.path / "approvals")


def _named(following: NextRoster) -> str:
    return (
        f"roster {following.version.number} of study {following.study.name} "
        f"({following.digest.hex()[:16]})"
    )


def _note(state: State, by: tuple[str, ...]) -> DecisionNote:
    return DecisionNote(state=state, by=by, at=utc_now().isoformat(timespec="seconds"))
