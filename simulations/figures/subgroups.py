"""Figures of the researcher's test patients: all, by hospital, and by the study's subgroups.

The researcher of a simulation holds these patients, so nothing here passes through a secure sum or
a policy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from consilium.client.round.subgroups import members_of
from consilium.server.figures.groups import GroupFigures, survival_fields
from consilium.shared.figures.risk_curves import Share, observed_over_expected
from consilium.shared.figures.score_counts import Edges, count_scores, finer_edges, first_edges
from consilium.shared.figures.survival_counts import count_intervals, figures_from_counts
from consilium.shared.rounds.patient_groups import EVERYBODY, WITH_RISKS, PatientGroup, subgroups
from consilium.simulations.figures.held_out import HeldOut, Scores
from consilium.simulations.figures.metrics import HeldOutMetrics, Truth

BINS = 200
_PASSES = 3  # so often bins are refined, which makes them narrow wherever risks are dense


@dataclass(frozen=True, kw_only=True)
class FiguresByGroup:
    """Figures of all test patients, then of each hospital and each subgroup.

    ``edges_L`` are those of the bins in which risks are counted; None in tasks without risks.
    """

    groups: tuple[GroupFigures, ...]
    edges_L: Edges | None


def figures_by_group(
    test: HeldOut, scores: Scores, everybody: HeldOutMetrics, sites: Mapping[str, HeldOutMetrics]
) -> FiguresByGroup:
    """Return the figures of all groups of test patients with a known outcome.

    Args:
        test: the test patients.
        scores: the model's, of each of their stays.
        everybody: figures on all of them.
        sites: figures by hospital, if there are several.
    """
    edges_L = None
    if test.study.task.kind == "survival":
        edges_L = first_edges(BINS)
        for _ in range(_PASSES):
            edges_L = finer_edges(_count_survival(test.truth, scores, edges_L).sum(axis=0), edges_L)
    if test.study.task.kind in WITH_RISKS:
        edges_L = first_edges(BINS)
        for _ in range(_PASSES):
            edges_L = finer_edges(_count(test.truth, scores, edges_L)[0], edges_L)
    whole = np.ones(len(test.grid.y_N), dtype=np.bool_)
    found = [_figures(test, EVERYBODY, whole, scores, everybody, edges_L)]
    for group, stays_N in parts_of(test):
        if (known := sites.get(group.name) if group.kind == "site" else None) is None:
            if not len(test.truth_of(stays_N).patient_R):
                continue
            known = test.metrics_of(stays_N, [scores])
        found.append(_figures(test, group, stays_N, scores, known, edges_L))
    return FiguresByGroup(groups=tuple(found), edges_L=edges_L)


def parts_of(test: HeldOut) -> Iterator[tuple[PatientGroup, NDArray[np.bool_]]]:
    """Yield each hospital, where there are several, and each subgroup with its stays (N,)."""
    for index, name in enumerate(test.groups if len(test.groups) > 1 else ()):
        yield PatientGroup(kind="site", name=name), test.group_N == index
    for group in subgroups(test.study):
        yield group, members_of(test.grid, test.study, group)


def with_risks(test: HeldOut, by_group: FiguresByGroup, scores: Scores) -> tuple[GroupFigures, ...]:
    """Return the groups of ``by_group`` under other risks of the same stays.

    Only ``expected`` and ``calibration`` are of the new risks, the rest of the old ones.
    """
    stays_of = {EVERYBODY: np.ones(len(test.grid.y_N), dtype=np.bool_), **dict(parts_of(test))}
    changed = []
    for group in by_group.groups:
        stays_N = stays_of[group.group]
        expected = float(np.nansum(_known_risks(test, stays_N, scores)))
        ratio = calibration_of(test, stays_N, scores)
        changed.append(replace(group, expected=expected, calibration=ratio))
    return tuple(changed)


def calibration_of(test: HeldOut, stays_N: NDArray[np.bool_], scores: Scores) -> Share | None:
    """Return outcomes observed / expected in the chosen stays (N,); each patient counts as one.

    None in tasks without risks, and where the ratio is undefined.
    """
    if test.study.task.kind not in WITH_RISKS:
        return None
    truth = test.truth_of(stays_N)
    risk_RK = _known_risks(test, stays_N, scores)
    rows, positives = float((~np.isnan(risk_RK)).sum()), float((truth.truth_R == 1).sum())
    if not rows:
        return None
    share = min(len(np.unique(truth.patient_R)) / rows, 1.0)
    return observed_over_expected(
        positives * share, rows * share, float(np.nansum(risk_RK)) * share
    )


def judged(test: HeldOut, stays_N: NDArray[np.bool_]) -> bool:
    """Return whether the chosen stays (N,) have enough patients to judge.

    The study's ``smallest_group`` patients must have the outcome, and as many must not; in tasks
    without risks there must be that many patients.
    """
    truth, least = test.truth_of(stays_N), test.study.evaluation.smallest_group
    patients = len(np.unique(truth.patient_R))
    if test.study.task.kind not in WITH_RISKS:
        return patients >= least
    known = truth.truth_R[~np.isnan(truth.truth_R)]
    fewer = min((known == 1).sum(), (known != 1).sum())
    return bool(fewer * min(patients / max(known.size, 1), 1.0) >= least)


def _known_risks(test: HeldOut, stays_N: NDArray[np.bool_], scores: Scores) -> Scores:
    """Return the risks (R, K) of known outcomes; NaN where one of several labels is not known."""
    truth = test.truth_of(stays_N)
    risk_RK = truth.rows(scores[stays_N])
    return np.where(np.isnan(truth.truth_R.reshape(risk_RK.shape)), np.nan, risk_RK)


def _figures(
    test: HeldOut,
    group: PatientGroup,
    stays_N: NDArray[np.bool_],
    scores: Scores,
    metrics: HeldOutMetrics,
    edges_L: Edges | None,
) -> GroupFigures:
    figures = {name: Share(e.value, e.low, e.high) for name, e in metrics.figures.items()}
    least = test.study.evaluation.smallest_group
    if edges_L is None:
        judged = metrics.patients >= least
        return GroupFigures(
            group=group,
            patients=metrics.patients,
            rows=metrics.rows,
            judged=judged,
            figures=figures if judged else None,
        )
    truth = test.truth_of(stays_N)
    if test.study.task.kind == "survival":
        counts_K2B = _count_survival(truth, scores[stays_N], edges_L)
        expected = float(truth.rows(scores[stays_N])[:, -1].sum())
        found = figures_from_counts(counts_K2B, edges_L, expected=expected)
        fewer = min(counts_K2B[:, 1].sum(), counts_K2B[-1, 0].sum())
        if found is None:
            return GroupFigures(group=group, patients=metrics.patients, rows=metrics.rows,
                                judged=False)  # fmt: skip
        fields = {**survival_fields(found), "patients": metrics.patients, "figures": None}
        if fewer >= least:
            fields["figures"] = figures
        return GroupFigures(group=group, rows=metrics.rows, judged=bool(fewer >= least), **fields)
    counts_2B, expected = _count(truth, scores[stays_N], edges_L)
    negatives, positives = (float(total) for total in counts_2B.sum(axis=1))
    share = min(metrics.patients / (negatives + positives), 1.0)
    judged = min(negatives, positives) * share >= least
    return GroupFigures(
        group=group,
        patients=metrics.patients,
        rows=negatives + positives,
        judged=judged,
        figures=figures if judged else None,
        positives=positives,
        expected=expected,
        calibration=observed_over_expected(
            positives * share, (negatives + positives) * share, expected * share
        ),
        counts_2B=counts_2B,
    )


def _count_survival(truth: Truth, scores: Scores, edges_L: Edges) -> NDArray[np.float64]:
    """Return rows by interval, outcome and bin (K, 2, B) of the risk by the horizon."""
    risk_RK = truth.rows(scores)
    edges_KL = np.tile(edges_L, (risk_RK.shape[1], 1))
    return count_intervals(risk_RK[:, -1], truth.truth_R, np.ones(len(risk_RK)), edges_KL)


def _count(truth: Truth, scores: Scores, edges_L: Edges) -> tuple[NDArray[np.float64], float]:
    """Return rows by outcome and bin (2, B), all labels together, and the sum of their risks."""
    risk_RK = truth.rows(scores)
    truth_RK = truth.truth_R.reshape(risk_RK.shape)
    known = ~np.isnan(truth_RK)
    risks = risk_RK[known]
    return count_scores(risks, truth_RK[known] == 1, np.ones(len(risks)), edges_L), risks.sum()
