"""The long-running process of a site: it answers messages until it is told to stop.

PyTorch, and with it whatever reads records and trains, is imported with the first message of an
approved study; until then the process holds some 110 MiB. Neither PyTorch nor records can be given
back while a process lives, so when no message came for long the process begins anew, as after a
restart by hand: same process number, same folder, same arguments.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.policy_file import FILE_NAME as POLICY_FILE
from consilium.client.hospital.process_limits import apply_limits, limit_pytorch
from consilium.client.hospital.settings import FILE_NAME as SETTINGS_FILE
from consilium.client.hospital.stores import check_second_place, open_compared
from consilium.client.hospital.voucher_check import voucher_disagreements
from consilium.client.service.flower_app import make_client_app
from consilium.client.service.last_refusal import write_last_refusal
from consilium.client.service.measurements import Measurements
from consilium.client.service.notices import site_courier
from consilium.client.service.pinned_connection import (
    approvals_of,
    approved_digests,
    budget_certificates,
    connect,
)
from consilium.client.service.roster_agreement import RosterDesk, RosterWatch
from consilium.client.service.roster_renewal import renew_roster
from consilium.client.service.site_opt_outs import opt_outs
from consilium.client.service.study_sessions import StudySessions
from consilium.client.service.supernode import SiteNode
from consilium.shared.audit.configuration import note_configuration
from consilium.shared.errors import SettingsError
from consilium.shared.notices.courier import sending
from consilium.shared.secure_sum.messages import Action

if TYPE_CHECKING:
    from consilium.client.round.session import Session

CONFIGURATION = (SETTINGS_FILE, POLICY_FILE)
SIGNALS = {signal.SIGTERM, signal.SIGINT}
QUIET_S = 600.0  # without a message for so long, and for longer than any round can last

log = logging.getLogger(__name__)


def serve_site(folder: SiteFolder) -> None:
    """Answer the coordinator for this site until the process is told to stop.

    Raises:
        ConsiliumError: as :func:`run_site`.
    """
    environment = dict(os.environ)  # without what the policy of today adds
    if run_site(folder):
        _begin_anew(environment)


def run_site(folder: SiteFolder) -> bool:
    """Answer the coordinator for this site until told to stop, or until it is time to begin anew.

    Returns:
        Whether the process should begin anew; the signals that stop it are then held back.

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

        def open_session(approval: Approval) -> "Session":
            limit_pytorch(policy)
            from consilium.client.round.session import Session
            from consilium.client.service.moved_cohort import WatchedCohort

            return Session(
                site=enrolment.site,
                study=approval.study,
                roster=approval.roster,
                sizes=approvals.known_sizes(approval),
                read=WatchedCohort(folder, approval.study, policy.on_moved_cohort),
                policy=policy,
                state=state,
                opted_out=partial(opt_outs, folder),
            )

        sessions = StudySessions(
            enrolment.site,
            approvals,
            check_roster,
            open_session,
            audit,
            note=partial(write_last_refusal, folder.path),
            renew=partial(renew_roster, folder, policy, approvals, audit, connection),
        )
        tell = connection.tell_budget_left if policy.tell_budget_left else None
        measurements = Measurements(sessions, folder.path, state.ledger, tell=tell)
        node = SiteNode(
            connection,
            int.from_bytes(enrolment.node_id, "big"),
            make_client_app(measurements),
            stop=stop,
            rest_after_s=lambda: _rest_after_s(sessions.longest_timeout_s),
        )
        desk = RosterDesk(
            folder=folder, policy=policy, approvals=approvals, audit=audit, connection=connection
        )
        log.info("site %s is ready", enrolment.site)
        with sending(lambda: site_courier(folder, connection)), RosterWatch(desk):
            rests = node.run()
    if rests:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    return rests and not stop.is_set()


def _rest_after_s(longest_timeout_s: float | None) -> float | None:
    """Return after how many quiet seconds no round can be in progress; None without a session."""
    if longest_timeout_s is None:
        return None
    return max(QUIET_S, len(Action) * longest_timeout_s)  # an exchange for each action


def _begin_anew(environment: Mapping[str, str]) -> None:
    """Replace this process by a new one with the same number and arguments; open files close."""
    log.info("no study asks for anything; this process begins anew, without what it held")
    os.execve(  # noqa: S606 - our own command line
        sys.executable, [sys.executable, *sys.orig_argv[1:]], environment
    )


def _stop_on_signals(stop: threading.Event) -> None:
    def ask_to_stop(_: int, __: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # held back if this process began anew
