"""The operator's pages, who may see each, and which function each of their forms calls."""

from starlette.responses import Response

from consilium.server.commands.persons import OPERATOR, VIEWER, coordinator_users
from consilium.server.commands.steering import OUTCOMES, shut_out, want
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.register import Wanted
from consilium.server.service.operator_page import PACKAGE as SHOWS
from consilium.server.service.operator_page import page_content
from consilium.server.service.overview import status
from consilium.shared.errors import SettingsError
from consilium.shared.web.application import Application, Page, Visit
from consilium.shared.web.back_off import BackOff
from consilium.shared.web.users import Users

PACKAGE = "consilium.server.web"
BOTH = frozenset((VIEWER, OPERATOR))
ACTS = frozenset((OPERATOR,))


def coordinator_application(
    folder: CoordinatorFolder, *, users: Users | None = None, back_off: BackOff | None = None
) -> Application:
    """Return the application that serves the operator's pages.

    Args:
        folder: the coordinator's.
        users: who may sign in; those of the folder unless given.
        back_off: how wrong passwords wait.
    """
    pages = _Pages(folder)
    return Application(
        "Consilium coordinator",
        users or coordinator_users(folder),
        [
            Page(path="/overview", roles=BOTH, answer=pages.overview, link="Overview"),
            Page(path="/actions", roles=ACTS, answer=pages.actions, link="Actions"),
            Page(path="/actions/study", roles=ACTS, answer=pages.study, changes=True),
            Page(path="/actions/revoke", roles=ACTS, answer=pages.revoke, changes=True),
        ],
        style=(PACKAGE, "coordinator.css"),
        back_off=back_off,
    )


class _Pages:
    def __init__(self, folder: CoordinatorFolder) -> None:
        self._folder, self._register = folder, folder.register()

    def overview(self, visit: Visit) -> Response:
        """Show sites, studies, rounds and events, as the monitor's page does."""
        found = status(self._folder, self._register)
        return visit.page(SHOWS, "signed_in.html", **page_content(self._folder, found))

    def actions(self, visit: Visit) -> Response:
        """Show what can be done: to open studies, and to sites that are not revoked."""
        return visit.page(
            PACKAGE,
            "actions.html",
            studies=[one for one in self._register.studies() if one.open],
            sites=[one.name for one in self._register.members() if one.revoked is None],
        )

    def study(self, visit: Visit) -> Response:
        """Pause, resume or stop a study."""
        _require_tick(visit)
        try:
            wanted = Wanted(visit.form.get("wanted", ""))
        except ValueError:
            raise SettingsError("nothing was chosen; choose what is to happen") from None
        done = want(self._folder, visit.form.get("digest", ""), wanted, by=visit.by)
        return visit.go("/actions", f"Study {done.name} {OUTCOMES[wanted]}.")

    def revoke(self, visit: Visit) -> Response:
        """Shut a site out, if its name was typed, too."""
        site = visit.form.get("site", "")
        if not site or visit.form.get("again", "").strip() != site:
            raise SettingsError("the site's name was not typed as it is chosen; nothing was done")
        reason = visit.form.get("reason", "").strip()
        shut_out(self._folder, site, reason=reason, by=visit.by)
        return visit.go("/actions", f"Site {site} is revoked; its key is refused from now on.")


def _require_tick(visit: Visit) -> None:
    if visit.form.get("sure") != "yes":
        raise SettingsError("the box that says you are sure was not ticked; nothing was changed")
