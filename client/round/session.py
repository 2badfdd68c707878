"""One site's part in one study: every message comes in through :meth:`Session.answer`.

The data's path: records -> grid -> tensors -> (ledger: reserve) -> train -> clip -> encode -> mask.
Every result computed from patients passes the ledger and the mask before it is returned.

Guarantee: nothing that depends on a record changes whether, why or in how many bytes the site
answers. What is wrong with a message is refused before a record is used; what goes wrong afterwards
is refused in one fixed sentence (:func:`consilium.client.round.answer.silently`).
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial

import numpy as np

from consilium.client.hospital.known_sizes import KnownSizes
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.state import SiteState
from consilium.client.records.cohort import Cohort
from consilium.client.round.answer import Answer, answer_or_refuse, silently
from consilium.client.round.charges import reserve_all, round_charges
from consilium.client.round.contribution import Contributor, MakeContributor
from consilium.client.secure_sum.masking import SiteMasking
from consilium.client.sources.common.opt_outs import OptOuts
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import PolicyError, ProtocolError
from consilium.shared.model.installed_module import require_modules
from consilium.shared.rounds.contents import (
    LARGEST_CONFIGURATION_BYTES,
    RoundConfiguration,
    group_of,
    sum_parameters,
)
from consilium.shared.secure_sum.messages import (
    Action,
    AgreeRequest,
    ChannelRequest,
    KeysRequest,
    UnmaskRequest,
    UpdateRequest,
)
from consilium.shared.study.definition import Study

BYTES_A_SITE = 1024  # per site in a round's request: a signed key, a letter, its path, names


log = logging.getLogger(__name__)


def local_now() -> datetime:
    """Return the time in this machine's time zone."""
    return datetime.now().astimezone()


class Session:
    """A site that has approved one study and answers one coordinator about it.

    Args:
        site: this site's name in the study.
        study: the study as approved here; a message about any other study is refused.
        roster: the sites and their identity keys, as pinned here.
        sizes: this site's declared size, and what it knows of the others'.
        read: reads and checks this site's patients; called once, on first use.
        policy: what this hospital allows.
        state: keys, ledger, journal and audit log.
        opted_out: reads who opted out; called before every round, None if the hospital keeps no
            such file.
        clock: returns local time, for the hospital's working hours.
        contribute: makes what computes the rounds' vectors.
    """

    def __init__(
        self,
        *,
        site: str,
        study: Study,
        roster: Roster,
        sizes: KnownSizes,
        read: Callable[[], Cohort],
        policy: Policy,
        state: SiteState,
        opted_out: Callable[[], OptOuts | None] = lambda: None,
        clock: Callable[[], datetime] = local_now,
        contribute: MakeContributor = Contributor,
    ) -> None:
        policy.check_study(study)
        require_modules(study)
        self.site, self._study, self._roster = site, study, roster
        self._sizes, self._read, self._state = sizes, read, state
        self._policy, self._clock, self._opted_out = policy, clock, opted_out
        self._contribute_by = contribute
        self._cohort: Cohort | None = None
        self._made: Contributor | None = None
        self._masking: SiteMasking | None = None
        self._busy = threading.Lock()
        self._answers: dict[Action, Callable[[bytes], bytes]] = {
            Action.CHANNEL: self._open_channel,
            Action.KEYS: self._make_keys,
            Action.UPDATE: self._contribute,
            Action.AGREE: self._agree,
            Action.UNMASK: self._unmask,
        }

    def handle(self, action: Action, body: bytes) -> Answer:
        """Answer one message, if need be with a refusal; for a site that has only this study."""
        return answer_or_refuse(self.site, action, partial(self.answer, action, body))

    def answer(self, action: Action, body: bytes) -> bytes:
        """Return the answer to one message.

        With ``answer_after_s`` in the policy, the answer to a round leaves so many seconds after
        its request, so that the time it takes tells nothing of the records.

        Raises:
            ConsiliumError: the site declines; :mod:`consilium.client.round.answer` says what of it
                may leave.
            Exception: a defect in this code; its text must not leave.
        """
        began = time.monotonic()
        try:
            with self._busy:
                return self._answers[action](body)
        finally:
            if action is Action.UPDATE and self._policy.answer_after_s is not None:
                self._wait(began + self._policy.answer_after_s - time.monotonic())

    def _wait(self, left_s: float) -> None:
        """Wait until the fixed answering time; say in this site's own log if it is over."""
        if left_s < 0:
            log.warning(
                "the answer took %.1f s more than [machine] answer_after_s, so its time tells of "
                "this site's work; raise the bound",
                -left_s,
            )
        time.sleep(max(0.0, left_s))

    def _renew_cohort(self) -> Cohort:
        """Read the site's patients on first use; leave out who has opted out since.

        Whether they suit the study was decided when the hospital approved it; to decide it here
        would tell the coordinator something of them, and so would an end when many opt out.

        Raises:
            UnableError: they cannot be read, or the file of those who opted out cannot.
        """
        with silently():
            opted = self._opted_out()
            known = self._read() if self._cohort is None else self._cohort
            cohort = known if opted is None else known.without(opted)
        if cohort is not self._cohort:
            self._cohort, self._made = cohort, None
        return cohort

    @property
    def _contributor(self) -> Contributor:
        if self._made is None:
            cohort = self._renew_cohort() if self._cohort is None else self._cohort
            store = self._state.personal
            self._made = self._contribute_by(
                self.site, self._study, cohort, self._policy, store, None
            )
        return self._made

    def _open_channel(self, body: bytes) -> bytes:
        request = ChannelRequest.from_bytes(body)
        self._policy.check_time(self._clock())
        audit = self._state.audit
        if audit is not None:
            audit.check_own(self._study.digest, request.audit_head)
        if not hmac.compare_digest(request.study_digest, self._study.digest):
            raise PolicyError(
                f"site {self.site} has not approved study {request.study_digest.hex()[:16]}; "
                f"it approved {self._study.digest.hex()[:16]} ({self._study.name})",
                case="not-approved",
            )
        sites = self._roster.restricted_to(group_of(self._study, self.site))
        declared = {s: Declaration.from_bytes(body) for s, body in request.declared.items()}
        roster = sites.with_declared(declared, self._study.digest)
        parameters = sum_parameters(self._study, roster, request.run_id, site=self.site)
        if request.study_hash != parameters.study_hash:
            raise PolicyError(
                f"site {self.site} has pinned another roster or other parameters than the "
                "coordinator; compare the roster's fingerprints at both ends",
                case="roster",
            )
        self._sizes.keep(self._study, roster)
        self._renew_cohort()  # what cannot be read is refused now, not in the middle of a round
        if self._masking is None or self._masking.parameters != parameters:
            self._masking = SiteMasking(
                self.site,
                self._state.identity,
                parameters,
                self._state.journal,
                threads=self._policy.threads,
            )
        key = self._masking.channel_key(request)
        if audit is not None:
            key = replace(key, audit_head=audit.last_release)
        return key.to_bytes()

    def _make_keys(self, body: bytes) -> bytes:
        self._policy.check_time(self._clock())
        return self._opened().round_keys(KeysRequest.from_bytes(body)).to_bytes()

    def _contribute(self, body: bytes) -> bytes:
        """Take part in one round: verify, charge, compute, claim and mask, keep, record, confirm.

        Each step is on disk before the next begins. A crash between any two leaves a state from
        which the site goes on: ledger and journal may know of a round that the log does not, whose
        vector never left; the log never knows of one that they do not.
        """
        masking = self._opened()
        self._policy.check_time(self._clock())
        request = UpdateRequest.from_bytes(body, max_bytes=self._largest_request())
        masking.begin(request)
        asked = RoundConfiguration.from_bytes(request.configuration)
        cohort = self._renew_cohort()
        received = np.frombuffer(request.model, dtype="<f4").astype(np.float32)
        self._contributor.check(asked, received)
        audit = self._state.audit
        if audit is not None:
            participants = [member.site for member in request.participants]
            audit.begin(self._study, asked, self._roster, participants)
        certificates = self._state.certificates
        if certificates is not None:
            with silently():
                certificates.settle()
        releases = round_charges(self._study, asked, request.round, request.study_hash)
        spent = reserve_all(self._state.ledger, releases, self._study)
        parameters = masking.parameters
        with silently():
            vector = self._contributor.vector(asked, received, request.round, parameters)
            masked = masking.mask(vector, self._contributor.spec(asked, parameters.roster))
            own_part = self._contributor.keep()
            if audit is not None:
                masked = audit.release(
                    self._study,
                    asked,
                    masked,
                    spent,
                    request.study_hash,
                    charges=releases,
                    own_part=own_part,
                    opted_out=cohort.report.opted_out,
                )
            if certificates is not None:
                certificates.issue(masked.audit_head)
            for release in releases:
                self._state.ledger.confirm(release)
        return masked.to_bytes()

    def _largest_request(self) -> int:
        """Return a bound in bytes on a round's request: model, configuration, bytes per site."""
        vectors = 2 if self._study.training.control_variates else 1
        model = 4 * self._contributor.parameters * vectors
        return model + LARGEST_CONFIGURATION_BYTES + BYTES_A_SITE * len(self._roster)

    def _agree(self, body: bytes) -> bytes:
        return self._opened().agree(AgreeRequest.from_bytes(body)).to_bytes()

    def _unmask(self, body: bytes) -> bytes:
        request = UnmaskRequest.from_bytes(body)
        reply = self._opened().unmask(request)
        if self._state.audit is not None:
            self._state.audit.opened(self._study, self._roster, request.survivors)
        return reply.to_bytes()

    def _opened(self) -> SiteMasking:
        if self._masking is None:
            raise ProtocolError(
                f"site {self.site} has no open run; ask for its channel key first",
                case="no-open-run",
            )
        return self._masking
