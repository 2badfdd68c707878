"""Figures of groups of patients: from the sums of a study's last evaluation, or from test patients.

Guarantee: no figure of a group with too few patients, or of one that no hospital released.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.shared.figures.risk_curves import Share, observed_over_expected, wilson
from consilium.shared.figures.score_counts import (
    NORMAL_95,
    BinaryMetrics,
    Edges,
    metrics_from_counts,
)
from consilium.shared.figures.survival_counts import SurvivalFigures, figures_from_counts
from consilium.shared.rounds.contents import LARGEST_ERROR
from consilium.shared.rounds.patient_groups import (
    WITH_RISKS,
    PatientGroup,
    block_size,
    group_bins,
    group_edges,
    patient_groups,
)
from consilium.shared.study.definition import Study

_SURE = 3.0  # deviations of the noise by which a noisy count must exceed ``smallest_group``


@dataclass(frozen=True, kw_only=True)
class GroupFigures:
    """The figures of one group; see "A group" in docs/run-json.md.

    ``figures`` begin with the most important one. ``counts_2B`` has the rows without and with the
    outcome, by bin. ``survival`` has the curves of a survival task, whose ``positives`` are those
    that the curve at the horizon gives. ``released`` is None for test patients, of whom no hospital
    has to release anything.
    """

    group: PatientGroup
    patients: float
    rows: float
    judged: bool
    figures: Mapping[str, Share] | None = None
    positives: float | None = None
    expected: float | None = None
    calibration: Share | None = None
    counts_2B: NDArray[np.float64] | None = None
    released: bool | None = None
    survival: SurvivalFigures | None = None

    @property
    def scale(self) -> float:
        """Weight of a row, patients / rows: rows of one patient are not independent."""
        return min(self.patients / self.rows, 1.0) if self.rows else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, as in ``run.json``."""
        by_bin = [None, None] if self.counts_2B is None else map(as_text, self.counts_2B)
        negatives, positives = by_bin
        plain: dict[str, Any] = {
            "kind": self.group.kind,
            "name": self.group.name,
            "variable": self.group.variable,
            "patients": self.patients,
            "rows": self.rows,
            "positives": self.positives,
            "judged": self.judged,
            "figures": self.figures and {name: asdict(f) for name, f in self.figures.items()},
            "expected": self.expected,
            "calibration": self.calibration and asdict(self.calibration),
            "negatives": negatives,
            "positives_by_bin": positives,
        }
        if self.survival is not None:
            plain["survival"] = self.survival.to_json()
        return plain if self.released is None else plain | {"released": self.released}


def groups_from_sums(
    blocks: NDArray[np.float64],
    study: Study,
    *,
    edges_KL: NDArray[np.float32],
    noise: float,
) -> tuple[GroupFigures, ...]:
    """Return the figures of all groups of the study's last evaluation.

    Args:
        blocks: the sums of all groups' blocks, one after another.
        study: names the groups.
        edges_KL: of the bins of each output.
        noise: standard deviation of the privacy noise on each sum.
    """
    groups = patient_groups(study)
    edges_L = group_edges(study, edges_KL)
    return tuple(
        _of_survival(group, block, study, edges_L, noise)
        if study.task.kind == "survival"
        else _of_risks(group, block, study, edges_L, noise)
        if study.task.kind in WITH_RISKS
        else _of_mean(group, block, study, noise)
        for group, block in zip(groups, blocks.reshape(-1, block_size(study)), strict=True)
    )


def figures_of(metrics: BinaryMetrics) -> dict[str, Share]:
    """Return a group's figures from its metrics, with intervals."""
    return {"auroc": Share(metrics.auroc, metrics.auroc_low, metrics.auroc_high)}


def as_text(numbers: NDArray[np.floating[Any]]) -> str:
    """Write numbers on one line, so that a JSON file stays readable; 9 digits keep a float32."""
    return " ".join(f"{number:.9g}" for number in numbers)


def _of_risks(
    group: PatientGroup, block: NDArray[np.float64], study: Study, edges_L: Edges, noise: float
) -> GroupFigures:
    bins = group_bins(study)
    expected, counts_2B = float(block[0]), block[1:].reshape(2, bins)
    negatives, positives = (float(total) for total in counts_2B.sum(axis=1))
    deviation = noise * math.sqrt(bins)
    metrics = metrics_from_counts(counts_2B, edges_L, noise=noise)
    least = study.evaluation.smallest_group + _SURE * deviation
    if metrics is None or min(negatives, positives) < least:
        return _withheld(group)
    patients = negatives + positives
    return GroupFigures(
        group=group,
        patients=patients,
        rows=patients,
        judged=True,
        figures=figures_of(metrics),
        positives=positives,
        expected=expected,
        calibration=observed_over_expected(positives, patients, expected, noise=(deviation, noise)),
        counts_2B=counts_2B,
        released=True,
    )


def _of_survival(
    group: PatientGroup, block: NDArray[np.float64], study: Study, edges_L: Edges, noise: float
) -> GroupFigures:
    bins = group_bins(study)
    counts_K2B = block[1:].reshape(study.task.outputs, 2, bins)
    events = float(counts_K2B[:, 1].sum())
    without = float(counts_K2B[-1, 0].sum())  # known to be without it at the horizon
    deviation = noise * math.sqrt(study.task.outputs * bins)
    found = figures_from_counts(counts_K2B, edges_L, noise=noise, expected=float(block[0]))
    if found is None or min(events, without) < study.evaluation.smallest_group + _SURE * deviation:
        return _withheld(group)
    return GroupFigures(
        group=group, rows=found.patients, judged=True, released=True, **survival_fields(found)
    )


def survival_fields(found: SurvivalFigures) -> dict[str, Any]:
    """Return what a group says of survival, by the names of :class:`GroupFigures`' fields."""
    patients = found.patients
    return {
        "patients": patients,
        "figures": {"c_index": found.c_index},
        "positives": patients * found.whole.observed.value,
        "expected": patients * found.whole.predicted,
        "calibration": found.ratio,
        "survival": found,
    }


def _of_mean(
    group: PatientGroup, block: NDArray[np.float64], study: Study, noise: float
) -> GroupFigures:
    """Return accuracy or mean absolute error, with Wilson's interval.

    The interval is that of a share: no mean of numbers from 0 to 1 varies more than a share does.
    """
    patients, part = (float(number) for number in block)
    if patients < study.evaluation.smallest_group + _SURE * noise:
        return _withheld(group)
    part = min(max(part, 0.0), patients)
    seen = wilson(part, patients)
    added = NORMAL_95 * noise * math.hypot(1, seen.value) / patients
    low = max(seen.value - math.hypot(seen.value - seen.low, added), 0.0)
    high = seen.value + math.hypot(seen.high - seen.value, added)
    name, scale = "accuracy", 1.0
    if study.task.kind == "regression":
        name, scale = "mae", LARGEST_ERROR * study.task.spread
    return GroupFigures(
        group=group,
        patients=patients,
        rows=patients,
        judged=True,
        figures={name: Share(seen.value * scale, low * scale, high * scale)},
        released=True,
    )


def _withheld(group: PatientGroup) -> GroupFigures:
    return GroupFigures(group=group, patients=0.0, rows=0.0, judged=False, released=False)
