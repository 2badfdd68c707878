"""Measures whether this hospital's data are good enough for a study: counts and distributions.

One pass over the source: besides sums and histograms per variable and step, only labels and each
variable's last score are kept per stay, for a binary outcome. :func:`check_quality` measures,
:mod:`consilium.client.quality.findings` judges.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.features import to_grid
from consilium.client.records.windows import read_windows
from consilium.client.sources.common.source import Patient, ReadReport, Source
from consilium.shared.model.normalisation import CLIP, reference_scores
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import UNKNOWN_TOKEN
from consilium.shared.study.survival import by_each_cut

BINS = 100  # of the histogram of reference scores, from -CLIP to +CLIP
STAYS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality:
    """Measured quality of a site's data: counts, shares and histograms, no patient's values.

    Attributes:
        read: the source's own counts.
        patients, stays: how many were read.
        outcome_patients: patients with each outcome (negative, positive; or each class; or each
            label of several).
        label_mean: mean of the known labels; prevalence for a binary task.
        present_V: share of stays in which the variable was ever measured.
        measured_VT: share of the stays observed at a step in which the variable was measured then.
        observed_T: stays observed at each step.
        histogram_VB: number of values in each bin of the reference score.
        score_mean_V, score_deviation_V: mean and standard deviation over patients of a patient's
            mean score; NaN if never measured.
        alone_V: AUROC (at least 0.5) with which the variable's presence or last value alone
            predicts a binary outcome, the better of the two; NaN if it cannot be computed.
        codes, unknown_codes: number of codes, and of those outside the study's vocabulary.
        outcome_inside: stays whose outcome had happened by the end of the window.
        empty: stays without a single measurement.
        windowless: stays that gave no window, in a study whose windows do not start with the stay.
    """

    read: ReadReport
    patients: int
    stays: int
    outcome_patients: NDArray[np.int64]
    label_mean: float
    present_V: NDArray[np.float64]
    measured_VT: NDArray[np.float64]
    observed_T: NDArray[np.int64]
    histogram_VB: NDArray[np.int64]
    score_mean_V: NDArray[np.float64]
    score_deviation_V: NDArray[np.float64]
    alone_V: NDArray[np.float64]
    codes: int
    unknown_codes: int
    outcome_inside: int
    empty: int
    windowless: int


def check_quality(source: Source, study: Study) -> Quality:
    """Read a site's records as the study would and measure them.

    Raises:
        DataError: the records cannot be read at all.
    """
    measuring = _Measuring(study)
    chunk: list[Patient] = []
    for patient in read_windows(source, study):
        chunk.append(patient)
        if len(chunk) == STAYS_AT_ONCE:
            measuring.add(chunk)
            chunk = []
    if chunk or not measuring.patients:
        measuring.add(chunk)
    return measuring.result(source.report)


@dataclass(kw_only=True)
class _Sums:
    """Sums over the stays so far."""

    present_V: NDArray[np.int64]
    measured_VT: NDArray[np.int64]
    observed_T: NDArray[np.int64]
    histogram_VB: NDArray[np.int64]
    moments_3V: NDArray[np.float64]  # patients, sum of mean scores, sum of their squares
    outcome_patients: dict[int, int] = field(default_factory=dict)
    codes: int = 0
    unknown_codes: int = 0


class _Measuring:
    """Accumulates the measurements, some patients at a time."""

    def __init__(self, study: Study) -> None:
        self._study = study
        variables, steps = len(study.variables), study.data.steps
        self._sums = _Sums(
            present_V=np.zeros(variables, dtype=np.int64),
            measured_VT=np.zeros((variables, steps), dtype=np.int64),
            observed_T=np.zeros(steps, dtype=np.int64),
            histogram_VB=np.zeros((variables, BINS), dtype=np.int64),
            moments_3V=np.zeros((3, variables)),
        )
        self.patients = self._stays = self._inside = self._empty = self._whole = 0
        self._label_sum, self._label_count = 0.0, 0
        self._last: list[NDArray[np.float32]] = []  # (N, V) last score of each variable
        self._labels: list[NDArray[np.float32]] = []

    def add(self, patients: Iterable[Patient]) -> None:
        """Measure some patients."""
        study, sums = self._study, self._sums
        patients = list(patients)
        grid = to_grid(patients, study)
        self.patients += grid.patients
        self._stays += len(grid.y_N)
        self._whole += sum(len({stay.stay_id for stay in p.stays}) for p in patients)
        variables = len(study.variables)
        known_NTV = ~np.isnan(grid.value_NTV)
        measured_NTV = known_NTV[:, :, :variables]
        numbers_NTM = grid.value_NTV[:, :, variables:]
        sums.codes += int(np.count_nonzero(known_NTV[:, :, variables:]))
        sums.unknown_codes += int(np.count_nonzero(numbers_NTM == UNKNOWN_TOKEN))
        sums.present_V += measured_NTV.any(axis=1).sum(axis=0)
        sums.measured_VT += measured_NTV.sum(axis=0).T
        sums.observed_T += grid.mask_NT.sum(axis=0)
        self._empty += int((~known_NTV.any(axis=(1, 2))).sum())
        last_NV = np.full((len(grid.y_N), variables), np.nan, dtype=np.float32)
        for index, variable in enumerate(study.variables.values()):
            z_NT = reference_scores(grid.value_NTV[..., index], variable)
            known_NT = measured_NTV[..., index]
            bins = ((z_NT[known_NT] + CLIP) * (BINS / (2 * CLIP))).astype(np.int64)
            sums.histogram_VB[index] += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
            count_P, total_P = (
                np.bincount(grid.patient_N, weights=weights, minlength=grid.patients)
                for weights in (known_NT.sum(axis=1), np.nansum(z_NT, axis=1))
            )
            mean_P = total_P[count_P > 0] / count_P[count_P > 0]
            sums.moments_3V[:, index] += len(mean_P), mean_P.sum(), (mean_P**2).sum()
            at_N = known_NT.shape[1] - 1 - np.argmax(known_NT[:, ::-1], axis=1)
            last_NV[:, index] = z_NT[np.arange(len(z_NT)), at_N]
        self._add_outcomes(patients, grid.y_N, grid.patient_N, last_NV)

    def _add_outcomes(
        self,
        patients: list[Patient],
        y: NDArray[np.float32],
        patient_N: NDArray[np.int64],
        last_NV: NDArray[np.float32],
    ) -> None:
        if self._study.task.kind == "survival":
            y = by_each_cut(y)
        known = y[~np.isnan(y)]
        self._label_sum += float(known.sum())
        self._label_count += known.size
        task, seen = self._study.task, self._sums.outcome_patients
        rows = np.broadcast_to(patient_N.reshape(-1, *[1] * (y.ndim - 1)), y.shape)
        for outcome in range(0 if task.kind == "regression" else max(2, task.outputs)):
            labels = task.kind in ("multilabel", "survival")
            having = rows[..., outcome][y[..., outcome] == 1] if labels else rows[y == outcome]
            seen[outcome] = seen.get(outcome, 0) + len(np.unique(having))
        if task.kind == "binary" and not task.per_step:
            self._last.append(last_NV)
            self._labels.append(y)
        data = self._study.data
        if data.fixed and not task.per_step:
            self._inside += sum(
                stay.outcome_h is not None and stay.outcome_h <= data.window_h
                for patient in patients
                for stay in patient.stays
            )

    def result(self, read: ReadReport) -> Quality:
        """Return what was measured."""
        sums = self._sums
        patients_V, first_V, second_V = sums.moments_3V
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_V = first_V / patients_V
            deviation_V = np.sqrt(np.maximum(second_V / patients_V - mean_V**2, 0))
            measured_VT = sums.measured_VT / np.maximum(sums.observed_T, 1)
        return Quality(
            read=read,
            patients=self.patients,
            stays=self._stays,
            outcome_patients=np.array([n for _, n in sorted(sums.outcome_patients.items())]),
            label_mean=self._label_sum / max(1, self._label_count),
            present_V=sums.present_V / max(1, self._stays),
            measured_VT=measured_VT,
            observed_T=sums.observed_T,
            histogram_VB=sums.histogram_VB,
            score_mean_V=mean_V,
            score_deviation_V=deviation_V,
            alone_V=self._alone(),
            codes=sums.codes,
            unknown_codes=sums.unknown_codes,
            outcome_inside=self._inside,
            empty=self._empty,
            windowless=0 if self._study.data.fixed else read.stays - self._whole,
        )

    def _alone(self) -> NDArray[np.float64]:
        """Return each variable's better AUROC (V,): of its last value, or of being measured."""
        variables = len(self._study.variables)
        result_V = np.full(variables, np.nan)
        if not self._labels:
            return result_V
        y_N, last_NV = np.concatenate(self._labels), np.concatenate(self._last)
        for index in range(variables):
            known_N = ~np.isnan(last_NV[:, index])
            areas = [
                _area(y_N[known_N], last_NV[known_N, index]),
                _area(y_N, known_N.astype(np.float32)),
            ]
            known_areas = [max(area, 1 - area) for area in areas if not np.isnan(area)]
            result_V[index] = max(known_areas, default=np.nan)
        return result_V


def _area(y_N: NDArray[np.float32], score_N: NDArray[np.float32]) -> float:
    """Return the AUROC by ranks, ties counting half; NaN with under 10 stays of an outcome."""
    positive_N, negative_N = y_N == 1, y_N == 0
    positives, negatives = int(positive_N.sum()), int(negative_N.sum())
    if min(positives, negatives) < 10:
        return float("nan")
    _, rank_N, count = np.unique(score_N, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    rank_sum = float(middle[rank_N[positive_N]].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def quantiles(histogram_B: NDArray[np.int64], shares: tuple[float, ...]) -> list[float]:
    """Return the reference scores below which these shares of the values lie, to a bin's width."""
    total = int(histogram_B.sum())
    if not total:
        return [float("nan")] * len(shares)
    below_B = np.cumsum(histogram_B)
    width = 2 * CLIP / len(histogram_B)
    return [
        float((np.searchsorted(below_B, share * total) + 0.5) * width - CLIP) for share in shares
    ]
