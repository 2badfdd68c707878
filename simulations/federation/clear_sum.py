"""A group's sum in the clear: the same whole numbers in the same ring, added as they are.

In one process the protocol would hide the sites from nobody. What is left out is what hides: keys,
masks, shares and signatures. What decides the result is kept: each site's charges and checks, the
vectors with their tails, who is asked, how many must answer, and the check of the sum. So the sum
is that of :class:`consilium.server.secure_sum.protocol.SecureSum`, to the bit.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from consilium.client.round.answer import answer_or_refuse
from consilium.client.round.round_model import RoundModel
from consilium.client.round.training import FirstStep
from consilium.server.secure_sum.exchange import Clock, RoundLog, require_sites
from consilium.server.secure_sum.protocol import SumResult, checked_total, require_supported
from consilium.shared.errors import SettingsError
from consilium.shared.rounds.contents import RoundConfiguration
from consilium.shared.secure_sum.fixed_point import VectorSpec, decode
from consilium.shared.secure_sum.messages import Action, Refusal
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.tail import TAIL
from consilium.simulations.federation.clear_site import Begun, ClearSite, Question
from consilium.simulations.federation.faults import Fault, FaultKind
from consilium.simulations.federation.together import first_steps, waves
from consilium.simulations.federation.traffic import Traffic

PROTOCOL, CLEAR = "protocol", "clear"  # how a round was summed, in its record
T = TypeVar("T")
UPDATE = f"query.{Action.UPDATE.value}"


class ClearSum:
    """Adds the vectors of a group's sites; used as a ``SecureSum``.

    Args:
        parameters: of the group.
        sites: by name.
        model: the study's network.
        clip_norm: bound on the L2 norm of a patient's gradient.
        pool: where they compute; the sum does not depend on how many at a time.
        workers: how many at a time.
        timeout_s: longest wait for an update that comes late, in seconds.
        faults: what happens to updates, for tests.
        clock: for the times reported.

    Raises:
        SettingsError: a fault in another message than an update, or in an update's bits; only the
            protocol has these.
    """

    def __init__(
        self,
        parameters: SumParameters,
        sites: Mapping[str, ClearSite],
        *,
        model: RoundModel,
        clip_norm: float,
        pool: Executor,
        workers: int,
        timeout_s: float,
        faults: Iterable[Fault] = (),
        clock: Clock = time.monotonic,
    ) -> None:
        self.parameters = parameters
        self._sites, self._timeout_s, self._clock = sites, timeout_s, clock
        self._model, self._clip_norm = model, clip_norm
        self._pool, self._workers = pool, workers
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
            parameters=parameters,
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
        total = np.zeros(question.spec.length + TAIL, np.uint32)
        adding = Lock()
        asked = {site: self._fault(site) for site in participants}
        lost = {site for site, fault in asked.items() if fault and self._loses(fault)}
        refusals: dict[str, Refusal] = {}

        def begin(site: str) -> Begun | Refusal | None:
            fault = asked[site]
            if fault and fault.kind is FaultKind.LOSE_REQUEST:
                return None
            return self._or_refusal(site, lambda here: here.begin(question))

        def add(site: str) -> Refusal | None:
            vector = self._or_refusal(
                site, lambda here: here.vector(question, begun[site], firsts.get(site))
            )
            if isinstance(vector, Refusal):
                return vector
            if site not in lost:
                with adding:
                    np.add(total, vector, out=total)
            return None

        added: list[str] = []
        for wave in waves(participants, self._model.parameters):
            answers = dict(zip(wave, self._pool.map(begin, wave), strict=True))
            begun = {site: one for site, one in answers.items() if isinstance(one, Begun)}
            firsts = self._first_steps(question, begun)
            answers |= zip(begun, self._pool.map(add, begun), strict=True)
            refusals |= {site: one for site, one in answers.items() if isinstance(one, Refusal)}
            added += [site for site in begun if site not in refusals]
        refusals = {site: refusal for site, refusal in refusals.items() if site not in lost}
        log.refusals |= {site: refusal.sentence for site, refusal in refusals.items()}
        unheard = f"no answer to {Action.UPDATE.value} within {self._timeout_s:g} s"
        log.refusals |= dict.fromkeys(lost, unheard)
        return total, tuple(site for site in added if site not in lost), refusals

    def _fault(self, site: str) -> Fault | None:
        """Return what happens to the next question to a site."""
        fault = self._faults.get((site, self._times_asked[site]))
        self._times_asked[site] += 1
        return fault

    def _loses(self, fault: Fault) -> bool:
        return fault.kind is not FaultKind.DELAY or fault.delay_s > self._timeout_s

    def _or_refusal(self, site: str, work: Callable[[ClearSite], T]) -> T | Refusal:
        """Return what a site computes, or its refusal, which is what would leave a hospital."""
        made: list[T] = []

        def answer() -> bytes:
            made.append(work(self._sites[site]))
            return b""

        return answer_or_refuse(site, Action.UPDATE, answer).refusal or made[0]

    def _first_steps(self, question: Question, begun: Mapping[str, Begun]) -> dict[str, FirstStep]:
        weights_D = question.received_D[: self._model.parameters]
        clip_norm = self._clip_norm
        return first_steps(begun, self._model, weights_D, clip_norm, self._pool, self._workers)

    def _require(self, done: Collection[str], did: str, round: int, log: RoundLog) -> None:
        least, roster = self.parameters.minimum_sites, self.parameters.roster
        require_sites(len(done), least, did, round=round, roster=roster, log=log)
