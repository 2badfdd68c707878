"""Metrics of all sites' validation patients together, from the sums of their counts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from shared.round_contents import LARGEST_LOSS, counts_shape
from shared.score_counts import BinaryMetrics, metrics_from_counts
from shared.study import Study


@dataclass(frozen=True, kw_only=True)
class FederatedMetrics:
    """What the sites' validation patients say about a model.

    Attributes:
        patients: how many; not whole when the counts carry privacy noise.
        loss: mean over patients of the loss, each counted up to ``LARGEST_LOSS``.
        outputs: metrics of each output that is a risk; None where an outcome did not occur.
    """

    patients: float
    loss: float
    outputs: tuple[BinaryMetrics | None, ...]

    @property
    def auroc(self) -> float:
        """Mean AUROC over the outputs that have one; NaN if there is none."""
        values = [output.auroc for output in self.outputs if output is not None]
        return float(np.mean(values)) if values else float("nan")

    def to_json(self) -> dict[str, object]:
        """Return plain numbers, as in ``run.json``."""
        outputs = [None if output is None else asdict(output) for output in self.outputs]
        return {"patients": self.patients, "loss": self.loss, "outputs": outputs}


def federated_metrics(
    parts: Mapping[str, NDArray[np.float64]], study: Study
) -> FederatedMetrics | None:
    """Return the metrics in a round's sums, or None when the round brought no counts."""
    if "loss" not in parts:
        return None
    loss, patients = parts["loss"]
    tables_K2B = parts.get("scores", np.zeros(0)).reshape(counts_shape(study))
    return FederatedMetrics(
        patients=float(patients),
        loss=float(LARGEST_LOSS * max(loss, 0.0) / patients) if patients > 0 else float("nan"),
        outputs=tuple(metrics_from_counts(table_2B) for table_2B in tables_K2B),
    )
