"""Metrics of all sites' validation patients together, from the sums of their counts."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.risk_curves import Recalibration, fit_recalibration
from shared.round_contents import LARGEST_ERROR, LARGEST_LOSS, counts_shape, metrics_noise
from shared.score_counts import BinaryMetrics, metrics_from_counts
from shared.study import Study


@dataclass(frozen=True, kw_only=True)
class FederatedMetrics:
    """What the sites' validation patients say about a model.

    Attributes:
        patients: how many; not whole when the counts carry privacy noise.
        loss: mean over patients of the loss, each counted up to ``LARGEST_LOSS``.
        outputs: metrics of each output that is a risk; None where an outcome did not occur.
        counts: (2, B) sums of each output that is a risk, as the sites' secure sum gave them.
        recalibrations: Platt's, fitted to each output's counts; None where there is no fit.
        accuracy: in a multiclass task; None otherwise.
        sensitivity: of each class, in a multiclass task; None for a class that did not occur.
        errors: mean absolute error of each target, in its unit, in regression; a patient's is
            counted up to ``LARGEST_ERROR`` spreads.
    """

    patients: float
    loss: float
    outputs: tuple[BinaryMetrics | None, ...]
    counts: tuple[NDArray[np.float64], ...] = ()
    recalibrations: tuple[Recalibration | None, ...] = ()
    accuracy: float | None = None
    sensitivity: tuple[float | None, ...] = ()
    errors: tuple[float | None, ...] = ()

    @property
    def auroc(self) -> float:
        """Mean AUROC over the outputs that have one; NaN if there is none."""
        values = [output.auroc for output in self.outputs if output is not None]
        return float(np.mean(values)) if values else float("nan")

    def to_json(self, *, final: bool = False) -> dict[str, object]:
        """Return plain numbers, as in ``run.json``; of the final model with counts."""
        outputs = [None if output is None else asdict(output) for output in self.outputs]
        plain: dict[str, object] = {
            "patients": self.patients,
            "loss": self.loss,
            "outputs": outputs,
        }
        if final and self.counts:
            plain["counts"] = [counts_2B.tolist() for counts_2B in self.counts]
            plain["recalibration"] = [None if r is None else asdict(r) for r in self.recalibrations]
        if self.accuracy is not None:
            plain |= {"accuracy": self.accuracy, "sensitivity": list(self.sensitivity)}
        return plain | ({"mae": list(self.errors)} if self.errors else {})


def federated_metrics(
    parts: Mapping[str, NDArray[np.float64]], study: Study, *, sites: int
) -> FederatedMetrics | None:
    """Return the metrics in a round's sums, or None when the round brought no counts.

    Args:
        parts: the segments of the sums.
        study: says what they hold.
        sites: how many sites are in the sums, each with its own privacy noise.
    """
    if "loss" not in parts:
        return None
    loss, patients = parts["loss"]
    tables_K2B = parts.get("scores", np.zeros(0)).reshape(counts_shape(study))
    noise = metrics_noise(study) * math.sqrt(sites)
    return FederatedMetrics(
        patients=float(patients),
        loss=float(LARGEST_LOSS * max(loss, 0.0) / patients) if patients > 0 else float("nan"),
        outputs=tuple(metrics_from_counts(table_2B, noise=noise) for table_2B in tables_K2B),
        counts=tuple(tables_K2B),
        recalibrations=tuple(fit_recalibration(table_2B) for table_2B in tables_K2B),
        **_from_hits(parts.get("hits", np.zeros(0)), study),
    )


def _from_hits(hits: NDArray[np.float64], study: Study) -> dict[str, Any]:
    """Return what the sums beside the tables say; noise may have made them negative."""
    hits = np.maximum(hits, 0.0)
    if study.task.kind == "multiclass":
        table_OO = hits.reshape(study.task.outputs, study.task.outputs)
        occurring_O = table_OO.sum(axis=1)
        right_O = np.diag(table_OO)
        return {
            "accuracy": _ratio(float(right_O.sum()), float(occurring_O.sum())),
            "sensitivity": tuple(map(_ratio, right_O.tolist(), occurring_O.tolist())),
        }
    if study.task.kind == "regression":
        scale = LARGEST_ERROR * study.task.spread
        sums_O2 = hits.reshape(study.task.outputs, 2).tolist()
        ratios = [_ratio(error, patients) for error, patients in sums_O2]
        return {"errors": tuple(None if r is None else scale * r for r in ratios)}
    return {}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
