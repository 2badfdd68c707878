"""The list of studies, and the page on which a steward reads one and decides."""

import re
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from consilium.client.commands import decisions
from consilium.client.commands.persons import IT, STEWARD
from consilium.client.commands.review import all_lines
from consilium.client.commands.roster_decisions import waiting_number
from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.decision_notes import DecisionNote
from consilium.client.hospital.folder import LEDGER_FILE, SiteFolder
from consilium.client.service.offers import fetch_offers
from consilium.client.service.pinned_connection import approvals_of
from consilium.client.web.data_check import check_data
from consilium.client.web.study_words import parts, price, sentence_of, unknown_sites
from consilium.shared.errors import ConsiliumError, PolicyError, SettingsError
from consilium.shared.web.application import Visit
from consilium.shared.web.jobs import Jobs

PACKAGE = "consilium.client.web"
# The report's drawings are inline pictures, and its colours stand in its own elements.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
MOST_PATIENTS = 10**9


@dataclass(frozen=True, kw_only=True)
class Known:
    """A study as this site knows it: what would be or was approved, and what was decided."""

    approval: Approval
    approved: bool
    note: DecisionNote | None

    @property
    def digest(self) -> str:
        """The study's digest, hexadecimal."""
        return self.approval.study.digest.hex()

    @property
    def state(self) -> str:
        """How it stands here, in a few words."""
        if self.approved:
            return "approved"
        if self.note is None or self.note.state == "approved":
            return "to be decided"
        if self.note.state == "waiting":
            return "waits for another person"
        return self.note.state


class StudyPages:
    """The pages about studies.

    Args:
        folder: the site's.
        jobs: where checks of the records run.
    """

    def __init__(self, folder: SiteFolder, jobs: Jobs) -> None:
        self._folder, self._jobs = folder, jobs

    def listed(self, visit: Visit) -> Response:
        """Show all studies that are offered or approved."""
        known, trouble = self._all()
        rosters = {one.digest: self._waiting_roster(one) for one in known}
        return visit.page(PACKAGE, "studies.html", known=known, trouble=trouble, rosters=rosters)

    def one(self, visit: Visit) -> Response:
        """Show a study: what leaves, what it costs, what approving means; the forms to decide."""
        known = self._find(visit)
        study, policy = known.approval.study, self._folder.policy()
        trust = self._folder.vouchers().trust()
        lines = all_lines(known.approval, trust, policy)
        forbidden = ""
        try:
            policy.check_study(study)
            policy.check_roster(study, known.approval.roster, trust)
        except PolicyError as error:
            forbidden = str(error)
        job = self._jobs.find(f"check {known.digest}")
        declared = known.approval.sizes.get(self._folder.owner())
        waiting = known.note is not None and known.note.state == "waiting"
        fixed = known.note.patients if known.note is not None and waiting else declared
        return visit.page(
            PACKAGE,
            "study.html",
            known=known,
            study=study,
            roster=self._waiting_roster(known),
            sites_digest=decisions.sites_digest(known.approval.roster),
            leaves=sentence_of(lines, "What leaves"),
            privacy=sentence_of(lines, "Privacy"),
            price=price(study),
            policy=policy,
            budget_left=self._budget_left(),
            others=[site for site in study.sites if site != self._folder.owner()],
            unknown=unknown_sites(study, known.approval.roster, trust),
            parts=parts(lines),
            forbidden=forbidden,
            job=job,
            check=None if job is None else job.result,
            fixed=fixed,
            waiting=waiting,
            decides=visit.person.role == STEWARD,
            checks=visit.person.role in (STEWARD, IT),
            mine=known.note is not None and visit.by in known.note.by and waiting,
        )

    def check(self, visit: Visit) -> Response:
        """Begin to read the records for a study."""
        known = self._find(visit)
        study = known.approval.study
        self._jobs.start(
            f"check {known.digest}", lambda: check_data(self._folder, study), by=visit.by
        )
        return visit.go(f"/studies/{known.digest}")

    def report(self, visit: Visit) -> Response:
        """Show the whole report of the check, with figures."""
        job = self._jobs.find(f"check {digest_of(visit)}")
        if job is None or job.result is None:
            raise HTTPException(404, "These records were not checked yet; start the check first.")
        return HTMLResponse(job.result.page, headers={"Content-Security-Policy": REPORT_POLICY})

    def approve(self, visit: Visit) -> Response:
        """Approve a study as it was read, if it is still so."""
        require_tick(visit)
        digest, form = digest_of(visit), visit.form
        proposal = decisions.propose(
            self._folder,
            digest,
            digest=form.get("digest") or "-",  # empty would be any
            sites=form.get("sites") or "-",
            patients=_patients(form.get("patients", "")),
        )
        outcome = decisions.approve(self._folder, proposal, by=visit.by)
        name = proposal.approval.study.name
        if outcome.missing:
            return visit.go(
                f"/studies/{digest}",
                f"You approved study {name}. It begins only once {outcome.missing} more person(s) "
                "approve it, too.",
            )
        return visit.go(
            f"/studies/{digest}",
            f"Study {name} is approved, with a declared size of {proposal.patients} patients.",
        )

    def refuse(self, visit: Visit) -> Response:
        """Note that the hospital does not want a study."""
        digest = digest_of(visit)
        reason = visit.form.get("reason", "").strip()
        name = decisions.refuse(self._folder, digest, by=visit.by, reason=reason)
        return visit.go(f"/studies/{digest}", f"Study {name} is refused; nothing was sent.")

    def withdraw(self, visit: Visit) -> Response:
        """Take an approval back."""
        require_tick(visit)
        digest = digest_of(visit)
        name = decisions.withdraw(self._folder, digest, by=visit.by)
        return visit.go(
            f"/studies/{digest}",
            f"The approval of study {name} is withdrawn; nothing more leaves for it.",
        )

    def _waiting_roster(self, known: Known) -> int | None:
        """Return the number of the roster that waits for this hospital; None without an answer."""
        if not known.approved:
            return None
        try:
            return waiting_number(self._folder, known.approval)
        except ConsiliumError:
            return None

    def _budget_left(self) -> float | None:
        if not (self._folder.path / LEDGER_FILE).exists():
            return None
        return self._folder.ledger(self._folder.policy()).summary().total.left

    def _find(self, visit: Visit) -> Known:
        digest = digest_of(visit)
        found = [one for one in self._approved() if one.digest == digest]
        if found:
            return found[0]
        known, trouble = self._all()
        for one in known:
            if one.digest == digest:
                return one
        raise SettingsError(
            "; ".join(trouble)
            or f"study {digest[:16]} is not offered any more: it was changed or ended; open the "
            "list of studies"
        )

    def _approved(self) -> list[Known]:
        notes = decisions.notes_of(self._folder)
        return [
            Known(approval=approval, approved=True, note=notes.find(approval.study.digest))
            for approval in approvals_of(self._folder)
        ]

    def _all(self) -> tuple[list[Known], list[str]]:
        """Return offered and approved studies, and why others are not known if there are."""
        known = {one.digest: one for one in self._approved()}
        notes, approvals = decisions.notes_of(self._folder), approvals_of(self._folder)
        try:
            offers = fetch_offers(self._folder)
        except ConsiliumError as error:
            return list(known.values()), [f"the coordinator's offers are not known: {error}"]
        trouble = []
        for offer in offers:
            try:
                approval = approvals.check(offer)
            except ConsiliumError as error:
                trouble.append(f"an offer was not accepted: {error}")
                continue
            digest = approval.study.digest
            if digest.hex() not in known:
                note = notes.find(digest)
                known[digest.hex()] = Known(approval=approval, approved=False, note=note)
        return list(known.values()), trouble


def digest_of(visit: Visit) -> str:
    """Return the digest in the path, hexadecimal.

    Raises:
        HTTPException: it is no digest.
    """
    digest = visit.parts["digest"]
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise HTTPException(404, "There is no study at this address.")
    return digest


def require_tick(visit: Visit) -> None:
    """Refuse a form whose box that says one is sure was not ticked.

    Raises:
        SettingsError: it was not.
    """
    if visit.form.get("sure") != "yes":
        raise SettingsError("the box that says you are sure was not ticked; nothing was changed")


def _patients(text: str) -> int:
    """Return the size in a form.

    Raises:
        SettingsError: it is no whole number of patients.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or not 1 <= int(text) <= MOST_PATIENTS:
        raise SettingsError(
            f"the size {text[:20]!r} is not a whole number of patients; write digits alone"
        )
    return int(text)
