"""A group's sum in the clear: the same whole numbers in the same ring, added as they are.

In one process the protocol would hide the sites from nobody. What is left out is what hides: keys,
masks, shares and signatures. What decides the result is kept: each site's charges and checks, the
vectors with their tails, who is asked, how many must answer, and the check of the sum. So the sum
is that of :class:`consilium.server.secure_sum.protocol.SecureSum`, to the bit.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from consilium.client.ledger.store import Ledger, Release
from consilium.client.round.charges import reserve_all, round_charges
from consilium.server.secure_sum.exchange import Clock, RoundLog, require_sites
from consilium.server.secure_sum.protocol import SumResult, checked_total, require_supported
from consilium.shared.errors import SettingsError
from consilium.shared.rounds.contents import RoundConfiguration
from consilium.shared.secure_sum.fixed_point import VectorSpec, decode
from consilium.shared.secure_sum.messages import Action, Refusal
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study
from consilium.simulations.federation.clear_site import ClearSite, Question
from consilium.simulations.federation.faults import Fault, FaultKind
from consilium.simulations.federation.traffic import Traffic
from consilium.simulations.federation.vector_sums import VectorSums, or_refusal

PROTOCOL, CLEAR = "protocol", "clear"  # how a round was summed, in its record
UPDATE = f"query.{Action.UPDATE.value}"


class ClearSum:
    """Adds the vectors of a group's sites; used as a ``SecureSum``.

    Args:
        study: what is run.
        parameters: of the group.
        sites: by name.
        ledgers: by site.
        sums: where the sites compute; the sum does not depend on it.
        timeout_s: longest wait for an update that comes late, in seconds.
        faults: what happens to updates, for tests.
        clock: for the times reported.

    Raises:
        SettingsError: a fault in another message than an update, or in an update's bits; only the
            protocol has these.
    """

    def __init__(
        self,
        study: Study,
        parameters: SumParameters,
        sites: Mapping[str, ClearSite],
        ledgers: Mapping[str, Ledger],
        sums: VectorSums,
        *,
        timeout_s: float,
        faults: Iterable[Fault] = (),
        clock: Clock = time.monotonic,
    ) -> None:
        self.parameters, self._study = parameters, study
        self._sites, self._ledgers, self._sums = sites, ledgers, sums
        self._timeout_s, self._clock = timeout_s, clock
        self._faults = {(fault.site, fault.occurrence): fault for fault in faults}
        for fault in self._faults.values():
            if fault.message_type != UPDATE or fault.kind is FaultKind.CORRUPT:
                raise SettingsError(
                    f"fault {fault.kind.name} of {fault.message_type}: has no meaning where sites "
                    "are summed in the clear; run the protocol"
                )
        self._traffic = Traffic(parameters)
        self._times_asked = dict.fromkeys(parameters.roster, 0)
        # Who has keys for the next round in the protocol, and to whom their shares were dealt.
        self._keyed: frozenset[str] = frozenset()
        self._dealt_to: frozenset[str] = frozenset()

    def open(self, *, round: int = 1, asked: Collection[str] | None = None) -> RoundLog:
        """Check that the first round has enough sites; see :meth:`.SecureSum.open`."""
        log = RoundLog(clock=self._clock)
        self._join(round, asked, log)
        return log

    def sum(
        self,
        *,
        round: int,
        spec: VectorSpec,
        model: bytes | memoryview,
        configuration: bytes | Callable[[], bytes],
        asked: Collection[str] | None = None,
    ) -> SumResult:
        """One round; arguments, result and errors are those of :meth:`.SecureSum.sum`."""
        parameters = self.parameters
        spec.check_headroom(len(parameters.roster), parameters.roster.largest_size)
        log = RoundLog(clock=self._clock)
        participants = self._join(round, asked, log)
        if callable(configuration):
            configuration = configuration()
        received_D = np.frombuffer(model, dtype="<f4").astype(np.float32)
        received_D.flags.writeable = False  # all sites read the same
        question = Question(
            asked=RoundConfiguration.from_bytes(configuration),
            received_D=received_D,
            round=round,
            spec=spec,
        )
        with log.timing("update"):
            total, survivors, refusals = self._added(question, sorted(participants), log)
            self._require(survivors, "sent a masked update", round, log)
            require_supported(parameters, survivors, round=round)
        with log.timing("remove"):
            ring_total = checked_total(total, spec, parameters.roster, survivors)
        down, up = self._traffic.round(
            spec,
            round=round,
            participants=participants,
            dealt_to=self._dealt_to,
            survivors=frozenset(survivors),
            refused={site: len(refusal.to_bytes()) for site, refusal in refusals.items()},
            model_bytes=len(model),
            configuration_bytes=len(configuration),
        )
        for counts, more in ((log.bytes_down, down), (log.bytes_up, up)):
            counts |= {site: counts.get(site, 0) + count for site, count in more.items()}
        self._keyed, self._dealt_to = frozenset(survivors), participants
        return SumResult(
            parts=decode(ring_total, spec),
            ring_total=ring_total,
            roster=parameters.roster,
            survivors=survivors,
            dropped=tuple(sorted(set(parameters.roster) - set(survivors))),
            refusals=log.refusals,
            seconds=log.seconds,
            bytes_up=log.bytes_up,
            bytes_down=log.bytes_down,
            audit_heads=dict.fromkeys(survivors, b""),
        )

    def _join(self, round: int, asked: Collection[str] | None, log: RoundLog) -> frozenset[str]:
        """Return who takes part; count the bytes of keys that the protocol would ask for first."""
        parameters = self.parameters
        welcome = frozenset(parameters.roster if asked is None else asked)
        if not welcome <= self._keyed:
            self._require(welcome, "announced a channel key", round, log)
            log.bytes_down, log.bytes_up = self._traffic.joining(welcome, round)
            self._keyed = self._dealt_to = welcome
        participants = parameters.supported(welcome)
        self._require(participants, "have keys", round, log)
        return participants

    def _added(
        self, question: Question, participants: list[str], log: RoundLog
    ) -> tuple[NDArray[np.uint32], tuple[str, ...], dict[str, Refusal]]:
        """Return the sum of the vectors, whose they are, and the refusals of those that decline."""
        self._keyed = frozenset()  # keys are for one round, also for one that is void
        asked = {site: self._fault(site) for site in participants}
        lost = {site for site, fault in asked.items() if fault and self._loses(fault)}
        charged: dict[str, tuple[Release, ...]] = {}
        refusals: dict[str, Refusal] = {}
        for site, fault in asked.items():
            if fault and fault.kind is FaultKind.LOSE_REQUEST:
                continue
            found = or_refusal(site, partial(self._charged, site, question))
            if isinstance(found, Refusal):
                refusals[site] = found
            else:
                charged[site] = found
        added = self._sums.add(question, list(charged), lost)
        refusals |= added.refusals
        able = [site for site in charged if site not in refusals]
        for site in able:
            for release in charged[site]:
                self._ledgers[site].confirm(release)
        refusals = {site: refusal for site, refusal in refusals.items() if site not in lost}
        log.refusals |= {site: refusal.sentence for site, refusal in refusals.items()}
        unheard = f"no answer to {Action.UPDATE.value} within {self._timeout_s:g} s"
        log.refusals |= dict.fromkeys(lost, unheard)
        return added.total, tuple(site for site in able if site not in lost), refusals

    def _charged(self, site: str, question: Question) -> tuple[Release, ...]:
        """Check a round and charge it at a site; return what was charged.

        Raises:
            ConsiliumError: the site declines.
        """
        self._sites[site].check(question)
        study = self._study
        releases = round_charges(study, question.asked, question.round, self.parameters.study_hash)
        reserve_all(self._ledgers[site], releases, study)
        return releases

    def _fault(self, site: str) -> Fault | None:
        """Return what happens to the next question to a site."""
        fault = self._faults.get((site, self._times_asked[site]))
        self._times_asked[site] += 1
        return fault

    def _loses(self, fault: Fault) -> bool:
        return fault.kind is not FaultKind.DELAY or fault.delay_s > self._timeout_s

    def _require(self, done: Collection[str], did: str, round: int, log: RoundLog) -> None:
        least, roster = self.parameters.minimum_sites, self.parameters.roster
        require_sites(len(done), least, did, round=round, roster=roster, log=log)
