"""What a person decides about a study: approve, refuse, withdraw.

The only way to decide, for the command line and for the page alike. Whoever decides at the same
time waits; each decision stands in the audit log, with who made it, before it holds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from consilium.client.hospital.approvals import Approval, Approvals
from consilium.client.hospital.cohort_notes import CohortNote, note_approved, read_notes
from consilium.client.hospital.decision_notes import LOCK, DecisionNote, DecisionNotes
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.stores import check_log_is_there
from consilium.client.service.offers import declare_size, find_offer
from consilium.client.service.pinned_connection import approvals_of
from consilium.shared.audit.events import Acted, Approved, Refused, SizeDeclared
from consilium.shared.audit.own_log import open_audit
from consilium.shared.clock import utc_now
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import Roster
from consilium.shared.enrolment.messages import StudyOffer, roster_digest
from consilium.shared.errors import PolicyError, SettingsError
from consilium.shared.files.file_lock import file_lock
from consilium.shared.study.definition import Study

LONGEST_REASON = 300


@dataclass(frozen=True, kw_only=True, repr=False)
class Proposal:
    """An offered study that this site's policy allows and its records can serve, and its size.

    ``cohort`` is what is kept of the records as they are now; ``numbers`` say in sentences how many
    persons they have, exact, for this hospital's own people.
    """

    offer: StudyOffer
    approval: Approval
    patients: int
    cohort: CohortNote
    numbers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an approval came to: who has approved, and how many persons still must."""

    by: tuple[str, ...]
    missing: int


def notes_of(folder: SiteFolder) -> DecisionNotes:
    """Return the notes on what persons decided here."""
    return DecisionNotes(folder.path / "approvals")


def sites_digest(roster: Roster) -> str:
    """Return the digest of a roster's names and identities, without sizes, hexadecimal."""
    return roster_digest(Roster(roster.members)).hex()


def propose(
    folder: SiteFolder,
    named: str,
    *,
    digest: str = "",
    sites: str = "",
    patients: int | None = None,
) -> Proposal:
    """Check everything that an approval needs, and read the records; nothing is decided yet.

    Args:
        folder: the site's.
        named: the study's name or digest.
        digest: first digits, at least 8, of the digest that the study must have; empty for any.
        sites: what :func:`sites_digest` gave when the person read the study; empty for any.
        patients: the size to declare; None for the rounded number of patients.

    Raises:
        SettingsError: it is not offered, or not as the person read it.
        PolicyError: this site's policy does not allow the study or its roster.
        DataError: the records cannot serve the study.
        ConsiliumError: the coordinator cannot be asked.
    """
    # These import PyTorch, which the page's process needs only now.
    from consilium.client.commands.declared_size import chosen_size
    from consilium.client.commands.own_numbers import own_numbers
    from consilium.client.service.moved_cohort import note_of
    from consilium.client.service.site_cohort import suitable_cohort

    check_log_is_there(folder)
    try:
        offer = find_offer(folder, named)
    except SettingsError as error:
        if sites and error.case == "not-offered":
            raise SettingsError(
                f"study {named[:16]} is not offered any more as you read it: it was changed or "
                "ended meanwhile, and nothing was approved; review what is offered now"
            ) from error
        raise
    approval = approvals_of(folder).check(offer)
    study = approval.study
    if digest and not (len(digest) >= 8 and study.digest.hex().startswith(digest.lower())):
        raise SettingsError(
            f"study {study.name}: its digest is {study.digest.hex()[:16]}, not {digest[:16]}; "
            "review it again"
        )
    if sites and sites_digest(approval.roster) != sites:
        raise SettingsError(
            f"study {study.name}: another site, or one under another key, takes part than when you "
            "read it, and nothing was approved; review it again"
        )
    check_allowed(folder, approval, asked="approve")
    cohort = suitable_cohort(folder, study)
    return Proposal(
        offer=offer,
        approval=approval,
        patients=chosen_size(approval, folder.owner(), cohort, patients),
        cohort=note_of(folder, cohort, study),
        numbers=tuple(own_numbers(cohort, study)),
    )


def check_allowed(folder: SiteFolder, approval: Approval, *, asked: str) -> None:
    """Refuse what this site's policy does not allow; a roster that is refused is noted in the log.

    Raises:
        PolicyError: the study or its roster is not allowed.
        StudyError: a module of the study is not installed as named, or mixes patients.
    """
    policy, study = folder.policy(), approval.study
    policy.check_study(study)
    try:
        policy.check_roster(study, approval.roster, folder.vouchers().trust())
    except PolicyError as error:
        event = Refused(
            peer="coordinator", asked=asked, code="PolicyError", sentence=str(error)[:1000]
        )
        open_audit(folder).append(event)
        raise
    check_modules_of(study)


def check_modules_of(study: Study) -> None:
    """Refuse a study with a module that is not installed as named, or mixes patients.

    The policy has allowed its code by now.

    Raises:
        StudyError: one sentence: the module, what is wrong with it, and the remedy.
    """
    if study.model.modules:  # PyTorch is imported for these alone
        from consilium.shared.model.module_check import check_modules

        check_modules(study)


def approve(folder: SiteFolder, proposal: Proposal, *, by: str) -> Outcome:
    """Approve a study as one person; it is approved once as many have as the policy asks for.

    Guarantee: with ``approvals_needed`` above 1 no person counts twice, and all who count approved
    the same study, sites, keys and size.

    Args:
        folder: the site's.
        proposal: what :func:`propose` returned.
        by: the person, as the audit log is to name them.

    Raises:
        SettingsError: it is approved already, or waits for another person than this one.
        ProtocolError: the coordinator refused the size.
    """
    study, patients = proposal.approval.study, proposal.patients
    sites = sites_digest(proposal.approval.roster)
    with _deciding(folder):
        _refuse_again(folder, proposal, sites)
        before = _waiting(folder, study.digest, sites, patients)
        if by in before:
            raise SettingsError(
                f"study {study.name}: {by} has approved it already, and this site's policy asks "
                f"for {folder.policy().approvals_needed} persons; it waits for another one"
            )
        names = (*before, by)
        missing = folder.policy().approvals_needed - len(names)
        audit = open_audit(folder)
        if missing > 0:
            subject = f"study {study.name} ({study.digest.hex()[:16]}), {patients} patients"
            audit.append(Acted(by=by, act="approve as one of several", subject=subject))
            state = DecisionNote(
                state="waiting", by=names, at=_now(), roster=sites, patients=patients
            )
            notes_of(folder).write(study.digest, state)
            return Outcome(by=names, missing=missing)
        declared = Declaration.signed(
            patients,
            study_digest=study.digest,
            site=folder.owner(),
            sign=folder.identity().sign,
        )
        audit.append(SizeDeclared(study_digest=study.digest, patients=patients))
        declare_size(folder, study.digest, declared)
        audit.append(
            Approved(
                study=study.name, study_digest=study.digest, approved=True, by=", ".join(names)
            )
        )
        note_approved(folder.path / "approvals", study.digest, proposal.cohort)
        approvals_of(folder).approve(proposal.offer, declared)
        notes_of(folder).write(
            study.digest,
            DecisionNote(state="approved", by=names, at=_now(), roster=sites, patients=patients),
        )
    return Outcome(by=names, missing=0)


def refuse(folder: SiteFolder, named: str, *, by: str, reason: str = "") -> str:
    """Note that this hospital does not want an offered study; return its name.

    Nothing is sent. Approvals that waited for another person no longer count.

    Raises:
        SettingsError: it is approved, or not offered, or the reason is too long.
        ConsiliumError: the coordinator cannot be asked.
    """
    check_log_is_there(folder)
    _check_reason(reason)
    study = approvals_of(folder).check(find_offer(folder, named)).study
    with _deciding(folder):
        if approvals_of(folder).stamp(study.digest) is not None:
            raise SettingsError(f"study {study.name} is approved; withdraw the approval instead")
        subject = f"study {study.name} ({study.digest.hex()[:16]})"
        if reason:
            subject += f": {reason}"
        open_audit(folder).append(Acted(by=by, act="refuse", subject=subject))
        note = DecisionNote(state="refused", by=(by,), at=_now(), reason=reason)
        notes_of(folder).write(study.digest, note)
    return study.name


def withdraw(folder: SiteFolder, named: str, *, by: str, reason: str = "") -> str:
    """Take an approval back, which one person may; return the study's name.

    A running site refuses the study from its next message on.

    Raises:
        SettingsError: no study of this name or digest is approved, or several are.
    """
    check_log_is_there(folder)
    _check_reason(reason)
    with _deciding(folder):
        approvals = approvals_of(folder)
        study = find_approved(approvals, named).study
        open_audit(folder).append(
            Approved(study=study.name, study_digest=study.digest, approved=False, by=by)
        )
        approvals.withdraw(study.digest)
        note = DecisionNote(state="withdrawn", by=(by,), at=_now(), reason=reason)
        notes_of(folder).write(study.digest, note)
    return study.name


def find_approved(approvals: Approvals, named: str) -> Approval:
    """Return the approval of the study of this name or digest (8 digits or more).

    Raises:
        SettingsError: none is approved, or several are.
    """
    found = [
        one
        for one in approvals
        if one.study.name == named or (len(named) >= 8 and one.study.digest.hex().startswith(named))
    ]
    if len(found) != 1:
        raise SettingsError(
            f"study {named}: {'several' if found else 'none'} approved under this name; "
            "name its digest"
        )
    return found[0]


@contextmanager
def _deciding(folder: SiteFolder) -> Iterator[None]:
    with file_lock(folder.path / LOCK):
        yield


def _refuse_again(folder: SiteFolder, proposal: Proposal, sites: str) -> None:
    """Refuse a second approval of what is approved already, as it would be approved now."""
    digest, site = proposal.approval.study.digest, folder.owner()
    if approvals_of(folder).stamp(digest) is None:
        return
    note = notes_of(folder).find(digest)
    if note is None or note.state != "approved" or note.roster != sites:
        return  # approved before notes were kept, or on another roster: approving again may mend it
    cohort = read_notes(folder.path / "approvals", digest)
    if cohort is None or cohort.approved.fingerprint != proposal.cohort.fingerprint:
        return  # the records moved since: approving again says that these will do
    approved = approvals_of(folder).find(digest)
    if approved is not None and approved.sizes.get(site) == proposal.patients:
        raise SettingsError(
            f"study {approved.study.name} is approved already, by {', '.join(note.by)} on "
            f"{note.at[:10]}; nothing was changed"
        )


def _waiting(folder: SiteFolder, digest: bytes, sites: str, patients: int) -> tuple[str, ...]:
    """Return who has approved the study while it waits for more persons.

    Raises:
        SettingsError: they approved another size.
    """
    note = notes_of(folder).find(digest)
    if note is None or note.state != "waiting" or note.roster != sites:
        return ()
    if note.patients != patients:
        raise SettingsError(
            f"{', '.join(note.by)} approved this study with a size of {note.patients} patients, "
            f"not {patients}; approve the same size, or refuse the study and begin anew"
        )
    return note.by


def _check_reason(reason: str) -> None:
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise SettingsError(
            f"the reason must be at most {LONGEST_REASON} characters on one line; shorten it"
        )


def _now() -> str:
    return utc_now().isoformat(timespec="seconds")
