"""What a person decides about a proposed roster of an approved study: agree, or refuse.

As with studies (:mod:`consilium.client.commands.decisions`), as many persons agree as the policy
asks for, each stands in the audit log before it counts, and a refusal is sent to nobody: the study
goes on with the roster that it has.
"""

from dataclasses import dataclass

from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.decision_notes import LOCK, DecisionNote, DecisionNotes, State
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.roster_versions import NextRoster
from consilium.client.service.pinned_connection import approvals_of, connect
from consilium.client.service.roster_agreement import RosterDesk
from consilium.shared.audit.events import Acted
from consilium.shared.audit.own_log import open_audit
from consilium.shared.clock import utc_now
from consilium.shared.enrolment.fingerprint import fingerprint, to_words
from consilium.shared.errors import SettingsError
from consilium.shared.files.file_lock import file_lock
from consilium.shared.privacy.accounting import plan
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What an agreement came to: who has agreed, and how many persons still must."""

    by: tuple[str, ...]
    missing: int


def agree(desk: RosterDesk, following: NextRoster, *, by: str) -> Agreement:
    """Agree to a proposed roster as one person; it is sent once as many have as the policy asks.

    Raises:
        SettingsError: this person has agreed already, and the policy asks for another one.
        ConsiliumError: the coordinator cannot be asked, or proposes it no more.
    """
    notes = DecisionNotes(desk.folder.path / "approvals")
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
    notes = DecisionNotes(desk.folder.path / "approvals")
    with file_lock(desk.folder.path / LOCK):
        note = notes.find(following.digest)
        if note is not None and note.state == "approved":
            raise SettingsError(
                f"this site has agreed to {_named(following)}; withdraw the approval of the study "
                "if it is not to take part"
            )
        desk.audit.append(Acted(by=by, act="refuse a roster", subject=_named(following)))
        notes.write(following.digest, _note("refused", (by,)))


def waiting_line(folder: SiteFolder, approval: Approval) -> str:
    """Say which roster of an approved study waits for this hospital; empty if none does."""
    with connect(folder) as connection:
        desk = RosterDesk(
            folder=folder, policy=folder.policy(), approvals=approvals_of(folder),
            audit=open_audit(folder), connection=connection,
        )  # fmt: skip
        version = desk.waiting(approval)
    if version is None:
        return ""
    name = approval.study.name
    return f"  roster {version.number} waits for this hospital: 'consilium-site roster {name}'"


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


def _named(following: NextRoster) -> str:
    return (
        f"roster {following.version.number} of study {following.study.name} "
        f"({following.digest.hex()[:16]})"
    )


def _note(state: State, by: tuple[str, ...]) -> DecisionNote:
    return DecisionNote(state=state, by=by, at=utc_now().isoformat(timespec="seconds"))
