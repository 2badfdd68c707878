"""A whole federation on one screen: :func:`run_study` asks, sums, steps, and yields each round.

The caller saves checkpoints, shows progress and decides when to stop; nothing here logs or writes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from consilium.server.figures.evaluation import FederatedMetrics, federated_metrics, next_edges
from consilium.server.figures.feasibility import PersonTotal, person_totals
from consilium.server.secure_sum.group_sums import GroupSums, GroupTotals, no_sum_without
from consilium.server.secure_sum.narrowing import Narrowing
from consilium.server.secure_sum.protocol import SumResult
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.secure_sum.sites import Sites
from consilium.server.study import aggregation
from consilium.server.study.aggregation import ServerState, Spans
from consilium.server.study.plausibility import check_plausible, l2_norm
from consilium.shared.errors import RoundVoidError, StudyEndedError
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.privacy.accounting import affordable_rounds
from consilium.shared.privacy.calibration import Shift, calibration_shift
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    calibration_noise,
    edges_from_bytes,
    edges_to_bytes,
    statistics_noise,
    update_share,
    vector_spec,
)
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands between two rounds.

    Attributes:
        server: global weights and the optimiser's memory.
        normalisation: encoded, empty until the sites' statistics have been summed.
        next_round: number of the next secure sum; numbers are never used twice.
        counted: feasibility rounds so far, a void one included: sites answer one.
        statistics: rounds of statistics so far, void ones included.
        trained: training rounds so far, void ones included, and those that void rounds of
            statistics cost: their epsilon is taken from training.
        calibrated: calibration rounds so far, void ones included.
        doubt: for each output, the variance of what its log-odds are still off by; empty before
            the first calibration.
        evaluated: evaluations of the finished model so far, void ones included.
        edges: edges of the bins in which the next evaluation counts, encoded.
        finished: nothing is left to do.
        groups: by group of sites, what is known of those that send garbage; empty before the first
            round.
    """

    server: ServerState
    normalisation: bytes = b""
    next_round: int = 1
    counted: int = 0
    statistics: int = 0
    trained: int = 0
    calibrated: int = 0
    doubt: tuple[float, ...] = ()
    evaluated: int = 0
    edges: bytes = b""
    finished: bool = False
    groups: tuple[Narrowing, ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """The sites that the next round does without, as suspects of garbage; sorted."""
        return tuple(sorted(site for group in self.groups for site in group.left_out))

    @property
    def narrowing(self) -> bool:
        """Whether the next round is one to find out who sends garbage."""
        return any(group.narrowing for group in self.groups)

    def after_statistics(self, study: Study, *, void: bool) -> "RunState":
        """Return the state after a round of statistics; a void one is paid for by training."""
        tried = self.statistics + 1
        after = replace(self, statistics=tried)
        if not void:
            return after
        lost = affordable_rounds(study, tried) - affordable_rounds(study, tried + 1)
        return replace(after, trained=min(study.rounds, self.trained + lost))

    def after_crash(self, study: Study) -> "RunState":
        """Return the state to go on from after a crash: the round that may have begun is skipped.

        With privacy, sites may have charged that round, so it counts as one of the study's rounds.
        What is known of sites that send garbage is kept: that round adds nothing to it.
        """
        if next_purpose(study, self) is Purpose.FEASIBILITY:
            return replace(self, next_round=self.next_round + 1, counted=self.counted + 1)
        charged = study.privacy.mode != "none" and self.normalisation != b""
        purpose = next_purpose(study, self) if charged else None
        begun = self if self.normalisation else self.after_statistics(study, void=True)
        return replace(
            begun,
            next_round=self.next_round + 1,
            trained=begun.trained + int(purpose is Purpose.TRAINING),
            calibrated=self.calibrated + int(purpose is Purpose.CALIBRATION),
            evaluated=self.evaluated + int(purpose is Purpose.EVALUATION),
        )


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """The result of one round.

    Attributes:
        number: of the secure sum; the first round's is usually 1.
        purpose: what was summed: numbers of persons, statistics, updates, residuals, or counts for
            evaluation.
        state: the run's state after this round (unchanged when the round was void).
        void: why the round gave no sum; None if it gave one.
        survivors: sites in the sum; ``refusals`` holds the others' reasons where they gave one.
        patients: the survivors' declared sizes together.
        update_norm: L2 norm of the mean update; 0 unless a training round.
        shift_K: by how much a calibration round shifted each output's log-odds; empty otherwise.
        metrics: of the weights the round began with, on the sites' validation patients.
        persons: of a feasibility round, the totals; empty otherwise.
        bytes_up: bytes each site sent; ``bytes_down`` each received.
        seconds: time of the whole round; ``phases`` of each exchange.
        audit_heads: by survivor, the head of its audit log as it came, not yet verified.
        left_out: sites that were not asked, as suspects of garbage.
        narrowing: whether the round was one to find out who sends garbage.
    """

    number: int
    purpose: Purpose
    state: RunState
    void: str | None = None
    survivors: tuple[str, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)
    patients: int = 0
    update_norm: float = 0.0
    shift_K: tuple[float, ...] = ()
    metrics: FederatedMetrics | None = None
    persons: tuple[PersonTotal, ...] = ()
    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    audit_heads: dict[str, bytes] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    narrowing: bool = False


_NO_COUNTS = ("update", "control", "calibration")  # segments that are summed by group alone


def _no_log() -> bytes:
    """Return the audit head of a coordinator that keeps no log."""
    return b""


def run_study(
    study: Study,
    parameters: Sequence[SumParameters],
    sites: Sites,
    state: RunState,
    *,
    audit_head: Callable[[], bytes] = _no_log,
    site_heads: SiteHeads | None = None,
) -> Iterator[RoundResult]:
    """Run the study from ``state`` to its end; return an iterator of every round's result.

    ``parameters`` has the secure sum's parameters for each group of sites; ``audit_head`` returns
    the coordinator's audit head, encoded; it is called as each round begins. ``site_heads`` are the
    newest heads known of the sites' logs; they are kept up to date.

    A void round is skipped and counts as one of the study's rounds: sites may have charged it, and
    asking again for the same update could reveal one site's share of it. After a round voided by
    garbage the next ones are asked of fewer sites, to find out whose it is
    (:mod:`consilium.server.secure_sum.narrowing`).

    Raises:
        RoundVoidError: the channels could not be opened, or the statistics could not be summed.
        StudyEndedError: without the sites suspected of garbage too few are left.
    """
    group_sums = GroupSums.secure(
        parameters, sites, timeout_s=study.aggregation.round_timeout_s, heads=site_heads
    )
    # Not "yield from": the weights that it began with would be held to its end.
    return run_rounds(study, group_sums, state, audit_head=audit_head)


def run_rounds(
    study: Study,
    group_sums: GroupSums,
    state: RunState,
    *,
    audit_head: Callable[[], bytes] = _no_log,
) -> Iterator[RoundResult]:
    """As :func:`run_study`, with these sums."""
    state = replace(state, groups=state.groups or group_sums.nothing_known())
    check_hope(state)
    group_sums.open(round=state.next_round, known=state.groups)
    if next_purpose(study, state) is Purpose.FEASIBILITY:
        result = run_round(study, group_sums, state, Purpose.FEASIBILITY, audit_head())
        yield result
        state = result.state
        check_hope(state)
    while not state.normalisation:
        result = run_round(study, group_sums, state, Purpose.STATISTICS, audit_head())
        yield result
        state = result.state
        check_hope(state)
        if result.void is not None and not state.narrowing:
            raise RoundVoidError(f"the sites' statistics could not be summed: {result.void}")
    while state.trained < study.rounds:
        result = run_round(study, group_sums, state, Purpose.TRAINING, audit_head())
        yield result
        state = result.state
        check_hope(state)
    while state.calibrated < study.calibration_rounds:
        result = run_round(study, group_sums, state, Purpose.CALIBRATION, audit_head())
        yield result
        state = result.state
        check_hope(state)
    while study.evaluation.validation_fraction > 0 and not state.finished:
        if state.evaluated >= study.passes:
            return
        result = run_round(study, group_sums, state, Purpose.EVALUATION, audit_head())
        yield result
        state = result.state
        check_hope(state)


def next_purpose(study: Study, state: RunState) -> Purpose:
    """Return what the next round of a run would be for."""
    if study.feasibility is not None and not state.counted:
        return Purpose.FEASIBILITY
    if not state.normalisation:
        return Purpose.STATISTICS
    if state.trained < study.rounds:
        return Purpose.TRAINING
    calibrates = state.calibrated < study.calibration_rounds
    return Purpose.CALIBRATION if calibrates else Purpose.EVALUATION


def check_hope(state: RunState) -> None:
    """Check that more than half of the groups can still give a sum.

    Raises:
        StudyEndedError: they cannot, without the sites suspected of garbage.
    """
    hopeless = [group for group in state.groups if group.hopeless]
    if hopeless and 2 * (len(state.groups) - len(hopeless)) <= len(state.groups):
        raise StudyEndedError("; ".join(no_sum_without(group) for group in hopeless))


def run_round(
    study: Study,
    group_sums: GroupSums,
    state: RunState,
    purpose: Purpose,
    audit_head: bytes = b"",
) -> RoundResult:
    """Run one round and apply its sum; a void one leaves weights and normalisation unchanged."""
    began = time.monotonic()
    asked = RoundConfiguration(
        purpose=purpose,
        evaluate=purpose is Purpose.TRAINING and evaluates(study, state.trained),
        normalisation=state.normalisation,
        audit_head=audit_head,
        edges=state.edges,
    )
    weights_D = state.server.weights_D
    shared_D = shared_weights(study, weights_D.size)
    if purpose in (Purpose.CALIBRATION, Purpose.EVALUATION):
        weights_D = state.server.model_weights
    after = replace(
        state,
        next_round=state.next_round + 1,
        counted=state.counted + int(purpose is Purpose.FEASIBILITY),
        trained=state.trained + int(purpose is Purpose.TRAINING),
        calibrated=state.calibrated + int(purpose is Purpose.CALIBRATION),
        evaluated=state.evaluated + int(purpose is Purpose.EVALUATION),
    )
    try:
        sums = group_sums.sum(
            round=state.next_round,
            layout=lambda group: vector_spec(
                study,
                asked,
                parameters=int(shared_D.sum()),
                largest_size=group.roster.largest_size,
            ),
            model=_sent(study, purpose, state.server, weights_D),
            configuration=lambda: replace(asked, site_heads=group_sums.heads.shown()).to_bytes(),
            check=lambda total: check_plausible(study, total),
            known=state.groups,
        )
    except RoundVoidError as error:
        if purpose is Purpose.STATISTICS:
            after = after.after_statistics(study, void=True)
        known = group_sums.learned(state.groups, garbage=error.garbage)
        return RoundResult(
            number=state.next_round,
            purpose=purpose,
            state=replace(after, groups=known),
            void=str(error),
            seconds=time.monotonic() - began,
            left_out=state.left_out,
            narrowing=state.narrowing,
        )
    if purpose is Purpose.STATISTICS:
        after = after.after_statistics(study, void=False)
    known = group_sums.learned(state.groups, given=sums.survivors, garbage=sums.garbage)
    after = replace(after, groups=known)
    sites = len(sums.survivors)
    edges_KL = edges_from_bytes(state.edges, study)
    final = purpose is Purpose.EVALUATION
    counts = {name: sums.part(name) for name in sums.totals[0].parts if name not in _NO_COUNTS}
    metrics = federated_metrics(counts, study, sites=sites, edges_KL=edges_KL, final=final)
    if metrics is not None:
        finer_KL = next_edges(metrics, study)
        done = final and (metrics.fine or after.evaluated >= study.passes)
        after = replace(after, edges=edges_to_bytes(finer_KL, study), finished=done)
    mean_D = MeanUpdate(study=study, totals=sums.totals, weights_D=weights_D, shared_D=shared_D)
    update_norm = l2_norm(mean_D)  # before the step, which uses the sum up
    shift = _shift(study, state, sums) if purpose is Purpose.CALIBRATION else None
    return RoundResult(
        number=state.next_round,
        purpose=purpose,
        state=_apply(study, after, purpose, sums, mean_D, shift),
        survivors=sums.survivors,
        refusals=sums.refusals,
        patients=sums.weight,
        update_norm=update_norm,
        shift_K=() if shift is None else tuple(shift.by_K.tolist()),
        metrics=metrics,
        persons=_persons(study, sums) if purpose is Purpose.FEASIBILITY else (),
        bytes_up=sums.bytes_up,
        bytes_down=sums.bytes_down,
        phases=sums.seconds,
        seconds=time.monotonic() - began,
        audit_heads=sums.audit_heads,
        left_out=state.left_out,
        narrowing=state.narrowing,
    )


def _persons(study: Study, sums: GroupTotals) -> tuple[PersonTotal, ...]:
    scale = min(total.parts["feasibility"].scale for total in sums.totals)
    counts, sites = sums.part("feasibility"), len(sums.survivors)
    return person_totals(study, counts, sites=sites, scale=scale)


def _sent(
    study: Study, purpose: Purpose, server: ServerState, weights_D: NDArray[np.float32]
) -> memoryview:
    """Return what sites get: the weights, then the control variates if training uses them."""
    sent = weights_D.astype("<f4", copy=False)
    if purpose is Purpose.TRAINING and study.training.control_variates:
        control_D = server.control_D if server.control_D.size else np.zeros(weights_D.size)
        sent = np.concatenate([sent, control_D.astype("<f4")])
    return sent.view(np.uint8).data.toreadonly()


def evaluates(study: Study, trained: int) -> bool:
    """Return whether the training round after ``trained`` others also brings validation counts."""
    return study.evaluation.validation_fraction > 0 and trained % study.evaluation.every == 0


def _apply(
    study: Study,
    state: RunState,
    purpose: Purpose,
    sums: GroupTotals,
    mean_D: Spans,
    shift: Shift | None,
) -> RunState:
    if purpose is Purpose.STATISTICS:
        statistics_S = sums.part("statistics")
        noise = statistics_noise(study) * math.sqrt(len(sums.survivors))
        normalisation = Normalisation.from_sums(statistics_S, study, noise=noise)
        return replace(state, normalisation=normalisation.to_bytes())
    if purpose is Purpose.TRAINING:
        total = sums.totals[0]
        ring_D = total.parts["update"].ring_D
        used_up_D = ring_D.view(np.float32) if ring_D.size == state.server.weights_D.size else None
        server = aggregation.apply(
            state.server, mean_D, study.aggregation, ramp=study.average_ramp, into_D=used_up_D
        )
        if study.training.control_variates:
            shares = update_share(study, total.roster, total.survivors)
            control_D = total.parts["control"][:] / shares
            server = replace(server, control_D=control_D)
        return replace(state, server=server)
    if shift is not None:
        from consilium.shared.model.intercepts import intercepts

        server = aggregation.shifted(state.server, intercepts(study, shift.by_K.tolist()))
        return replace(state, server=server, doubt=tuple(shift.doubt_K.tolist()))
    return state


def _shift(study: Study, state: RunState, sums: GroupTotals) -> Shift:
    """Return the shift that a calibration round's sums ask for; of several groups the median."""
    doubt_K = np.array(state.doubt) if state.doubt else None
    noise = calibration_noise(study)
    shifts = [
        calibration_shift(
            total.parts["calibration"][:], math.sqrt(len(total.survivors)) * noise, doubt_K
        )
        for total in sums.totals
    ]
    return Shift(
        by_K=aggregation.across_groups(np.stack([shift.by_K for shift in shifts])),
        doubt_K=aggregation.across_groups(np.stack([shift.doubt_K for shift in shifts])),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanUpdate:
    """The mean update, computed span by span; with several groups, the median of their means.

    It is empty if the round had no updates, and zero for weights that each site keeps to itself
    (``shared_D`` false), as nobody sends them.
    """

    study: Study
    totals: tuple[SumResult, ...]
    weights_D: NDArray[np.float32]
    shared_D: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """Number of coordinates, D."""
        return self.weights_D.size if "update" in self.totals[0].parts else 0

    def __getitem__(self, span: slice, /) -> NDArray[np.float64]:
        """The mean update's coordinates in a span."""
        if self.totals[0].parts["update"].size == self.size:  # all are shared
            return self._mean(span, span)
        shared_D = self.shared_D[span]
        first = np.count_nonzero(self.shared_D[: span.start])
        mean_D = np.zeros(shared_D.size)
        mean_D[shared_D] = self._mean(span, slice(first, first + np.count_nonzero(shared_D)))
        return mean_D

    def _mean(self, span: slice, sent: slice) -> NDArray[np.float64]:
        means = [self._of_group(total, span, sent) for total in self.totals]
        return means[0] if len(means) == 1 else aggregation.across_groups(np.stack(means))

    def _of_group(self, total: SumResult, span: slice, sent: slice) -> NDArray[np.float64]:
        """The survivors' weighted mean update of the shared weights in a span.

        In mode ``distributed`` all weights are shared, and the update is minus the mean gradient
        over the number of patients that the declared sizes let expect, with weight decay: the step
        that plain SGD with learning rate 1 would take at a site.
        """
        study, sum_D = self.study, total.parts["update"][sent]
        if study.privacy.mode == "distributed":
            decay_D = study.training.weight_decay * self.weights_D[span].astype(np.float64)
            return -sum_D / (study.training.sampling_rate * total.weight) - decay_D
        return sum_D / update_share(study, total.roster, total.survivors)
