"""What an operator does to studies and sites, for the command line and the page alike.

Each act stands in the audit log, with who did it, before it is done.
"""

from consilium.server.coordinator.acts import note_act
from consilium.server.coordinator.enrolment import revoke
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.register import Submitted, Wanted
from consilium.shared.audit.events import StudyChanged
from consilium.shared.audit.own_log import open_audit
from consilium.shared.errors import SettingsError

LONGEST_REASON = 300
OUTCOMES = {
    Wanted.PAUSE: "will pause after the round it is in",
    Wanted.RUN: "goes on at its next round",
    Wanted.STOP: "will end after the round it is in",
}


def want(folder: CoordinatorFolder, named: str, wanted: Wanted, *, by: str) -> Submitted:
    """Let an open study pause, go on or end, from the round it is in; return it.

    Raises:
        SettingsError: there is no such study, or it has ended.
        AuditError: it cannot be recorded, so it is not done.
    """
    register = folder.register()
    study = register.study(named)
    if not study.open:
        raise SettingsError(f"study {study.name} is {study.state}; submit a new one")
    note_act(folder, wanted.value, f"{study.name} ({study.digest.hex()[:16]})", by=by)
    open_audit(folder).append(
        StudyChanged(study=study.name, study_digest=study.digest, state=f"wanted: {wanted}")
    )
    register.want(study.digest, wanted)
    return study


def shut_out(folder: CoordinatorFolder, site: str, *, reason: str, by: str) -> None:
    """Revoke a site: its key is refused from now on.

    Raises:
        SettingsError: no such site is enrolled, or the reason is too long.
        AuditError: it cannot be recorded, so it is not done.
    """
    from consilium.server.flower.database_link import dismiss_node, open_link  # imports Flower

    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise SettingsError(
            f"the reason must be at most {LONGEST_REASON} characters on one line; shorten it"
        )
    note_act(folder, "revoke", site, by=by)
    member = revoke(folder.register(), open_audit(folder), site, reason)
    dismiss_node(open_link(folder.link_database), member.node_id)
