"""Test figures on patients the researcher holds, with bootstrap intervals, for every kind of task.

A patient is resampled with all rows, which then count 0, 1, 2 ... times; scores are sorted once, so
a thousand resamples of thousands of patients take a fraction of a second.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.shared.study.training import Task
from consilium.simulations.figures.measures import FIGURES, Classes, measure_of

RESAMPLES = 1000
LEVEL = 0.95
LOWER_IS_BETTER = ("mae", "rmse", "brier", "nll")
_FEWEST_RESAMPLES = 100
_ROWS_IN_ALL = 40_000_000  # rows times resamples; larger cohorts get fewer resamples


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with the bounds of its 95 % percentile-bootstrap interval (Efron 1979)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class HeldOutMetrics:
    """Figures of one model, or the mean over several, on one test cohort.

    Attributes:
        figures: by name, those in ``measures.FIGURES`` for the kind of task.
        patients: how many were tested on.
        rows: number of their known outcomes, of stays or of steps.
        positives: rows with the outcome, in a binary, multilabel or survival task; None otherwise.
        sensitivity: of each class, in a multiclass task; empty otherwise.
        draws: by figure its value, and then its value in each resample of the patients. Models
            that were judged on the same patients with the same seed share the resamples.
    """

    figures: Mapping[str, Estimate]
    patients: int
    rows: int
    positives: int | None = None
    sensitivity: tuple[float, ...] = field(default=())
    draws: Mapping[str, NDArray[np.float64]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, as in ``run.json``."""
        known = {"patients": self.patients, "rows": self.rows}
        if self.positives is not None:
            known["positives"] = self.positives
        classes = {"sensitivity": list(self.sensitivity)} if self.sensitivity else {}
        return {name: asdict(value) for name, value in self.figures.items()} | known | classes


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The true outcomes of some test patients, a row for each known outcome.

    Attributes:
        task: the kind of outcome.
        known: which stays (N,), or steps of stays (N, T), are rows.
        truth_R: (R,), or (R, K) with NaN where one of several labels is not known.
        patient_R: index of each row's patient, from 0.
    """

    task: Task
    known: NDArray[np.bool_]
    truth_R: NDArray[np.float32]
    patient_R: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        task: Task,
        y: NDArray[np.float32],
        mask_NT: NDArray[np.bool_],
        patient_N: NDArray[np.int64],
    ) -> "Truth":
        """Return the known labels of observed steps; ``y`` is laid out as in ``TimeGrid``."""
        several = y.ndim > (2 if task.per_step else 1)
        unknown = np.isnan(y).all(axis=-1) if several else np.isnan(y)
        known: NDArray[np.bool_] = np.logical_not(unknown)
        patient = patient_N
        if task.per_step:
            known = known & mask_NT
            patient = np.broadcast_to(patient_N[:, None], known.shape)
        _, patient_R = np.unique(patient[known], return_inverse=True)
        return cls(task=task, known=known, truth_R=y[known], patient_R=patient_R)

    def rows(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rows (R, K) of scores (N, K) or (N, T, K)."""
        return scores[self.known]


def evaluate(
    models: Sequence[NDArray[np.float64]], truth: Truth, *, seed: int = 0
) -> HeldOutMetrics:
    """Return the figures of the task, averaged over models, with intervals.

    Args:
        models: for each model its scores (N, K) or (N, T, K); the same resamples serve all models.
        truth: what happened.
        seed: of the resampling.
    """
    task = truth.task
    measures = [measure_of(task, truth.rows(scores), truth.truth_R) for scores in models]
    values = [
        np.mean([m.values(weight_R) for m in measures], axis=0)
        for weight_R in _weights(truth, len(models), seed)
    ]
    draws = dict(zip(FIGURES[task.kind], np.array(values).T, strict=True))
    rows, everyone = len(truth.patient_R), np.ones(len(truth.patient_R))
    classes = [m.sensitivities(everyone) for m in measures if isinstance(m, Classes)]
    counted = task.kind in ("binary", "multilabel", "survival")
    return HeldOutMetrics(
        figures={name: _estimate(values_X) for name, values_X in draws.items()},
        patients=int(truth.patient_R.max()) + 1,
        rows=rows,
        positives=int((truth.truth_R == 1).sum()) if counted else None,
        sensitivity=tuple(np.mean(classes, axis=0).tolist()) if classes else (),
        draws=draws,
    )


def difference(ours: HeldOutMetrics, theirs: HeldOutMetrics) -> dict[str, Estimate]:
    """Return how much better ``ours`` is in each figure, with intervals (paired bootstrap).

    Positive is better, in figures that are better lower, too. Both must have been judged on the
    same patients with the same seed: then resample number 5, say, is the same for both. Where one
    has more of them, the rest are left out.

    Raises:
        ValueError: they were judged on different patients.
    """
    if (ours.patients, ours.rows) != (theirs.patients, theirs.rows):
        raise ValueError("two models can be compared on the same patients alone")
    found = {}
    for name in ours.draws.keys() & theirs.draws.keys():
        one_X, other_X = ours.draws[name], theirs.draws[name]
        common = min(len(one_X), len(other_X))
        sign = -1.0 if name in LOWER_IS_BETTER else 1.0
        found[name] = _estimate(sign * (one_X[:common] - other_X[:common]))
    return {name: found[name] for name in ours.draws if name in found}


def compare_two(
    one: NDArray[np.float64], other: NDArray[np.float64], truth: Truth, *, seed: int = 0
) -> tuple[Estimate, Estimate, Estimate]:
    """Return the first figure of two models, and how much better the other is, with intervals.

    The same resamples of patients are used for both models (paired bootstrap); the difference is
    positive where ``other`` is better.
    """
    task = truth.task
    measures = [measure_of(task, truth.rows(scores), truth.truth_R) for scores in (one, other)]
    better = -1.0 if FIGURES[task.kind][0] in LOWER_IS_BETTER else 1.0
    pairs = [[m.values(weight_R)[0] for m in measures] for weight_R in _weights(truth, 2, seed)]
    of_one, of_other = np.array(pairs).T
    return _estimate(of_one), _estimate(of_other), _estimate(better * (of_other - of_one))


def _weights(truth: Truth, models: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield weights of the rows: 1 for all, then how often each resample has their patient.

    There are fewer resamples where rows and models are many.
    """
    rows, patients = len(truth.patient_R), int(truth.patient_R.max()) + 1
    resamples = int(np.clip(_ROWS_IN_ALL // (rows * models), _FEWEST_RESAMPLES, RESAMPLES))
    stream = np.random.default_rng(seed)
    yield np.ones(rows)
    for _ in range(resamples):
        counts_P = stream.multinomial(patients, np.full(patients, 1 / patients))
        yield counts_P[truth.patient_R].astype(np.float64)


def _estimate(values: NDArray[np.float64]) -> Estimate:
    """Return an estimate: the first value, its interval from the others, its resamples."""
    tail = 100 * (1 - LEVEL) / 2
    resampled = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(resampled, [tail, 100 - tail]) if resampled.size else (np.nan,) * 2
    return Estimate(value=float(values[0]), low=float(low), high=float(high))
