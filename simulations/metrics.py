"""Exact metrics of risks on patients the researcher holds, with bootstrap intervals.

A patient is resampled whole, by counting it 0, 1, 2 ... times; scores are sorted once, so a
thousand resamples of thousands of patients take a fraction of a second.

Legend: M models whose mean metric is wanted, N stays, P patients, R resamples.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with the bounds of its 95 % percentile-bootstrap interval (Efron 1979)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class TestMetrics:
    """Metrics of one model, or the mean over several, on one test cohort."""

    auroc: Estimate
    auprc: Estimate
    brier: Estimate
    patients: int
    positives: int

    def to_json(self) -> dict[str, object]:
        """Return plain numbers, as in ``run.json``."""
        return asdict(self)


def evaluate_risks(
    models_MN: Sequence[NDArray[np.floating]],
    outcomes_N: NDArray[np.bool_],
    patient_N: NDArray[np.int64],
    *,
    seed: int = 0,
) -> TestMetrics:
    """Return AUROC, AUPRC (average precision) and Brier score, averaged over models.

    Args:
        models_MN: for each model its risks in [0, 1]; the same resamples serve all models.
        outcomes_N: what happened; both outcomes must occur.
        patient_N: index of each stay's patient, from 0.
        seed: of the resampling.
    """
    patients = int(patient_N.max()) + 1
    stream = np.random.default_rng(seed)
    counts_RP = stream.multinomial(patients, np.full(patients, 1 / patients), size=RESAMPLES)
    weights_RN = np.vstack([np.ones(patient_N.size), counts_RP[:, patient_N]])
    values_M3R = np.array([_metrics(risks_N, outcomes_N, weights_RN) for risks_N in models_MN])
    auroc_R, auprc_R, brier_R = values_M3R.mean(axis=0)
    return TestMetrics(
        auroc=_estimate(auroc_R),
        auprc=_estimate(auprc_R),
        brier=_estimate(brier_R),
        patients=patients,
        positives=int(outcomes_N.sum()),
    )


def _estimate(values_R: NDArray[np.float64]) -> Estimate:
    """Take the first value as the estimate and the rest, where defined, as its resamples."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(values_R[1:], [tail, 100 - tail])
    return Estimate(value=float(values_R[0]), low=float(low), high=float(high))


def _metrics(
    risks_N: NDArray[np.floating], outcomes_N: NDArray[np.bool_], weights_RN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return AUROC, AUPRC and Brier score under each row of weights, shape (3, R + 1)."""
    order_N = np.argsort(-risks_N, kind="stable")
    sorted_N = risks_N[order_N]
    last_of_tie_N = np.append(sorted_N[1:] != sorted_N[:-1], True)
    outcome_N = outcomes_N[order_N]
    error_N = (sorted_N - outcome_N) ** 2
    results = np.empty((3, len(weights_RN)))
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may lack an outcome: NaN
        for row, weight_N in enumerate(weights_RN[:, order_N]):
            true_U = np.cumsum(weight_N * outcome_N)[last_of_tie_N]
            false_U = np.cumsum(weight_N * ~outcome_N)[last_of_tie_N]
            gained_U = np.diff(true_U, prepend=0.0)
            alarms_U = np.diff(false_U, prepend=0.0)
            pairs = np.sum(alarms_U * (true_U - gained_U / 2))
            precision_U = true_U / np.maximum(true_U + false_U, 1e-12)
            results[:, row] = (
                pairs / (true_U[-1] * false_U[-1]),
                np.sum(precision_U * gained_U) / true_U[-1],
                np.sum(weight_N * error_N) / np.sum(weight_N),
            )
    return results
