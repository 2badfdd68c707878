"""A whole federation on one screen: :func:`run_study` asks, sums, steps, and yields each round.

The caller saves checkpoints, shows progress and decides when to stop; nothing here logs or writes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from server import aggregation
from server.aggregation import ServerState
from server.evaluation import FederatedMetrics, federated_metrics, next_edges
from server.group_sums import GroupSums, GroupTotals
from server.plausibility import check_plausible
from server.secure_sum import SumResult
from server.sites import Sites
from shared.errors import RoundVoidError
from shared.normalisation import Normalisation
from shared.own_weights import shared_weights
from shared.round_contents import (
    Purpose,
    RoundConfiguration,
    edges_from_bytes,
    edges_to_bytes,
    statistics_noise,
    update_share,
    vector_spec,
)
from shared.study import Study
from shared.sum_parameters import SumParameters


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands between two rounds.

    Attributes:
        server: global weights and the optimiser's memory.
        normalisation: encoded, empty until the sites' statistics have been summed.
        next_round: number of the next secure sum; numbers are never used twice.
        trained: training rounds so far, void ones included.
        evaluated: evaluations of the finished model so far, void ones included.
        edges: of the bins in which the next evaluation counts, encoded.
        finished: nothing is left to do.
    """

    server: ServerState
    normalisation: bytes = b""
    next_round: int = 1
    trained: int = 0
    evaluated: int = 0
    edges: bytes = b""
    finished: bool = False

    def after_crash(self, study: Study) -> "RunState":
        """Return the state to go on from: the round that may have begun is skipped.

        With privacy on, sites may have charged it, so it counts as one of the study's rounds.
        """
        charged = study.privacy.mode != "none" and self.normalisation != b""
        evaluating = self.trained >= study.rounds
        return replace(
            self,
            next_round=self.next_round + 1,
            trained=self.trained + int(charged and not evaluating),
            evaluated=self.evaluated + int(charged and evaluating),
        )


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """What one round gave.

    Attributes:
        number: of the secure sum; the statistics round is usually 1.
        purpose: why vectors were summed.
        state: the run's state after this round (unchanged when the round was void).
        void: why the round gave nothing, or None.
        survivors: sites in the sum; ``refusals`` holds the others' reasons where they gave one.
        patients: training patients of the survivors.
        update_norm: L2 norm of the mean update; 0 unless a training round.
        metrics: on the sites' validation patients, of the weights the round began with.
        bytes_up: bytes each site sent; ``bytes_down`` each received.
        seconds: time of the whole round; ``phases`` of each exchange.
        audit_heads: by survivor, the head of its audit log as it came, not yet verified.
    """

    number: int
    purpose: Purpose
    state: RunState
    void: str | None = None
    survivors: tuple[str, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)
    patients: int = 0
    update_norm: float = 0.0
    metrics: FederatedMetrics | None = None
    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    audit_heads: dict[str, bytes] = field(default_factory=dict)


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
) -> Iterator[RoundResult]:
    """Run the study from ``state`` to its end; yield the result of every round.

    ``parameters`` are of the secure sum of each group of sites; ``audit_head`` gives the
    coordinator's audit head as it is when a round begins, encoded.

    A void round is skipped and counts as one of the study's rounds: sites may have charged it, and
    asking again for the same update could reveal one site's share of it.

    Raises:
        RoundVoidError: the channels could not be opened, or the statistics could not be summed.
    """
    group_sums = GroupSums(parameters, sites, timeout_s=study.aggregation.round_timeout_s)
    group_sums.open(round=state.next_round)
    if not state.normalisation:
        result = run_round(study, group_sums, state, Purpose.STATISTICS, audit_head())
        yield result
        if result.void is not None:
            raise RoundVoidError(f"the sites' statistics could not be summed: {result.void}")
        state = result.state
    while state.trained < study.rounds:
        result = run_round(study, group_sums, state, Purpose.TRAINING, audit_head())
        yield result
        state = result.state
    while study.evaluation.validation_fraction > 0 and not state.finished:
        if state.evaluated >= study.passes:
            return
        result = run_round(study, group_sums, state, Purpose.EVALUATION, audit_head())
        yield result
        state = result.state


def run_round(
    study: Study,
    group_sums: GroupSums,
    state: RunState,
    purpose: Purpose,
    audit_head: bytes = b"",
) -> RoundResult:
    """Run one round and apply it; a void one leaves weights and normalisation unchanged."""
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
    if purpose is Purpose.EVALUATION:
        weights_D = state.server.model_weights
    after = replace(
        state,
        next_round=state.next_round + 1,
        trained=state.trained + int(purpose is Purpose.TRAINING),
        evaluated=state.evaluated + int(purpose is Purpose.EVALUATION),
    )
    try:
        sums = group_sums.sum(
            round=state.next_round,
            spec=vector_spec(study, asked, parameters=int(shared_D.sum())),
            model=_sent(study, purpose, state.server, weights_D),
            configuration=asked.to_bytes(),
            check=lambda total: check_plausible(study, total),
        )
    except RoundVoidError as error:
        return RoundResult(
            number=state.next_round,
            purpose=purpose,
            state=after,
            void=str(error),
            seconds=time.monotonic() - began,
        )
    sites = len(sums.survivors)
    edges_KE = edges_from_bytes(state.edges, study)
    final = purpose is Purpose.EVALUATION
    metrics = federated_metrics(sums.parts, study, sites=sites, edges_KE=edges_KE, final=final)
    if metrics is not None:
        finer_KE = next_edges(metrics, study)
        done = final and (metrics.fine or after.evaluated >= study.passes)
        after = replace(after, edges=edges_to_bytes(finer_KE, study), finished=done)
    return RoundResult(
        number=state.next_round,
        purpose=purpose,
        state=_apply(study, after, purpose, sums, shared_D),
        survivors=sums.survivors,
        refusals=sums.refusals,
        patients=sums.weight,
        update_norm=float(np.linalg.norm(_mean_update(study, sums, weights_D, shared_D))),
        metrics=metrics,
        bytes_up=sums.bytes_up,
        bytes_down=sums.bytes_down,
        phases=sums.seconds,
        seconds=time.monotonic() - began,
        audit_heads=sums.audit_heads,
    )


def _sent(
    study: Study, purpose: Purpose, server: ServerState, weights_D: NDArray[np.float32]
) -> bytes:
    """Return what sites get: the weights, with control variates behind them where they use such."""
    sent = weights_D.astype("<f4").tobytes()
    if purpose is not Purpose.TRAINING or not study.training.control_variates:
        return sent
    control_D = server.control_D if server.control_D.size else np.zeros(weights_D.size)
    return sent + control_D.astype("<f4").tobytes()


def evaluates(study: Study, trained: int) -> bool:
    """Tell whether the training round after ``trained`` others also brings validation counts."""
    return study.evaluation.validation_fraction > 0 and trained % study.evaluation.every == 0


def _apply(
    study: Study,
    state: RunState,
    purpose: Purpose,
    sums: GroupTotals,
    shared_D: NDArray[np.bool_],
) -> RunState:
    if purpose is Purpose.STATISTICS:
        statistics_S = sums.parts["statistics"]
        noise = statistics_noise(study) * math.sqrt(len(sums.survivors))
        normalisation = Normalisation.from_sums(statistics_S, noise=noise)
        return replace(state, normalisation=normalisation.to_bytes())
    if purpose is Purpose.TRAINING:
        mean_D = _mean_update(study, sums, state.server.weights_D, shared_D)
        server = aggregation.apply(state.server, mean_D, study.aggregation)
        if study.training.control_variates:
            server = replace(server, control_D=_site_mean(study, sums.totals[0], "control"))
        return replace(state, server=server)
    return state


def _mean_update(
    study: Study,
    sums: GroupTotals,
    weights_D: NDArray[np.float32],
    shared_D: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return the mean update (D,), of several groups their median; zero if none came.

    It is zero, too, where weights are each site's own (``shared_D`` false): nobody sent them.
    """
    means = [_group_mean(study, total, weights_D) for total in sums.totals]
    mean_S = means[0] if len(means) == 1 else aggregation.across_groups(np.stack(means))
    mean_D = np.zeros(weights_D.size)
    if mean_S.size:
        mean_D[shared_D] = mean_S
    return mean_D


def _group_mean(
    study: Study, total: SumResult, weights_D: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the survivors' weighted mean update of shared weights; empty if the sum held none.

    In mode ``distributed`` it is minus the gradient's mean over the expected number of patients,
    weight decay included: the step that plain SGD with learning rate 1 would take at a site.
    """
    if "update" not in total.parts:
        return np.zeros(0)
    sum_D = total.parts["update"]
    if study.privacy.mode == "distributed":
        decay_D = study.training.weight_decay * weights_D.astype(np.float64)
        return -sum_D / (study.training.sampling_rate * total.weight) - decay_D
    return _site_mean(study, total, "update")


def _site_mean(study: Study, total: SumResult, name: str) -> NDArray[np.float64]:
    """Return the survivors' mean of a segment, weighted as the study says."""
    uniform = study.aggregation.weighting == "uniform"
    shares = len(total.survivors) if uniform else update_share(study, total.weight)
    return total.parts[name] / shares
