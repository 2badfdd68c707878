"""The page of a study's hospitals: who takes part, who is to join or leave, who has a new key."""

from starlette.responses import Response

from consilium.client.commands import roster_decisions
from consilium.client.commands.persons import STEWARD
from consilium.client.commands.roster_decisions import Rosters
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.roster_versions import NextRoster
from consilium.client.service.pinned_connection import approvals_of
from consilium.client.service.roster_agreement import RosterDesk
from consilium.client.web.study_pages import PACKAGE, digest_of, require_tick
from consilium.shared.errors import ConsiliumError, SettingsError
from consilium.shared.web.application import Visit


class RosterPages:
    """The pages about the hospitals of approved studies.

    Args:
        folder: the site's.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder

    def one(self, visit: Visit) -> Response:
        """Show the hospitals of an approved study; the forms to decide on others or on new keys.

        Raises:
            SettingsError: the study is not approved here, or this hospital left it.
        """
        digest = bytes.fromhex(digest_of(visit))
        approval = approvals_of(self._folder).find(digest)
        rosters, keys, note, trouble = Rosters(approval=approval), None, None, ""
        if approval is not None:
            try:
                with roster_decisions.roster_desk(self._folder) as desk:
                    rosters = roster_decisions.look(desk, digest)
                    if rosters.proposed is not None:
                        note = roster_decisions.decided(desk, rosters.proposed)
                    elif rosters.approval is not None:
                        keys = roster_decisions.new_keys(desk, rosters.approval)
            except ConsiliumError as error:
                trouble = str(error)
        if rosters.approval is None:
            raise SettingsError(
                "this hospital takes no part in this study: it was not approved here, or this "
                "hospital left it; see the list of studies"
            )
        now, proposed = rosters.approval, rosters.proposed
        standings = self._folder.vouchers().trust().standings(now.study, now.roster)
        return visit.page(
            PACKAGE,
            "roster.html",
            study=now.study,
            sizes=now.sizes,
            own=self._folder.owner(),
            unknown=[one.site for one in standings if not one.vouched],
            proposed=proposed,
            agreed=rosters.agreed,
            changes=roster_decisions.roster_change_lines(proposed, now) if proposed else [],
            keys=keys,
            note=note,
            trouble=trouble,
            needed=self._folder.policy().approvals_needed,
            decides=visit.person.role == STEWARD,
        )

    def agree(self, visit: Visit) -> Response:
        """Agree to a proposed roster as it was read, if it still is that one."""
        require_tick(visit)
        with roster_decisions.roster_desk(self._folder) as desk:
            proposed = _as_read(desk, visit)
            outcome = roster_decisions.agree(desk, proposed, by=visit.by)
        told = (
            f"You agreed to roster {proposed.version.number}. It is sent only once "
            f"{outcome.missing} more person(s) agree, too."
            if outcome.missing
            else f"This hospital agreed to roster {proposed.version.number}. It is in force from "
            "the next round on, once all others agree."
        )
        return visit.go(_page(visit), told)

    def refuse(self, visit: Visit) -> Response:
        """Note that the hospital does not want a proposed roster."""
        with roster_decisions.roster_desk(self._folder) as desk:
            proposed = _as_read(desk, visit)
            roster_decisions.refuse(desk, proposed, by=visit.by)
        return visit.go(
            _page(visit),
            f"Roster {proposed.version.number} is refused: the study goes on with the hospitals "
            "that it has. Nothing was sent; tell the coordinator why.",
        )

    def accept_keys(self, visit: Visit) -> Response:
        """Let the study go on with new keys as they were read."""
        require_tick(visit)
        with roster_decisions.roster_desk(self._folder) as desk:
            now = roster_decisions.look(desk, bytes.fromhex(digest_of(visit))).approval
            found = None if now is None else roster_decisions.new_keys(desk, now)
            if found is None or found.digest != visit.form.get("keys"):
                raise SettingsError(
                    "the keys shown now are others than those you read; nothing was accepted; "
                    "read them again"
                )
            roster_decisions.accept_keys(desk, found, by=visit.by)
        return visit.go(_page(visit), "The study goes on here with the new keys.")


def _as_read(desk: RosterDesk, visit: Visit) -> NextRoster:
    """Return the proposed roster that the form names.

    Raises:
        SettingsError: another one is proposed by now, or none.
    """
    found = roster_decisions.look(desk, bytes.fromhex(digest_of(visit))).proposed
    if found is None or found.digest.hex() != visit.form.get("roster"):
        raise SettingsError(
            "the roster that you read is not proposed any more; nothing was decided; read what is "
            "proposed now"
        )
    return found


def _page(visit: Visit) -> str:
    return f"/studies/{digest_of(visit)}/hospitals"
