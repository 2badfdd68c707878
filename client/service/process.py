"""The long-running process of a site: it imports everything once, then answers messages."""

import logging
import signal
import threading
from dataclasses import replace
from functools import partial
from types import FrameType

from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.policy_file import FILE_NAME as POLICY_FILE
from consilium.client.hospital.process_limits import apply_limits
from consilium.client.hospital.settings import FILE_NAME as SETTINGS_FILE
from consilium.client.hospital.stores import check_second_place, open_compared
from consilium.client.hospital.voucher_check import voucher_disagreements
from consilium.client.round.session import Session
from consilium.client.service.flower_app import make_client_app
from consilium.client.service.measurements import Measurements
from consilium.client.service.pinned_connection import (
    approvals_of,
    approved_digests,
    budget_certificates,
    connect,
)
from consilium.client.service.roster_renewal import renew_roster
from consilium.client.service.site_cohort import opt_outs, site_cohort
from consilium.client.service.study_sessions import StudySessions
from consilium.client.service.supernode import SiteNode
from consilium.shared.audit.configuration import note_configuration
from consilium.shared.errors import SettingsError

CONFIGURATION = (SETTINGS_FILE, POLICY_FILE)

log = logging.getLogger(__name__)


def run_site(folder: SiteFolder) -> None:
    """Answer the coordinator for this site until the process is told to stop.

    Raises:
        DataError: the file of those who opted out cannot be read.
        SettingsError: the site is not enrolled, another process answers for it, or its vouchers are
            not those that its audit log names.
        AuditError: the audit log cannot be written, or does not verify; or ledger, journal, own
            parts of models or audit log are missing, or older than one another.
    """
    policy = folder.policy()
    opt_outs(folder)  # if it cannot be read, no round could be answered
    apply_limits(policy)
    enrolment = folder.enrolment()
    stop = threading.Event()
    _stop_on_signals(stop)
    with folder.hold(), connect(folder) as connection:
        audit = open_compared(folder, approved_digests(folder))
        note_configuration(audit, folder.path, CONFIGURATION)
        vouchers = folder.vouchers()
        for wrong in voucher_disagreements(vouchers, audit.path):
            raise SettingsError(wrong)
        state = folder.state(policy, audit)
        state = replace(state, certificates=budget_certificates(folder, state.ledger, connection))
        check_second_place(audit, state.certificates)
        approvals = approvals_of(folder)

        def check_roster(approval: Approval) -> None:
            policy.check_roster(approval.study, approval.roster, vouchers.trust())

        def open_session(approval: Approval) -> Session:
            return Session(
                site=enrolment.site,
                study=approval.study,
                roster=approval.roster,
                sizes=approvals.known_sizes(approval),
                read=partial(site_cohort, folder, approval.study),
                policy=policy,
                state=state,
                opted_out=partial(opt_outs, folder),
            )

        renew = partial(renew_roster, folder, policy, approvals, audit, connection)
        sessions = StudySessions(
            enrolment.site, approvals, check_roster, open_session, audit, renew=renew
        )
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
