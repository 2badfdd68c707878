"""Metrics of all sites' validation patients together, from the sums of their counts."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.server.figures.attributions import attributions_from_sums
from consilium.server.figures.groups import GroupFigures, as_text, groups_from_sums
from consilium.server.figures.verdicts import verdicts
from consilium.shared.figures.recalibration import Recalibration, fit_recalibration
from consilium.shared.figures.risk_curves import OperatingPoint, operating_points, point_at
from consilium.shared.figures.score_counts import (
    BinaryMetrics,
    Edges,
    finer_edges,
    metrics_from_counts,
)
from consilium.shared.figures.survival_counts import SurvivalFigures, figures_from_counts
from consilium.shared.rounds.contents import (
    LARGEST_ERROR,
    LARGEST_LOSS,
    counts_shape,
    metrics_noise,
)
from consilium.shared.rounds.patient_groups import group_edges
from consilium.shared.study.definition import Study

AUROC_ERROR = 0.002  # where bins may move an AUROC by more, evaluating again in finer ones pays


@dataclass(frozen=True, kw_only=True)
class FederatedMetrics:
    """How a model does on the validation patients of all sites together.

    Attributes:
        patients: how many; with privacy noise not a whole number.
        loss: mean loss of a patient; a larger loss counts as ``LARGEST_LOSS``.
        outputs: metrics of each output that is a risk; None where its outcome always or never
            occurred.
        counts: for each output that is a risk, sums (2, B) without and with the outcome, by bin.
        edges: of the bins of each output.
        points: for each output, what alarms at the study's thresholds would do.
        recalibrations: Platt's, fitted to each output's counts; None where there is no fit.
        accuracy: in a multiclass task; None otherwise.
        sensitivity: of each class, in a multiclass task; None for a class that did not occur.
        confusion: in a multiclass task, patients by true class (rows) and most likely class.
        errors: in regression, each target's mean absolute error in its unit; a patient's mean
            counts as ``LARGEST_ERROR`` spreads at most.
        root_errors: in regression, each target's root mean squared error, bounded likewise.
        groups: figures of the study's groups of patients, of the finished model; see
            :mod:`consilium.server.figures.groups`.
        group_edges: of the bins in which the groups are counted.
        noise: standard deviation of the privacy noise on each sum.
        survival: in a survival task, its figures; ``outputs`` is then empty. None where no pair of
            patients can be compared.
        attributions: which variables the finished model relies on; None unless the study asks and
            enough patients were explained.
    """

    patients: float
    loss: float
    outputs: tuple[BinaryMetrics | None, ...]
    counts: tuple[NDArray[np.float64], ...] = ()
    edges: tuple[Edges, ...] = ()
    points: tuple[tuple[OperatingPoint, ...], ...] = ()
    recalibrations: tuple[Recalibration | None, ...] = ()
    accuracy: float | None = None
    sensitivity: tuple[float | None, ...] = ()
    confusion: tuple[tuple[float, ...], ...] = ()
    errors: tuple[float | None, ...] = ()
    root_errors: tuple[float | None, ...] = ()
    groups: tuple[GroupFigures, ...] = ()
    group_edges: Edges | None = None
    noise: float = 0.0
    survival: SurvivalFigures | None = None
    attributions: Mapping[str, Any] | None = None

    @property
    def auroc(self) -> float:
        """Mean AUROC over the outputs that have one; NaN if there is none."""
        values = [output.auroc for output in self.outputs if output is not None]
        return float(np.mean(values)) if values else float("nan")

    @property
    def fine(self) -> bool:
        """Whether bins move no AUROC, and no C-index, by ``AUROC_ERROR`` or more."""
        if self.survival is not None and self.survival.error >= AUROC_ERROR:
            return False
        return all(o is None or o.auroc_error < AUROC_ERROR for o in self.outputs)

    def to_json(self, *, final: bool = False) -> dict[str, object]:
        """Return plain numbers, as in ``run.json``; with the counts if ``final``."""
        outputs = [None if output is None else asdict(output) for output in self.outputs]
        plain: dict[str, object] = {
            "patients": self.patients,
            "loss": self.loss,
            "outputs": outputs,
        }
        if final and self.counts:
            plain["edges"] = [as_text(edges_L) for edges_L in self.edges]
            plain["counts"] = [
                {"negatives": as_text(negative_B), "positives": as_text(positive_B)}
                for negative_B, positive_B in self.counts
            ]
            plain["thresholds"] = [[asdict(point) for point in points] for points in self.points]
            plain["recalibration"] = [None if r is None else asdict(r) for r in self.recalibrations]
        if self.groups and self.group_edges is not None:
            plain["groups"] = [group.to_json() for group in self.groups]
            plain["group_bins"] = as_text(self.group_edges)
            found = verdicts(self.groups, self.group_edges if self.counts else None)
            plain["verdicts"] = [verdict.to_json() for verdict in found]
        if self.survival is not None:
            plain["survival"] = self.survival.to_json()
        if self.attributions is not None:
            plain["attributions"] = self.attributions
        if self.accuracy is not None:
            plain |= {
                "accuracy": self.accuracy,
                "sensitivity": list(self.sensitivity),
                "confusion": [list(row) for row in self.confusion],
            }
        if self.errors:
            plain |= {"mae": list(self.errors), "rmse": list(self.root_errors)}
        return plain


def federated_metrics(
    parts: Mapping[str, NDArray[np.float64]],
    study: Study,
    *,
    sites: int,
    edges_KL: NDArray[np.float32],
    final: bool = False,
) -> FederatedMetrics | None:
    """Return the metrics in a round's sums, or None when the round brought no counts.

    Args:
        parts: the round's sums, by name of the segment.
        study: gives the layout of each segment.
        sites: how many sites are in the sums, each with its own privacy noise.
        edges_KL: of the bins in which the sites counted.
        final: whether the finished model was evaluated.
    """
    if "loss" not in parts:
        return None
    loss, patients = parts["loss"]
    tables_K2B = parts.get("scores", np.zeros(0)).reshape(counts_shape(study))
    both = list(zip(tables_K2B, edges_KL, strict=True))
    blocks = parts.get("groups")
    noise = metrics_noise(study, final=final) * math.sqrt(sites)
    groups = (
        () if blocks is None else groups_from_sums(blocks, study, edges_KL=edges_KL, noise=noise)
    )
    survival = None
    if study.task.kind == "survival":
        both = []  # a table counts the risk by the horizon, not that of its interval
        survival = figures_from_counts(tables_K2B, edges_KL[0], noise=noise)
    return FederatedMetrics(
        patients=float(patients),
        loss=float(LARGEST_LOSS * max(loss, 0.0) / patients) if patients > 0 else float("nan"),
        outputs=tuple(metrics_from_counts(table, edges, noise=noise) for table, edges in both),
        counts=tuple(tables_K2B),
        edges=tuple(edges_KL),
        points=tuple(_points(table, edges, study) for table, edges in both),
        recalibrations=tuple(fit_recalibration(table, edges) for table, edges in both),
        groups=groups,
        group_edges=group_edges(study, edges_KL) if groups else None,
        noise=noise,
        survival=survival,
        attributions=_attributions(parts, study, noise),
        **_from_hits(parts.get("hits", np.zeros(0)), study),
    )


def next_edges(metrics: FederatedMetrics, study: Study) -> NDArray[np.float32]:
    """Return bin edges (K, L) for the next evaluation, dense where this one found risks.

    The intervals of survival have the same edges.
    """
    if study.task.kind == "survival":
        pooled_2B = np.sum(metrics.counts, axis=0)
        finer_L = finer_edges(
            pooled_2B, metrics.edges[0], study.evaluation.thresholds, noise=metrics.noise
        )
        return np.tile(finer_L, (study.task.outputs, 1))
    finer = [
        finer_edges(table_2B, edges_L, study.evaluation.thresholds, noise=metrics.noise)
        for table_2B, edges_L in zip(metrics.counts, metrics.edges, strict=True)
    ]
    return np.array(finer, dtype=np.float32).reshape(len(finer), study.bins - 1)


def tables_from_json(
    record: Mapping[str, Any],
) -> list[tuple[NDArray[np.float64], Edges]]:
    """Return counts (2, B) and edges (L,) of each output from what :meth:`to_json` wrote."""
    return [
        (
            np.array([table[side].split() for side in ("negatives", "positives")], np.float64),
            np.array(edges.split(), np.float32),
        )
        for table, edges in zip(record.get("counts", ()), record.get("edges", ()), strict=True)
    ]


def _attributions(
    parts: Mapping[str, NDArray[np.float64]], study: Study, noise: float
) -> Mapping[str, Any] | None:
    if "attributions" not in parts:
        return None
    found = attributions_from_sums(parts["attributions"], study, noise=noise)
    return None if found is None else found.to_json(study)


def _points(
    table_2B: NDArray[np.float64], edges_L: Edges, study: Study
) -> tuple[OperatingPoint, ...]:
    points = operating_points(table_2B, edges_L)
    return tuple(point_at(points, t) for t in study.evaluation.thresholds) if points else ()


def _from_hits(hits: NDArray[np.float64], study: Study) -> dict[str, Any]:
    """Return the figures of classes or of errors; privacy noise may have made sums negative."""
    hits = np.maximum(hits, 0.0)
    if study.task.kind == "multiclass":
        table_KK = hits.reshape(study.task.outputs, study.task.outputs)
        occurring_K = table_KK.sum(axis=1)
        right_K = np.diag(table_KK)
        return {
            "accuracy": _ratio(float(right_K.sum()), float(occurring_K.sum())),
            "sensitivity": tuple(map(_ratio, right_K.tolist(), occurring_K.tolist())),
            "confusion": tuple(map(tuple, table_KK.tolist())),
        }
    if study.task.kind == "regression":
        scale = LARGEST_ERROR * study.task.spread
        absolute_K, squared_K, patients_K = hits.reshape(study.task.outputs, 3).T.tolist()
        means = [_ratio(*pair) for pair in zip(absolute_K, patients_K, strict=True)]
        squares = [_ratio(*pair) for pair in zip(squared_K, patients_K, strict=True)]
        return {
            "errors": tuple(None if m is None else scale * m for m in means),
            "root_errors": tuple(None if m is None else scale * math.sqrt(m) for m in squares),
        }
    return {}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
