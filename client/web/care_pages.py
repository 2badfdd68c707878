"""Overview, privacy budget, opt-outs, audit log, and the tests of this machine."""

from pathlib import Path

from starlette.responses import Response

from consilium.client.hospital.folder import LEDGER_FILE, SiteFolder
from consilium.client.ledger.view import caveats
from consilium.client.service.status import site_status
from consilium.client.web.audit_sentences import told
from consilium.client.web.budget_bars import ROW, WIDTH, budget_bars
from consilium.shared.audit.events import OptedOut
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.recent import recent_entries
from consilium.shared.audit.verify import Side, report_lines, verify_both
from consilium.shared.errors import ConsiliumError
from consilium.shared.web.application import Visit
from consilium.shared.web.jobs import Jobs

PACKAGE = "consilium.client.web"
SHOWN, LOOKED_AT = 100, 1000  # entries of the audit log; most are of rounds


class CarePages:
    """The pages about this site as a whole.

    Args:
        folder: the site's.
        jobs: where tests run.
    """

    def __init__(self, folder: SiteFolder, jobs: Jobs) -> None:
        self._folder, self._jobs = folder, jobs

    def overview(self, visit: Visit) -> Response:
        """Show how this site stands."""
        return visit.page(PACKAGE, "overview.html", state=site_status(self._folder))

    def budget(self, visit: Visit) -> Response:
        """Show what of the privacy budget was spent, as the command ``ledger`` does."""
        bars, notes = None, []
        if (self._folder.path / LEDGER_FILE).exists():
            summary = self._folder.ledger(self._folder.policy()).summary()
            bars, notes = budget_bars(summary), caveats(summary)
        return visit.page(PACKAGE, "budget.html", bars=bars, notes=notes, width=WIDTH, row=ROW)

    def opt_outs(self, visit: Visit) -> Response:
        """Show how many persons opted out, and how many of them were left out last."""
        from consilium.client.service.site_opt_outs import opt_outs

        wrong, named = "", None
        try:
            found = opt_outs(self._folder)
            named = None if found is None else len(found)
        except ConsiliumError as error:
            wrong = str(error)
        entries = recent_entries(self._log, LOOKED_AT)
        last = next((one for one in entries if isinstance(one.event, OptedOut)), None)
        return visit.page(PACKAGE, "opt_outs.html", named=named, wrong=wrong, last=last)

    def audit(self, visit: Visit) -> Response:
        """Show the latest entries of the audit log, and what verifying it found."""
        shown = [one for entry in recent_entries(self._log, LOOKED_AT) if (one := told(entry))]
        return visit.page(
            PACKAGE, "audit.html", entries=shown[:SHOWN], job=self._jobs.find("verify")
        )

    def verify(self, visit: Visit) -> Response:
        """Begin to verify every line of the audit log."""
        self._jobs.start("verify", self._verify, by=visit.by)
        return visit.go("/audit")

    def _verify(self) -> tuple[list[str], list[str]]:
        """Return what was found, and what does not fit, in sentences."""
        from consilium.client.commands.operations import disagreements

        side = Side(
            path=self._log, owner=self._folder.owner(), identity=self._folder.identity().public
        )
        report, _ = verify_both(side, None)
        found = report_lines(report, self._log)
        if report.finding is not None:  # then the other stores cannot be compared with it
            return found, [str(report.finding)]
        return found, disagreements(self._folder)

    def machine(self, visit: Visit) -> Response:
        """Show what the tests of this machine found."""
        return visit.page(PACKAGE, "machine.html", job=self._jobs.find("preflight"))

    def test_machine(self, visit: Visit) -> Response:
        """Begin the tests of ``consilium-site preflight``."""
        from consilium.client.service.preflight import preflight  # it imports PyTorch

        self._jobs.start("preflight", lambda: preflight(self._folder), by=visit.by)
        return visit.go("/machine")

    @property
    def _log(self) -> Path:
        return self._folder.path / AUDIT_FILE
