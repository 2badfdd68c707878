"""The long-running process of a site: it imports everything once, then answers messages."""

import logging
import signal
import threading
from types import FrameType

from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.policy_file import FILE_NAME as POLICY_FILE
from consilium.client.hospital.process_limits import apply_limits
from consilium.client.hospital.round_audit import RoundAudit
from consilium.client.hospital.settings import FILE_NAME as SETTINGS_FILE
from consilium.client.records.cohort import Cohort, read_cohort
from consilium.client.round.session import Session
from consilium.client.service.flower_app import make_client_app
from consilium.client.service.measurements import Measurements
from consilium.client.service.pinned_connection import approvals_of, connect
from consilium.client.service.study_sessions import StudySessions
from consilium.client.service.supernode import SiteNode
from consilium.shared.audit.configuration import note_configuration
from consilium.shared.audit.own_log import open_audit

CONFIGURATION = (SETTINGS_FILE, POLICY_FILE)

log = logging.getLogger(__name__)


def run_site(folder: SiteFolder) -> None:
    """Answer the coordinator for this site until the process is told to stop.

    Raises:
        SettingsError: the site is not enrolled, or another process answers for it.
        AuditError: the audit log cannot be written, or does not verify.
    """
    policy = folder.policy()
    apply_limits(policy)
    enrolment = folder.enrolment()
    stop = threading.Event()
    _stop_on_signals(stop)
    with folder.hold(), connect(folder) as connection:
        audit = open_audit(folder)
        note_configuration(audit, folder.path, CONFIGURATION)
        state = folder.state(policy, RoundAudit(audit, enrolment.coordinator))
        approvals = approvals_of(folder)

        def read(approval: Approval) -> Cohort:
            source = folder.settings().open_source(folder.path, approval.study)
            return read_cohort(
                source, approval.study, site=enrolment.site, split_key=state.split_key
            )

        def open_session(approval: Approval) -> Session:
            return Session(
                site=enrolment.site,
                study=approval.study,
                roster=approval.roster,
                sizes=approvals.known_sizes(approval),
                read=lambda: read(approval),
                policy=policy,
                state=state,
            )

        sessions = StudySessions(enrolment.site, approvals, open_session, audit)
        tell = connection.tell_budget_left if policy.tell_budget_left else None
        measurements = Measurements(sessions, folder.path, state.ledger, tell=tell)
        node = SiteNode(
            connection,
            int.from_bytes(enrolment.node_id, "big"),
            make_client_app(measurements),
            stop=stop,
        )
        log.info("site %s is ready", enrolment.site)
        node.run()


def _stop_on_signals(stop: threading.Event) -> None:
    def ask_to_stop(_: int, __: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
