"""Test figures for each kind of task: scores against the truth, with weighted rows.

A measure is made once from scores and truth: it sorts and compares them. Then its figures are
computed under many weightings of the rows, which makes a bootstrap of large cohorts fast.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consilium.shared.study.training import Task

FIGURES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "binary": ("auroc", "auprc", "brier", "accuracy"),
        "multilabel": ("auroc", "auprc", "brier", "accuracy"),
        "multiclass": ("accuracy", "mean_sensitivity", "auroc"),
        "regression": ("mae", "rmse", "r2"),
        "survival": ("c_index", "nll"),
    }
)
"""Names of the figures of each kind of task; the first is quoted where there is room for one."""

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "auroc": "AUROC",
        "auprc": "AUPRC",
        "brier": "Brier",
        "accuracy": "accuracy",
        "mean_sensitivity": "sensitivity",
        "mae": "MAE",
        "rmse": "RMSE",
        "r2": "R2",
        "c_index": "C-index",
        "nll": "negative log-likelihood",
    }
)


_LEAST_CHANCE = 1e-12


class Measure(Protocol):
    """Scores and truth of R rows; gives figures under any weights of the rows."""

    def values(self, weight_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the figures in the order of ``FIGURES``; NaN where one is undefined."""


def measure_of(task: Task, scores_RK: NDArray[np.float64], truth: NDArray[np.float32]) -> Measure:
    """Return the measure of a kind of task.

    Args:
        task: its kind decides which measure.
        scores_RK: risks in [0, 1], or predicted values.
        truth: (R,), or (R, K) for several labels or targets; NaN where it is not known.
    """
    if task.kind == "multiclass":
        return Classes(scores_RK, truth.astype(np.int64))
    truth_RK = truth.reshape(scores_RK.shape).astype(np.float64)
    if task.kind == "regression":
        return Errors(scores_RK, truth_RK)
    if task.kind == "survival":
        return Survival(scores_RK, truth_RK)
    return SeveralRisks(scores_RK, truth_RK)


class SeveralRisks:
    """The figures of :class:`Risks`: the mean over outputs, each over its known rows."""

    def __init__(self, scores_RK: NDArray[np.float64], truth_RK: NDArray[np.float64]) -> None:
        known_RK = ~np.isnan(truth_RK)
        self._known = [np.flatnonzero(known_R) for known_R in known_RK.T]
        self._risks = [
            Risks(score_R[rows], truth_R[rows] == 1)
            for score_R, truth_R, rows in zip(scores_RK.T, truth_RK.T, self._known, strict=True)
        ]

    def values(self, weight_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`Measure`; an output whose rows all have the same outcome does not count."""
        each = np.array(
            [
                risks.values(weight_R[rows])
                for risks, rows in zip(self._risks, self._known, strict=True)
            ]
        )
        defined = ~np.isnan(each)
        sums = np.where(defined, each, 0.0).sum(axis=0)
        counts = defined.sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


class Risks:
    """AUROC, average precision, Brier score and accuracy of one binary outcome.

    In the AUROC a tie counts one half; accuracy is that of the more likely outcome.
    """

    def __init__(self, risk_R: NDArray[np.floating], outcome_R: NDArray[np.bool_]) -> None:
        self._order_R = np.argsort(-risk_R, kind="stable")
        sorted_R = risk_R[self._order_R]
        self._last_of_tie_R = np.append(sorted_R[1:] != sorted_R[:-1], True)[: len(sorted_R)]
        self._outcome_R = outcome_R[self._order_R]
        self._error_R = (sorted_R - self._outcome_R) ** 2
        self._right_R = (sorted_R >= 0.5) == self._outcome_R

    def values(self, weight_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`Measure`."""
        weight_R = weight_R[self._order_R]
        positive_R = weight_R * self._outcome_R
        true_L = np.cumsum(positive_R)[self._last_of_tie_R]
        false_L = np.cumsum(weight_R - positive_R)[self._last_of_tie_R]
        if not len(true_L) or true_L[-1] <= 0 or false_L[-1] <= 0:
            return np.full(4, np.nan)
        gained_L = np.diff(true_L, prepend=0.0)
        alarms_L = np.diff(false_L, prepend=0.0)
        pairs = np.sum(alarms_L * (true_L - gained_L / 2))
        precision_L = true_L / np.maximum(true_L + false_L, 1e-12)
        return np.array(
            (
                pairs / (true_L[-1] * false_L[-1]),
                np.sum(precision_L * gained_L) / true_L[-1],
                np.sum(weight_R * self._error_R) / np.sum(weight_R),
                np.sum(weight_R * self._right_R) / np.sum(weight_R),
            )
        )


class Survival:
    """C-index of the risk by the horizon, and mean negative log-likelihood of the hazards.

    The C-index is :func:`consilium.shared.figures.survival_counts`'s with a bin for each risk.
    """

    def __init__(self, risk_RK: NDArray[np.float64], label_RK: NDArray[np.float64]) -> None:
        self._known_RK = ~np.isnan(label_RK)
        self._came_RK = label_RK == 1
        _, self._bin_R = np.unique(risk_RK[:, -1], return_inverse=True)
        before_RK = np.concatenate([np.zeros_like(risk_RK[:, :1]), risk_RK[:, :-1]], axis=1)
        left_RK = np.maximum(1 - before_RK, _LEAST_CHANCE)
        hazard_RK = np.clip((risk_RK - before_RK) / left_RK, _LEAST_CHANCE, 1 - _LEAST_CHANCE)
        chance_RK = np.where(self._came_RK, hazard_RK, 1 - hazard_RK)
        self._loss_R = np.where(self._known_RK, -np.log(chance_RK), 0.0).sum(axis=1)

    def values(self, weight_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`Measure`."""
        right = pairs = 0.0
        for known_R, came_R in zip(self._known_RK.T, self._came_RK.T, strict=True):
            bins = int(self._bin_R.max()) + 1
            lived_B = np.bincount(
                self._bin_R, weights=weight_R * (known_R & ~came_R), minlength=bins
            )
            came_B = np.bincount(self._bin_R, weights=weight_R * came_R, minlength=bins)
            right += float((came_B * (np.cumsum(lived_B) - 0.5 * lived_B)).sum())
            pairs += float(came_B.sum() * lived_B.sum())
        concordance = right / pairs if pairs > 0 else np.nan
        return np.array(
            (concordance, (weight_R * self._loss_R).sum() / max(weight_R.sum(), 1e-300))
        )


class Classes:
    """Accuracy, mean sensitivity over the classes that occur, and mean one-against-rest AUROC."""

    def __init__(self, scores_RK: NDArray[np.float64], class_R: NDArray[np.int64]) -> None:
        self._classes = scores_RK.shape[1]
        self._class_R = class_R
        self._cell_R = class_R * self._classes + scores_RK.argmax(axis=1)
        self._risks = [
            Risks(scores_RK[:, number], class_R == number) for number in range(self._classes)
        ]

    def values(self, weight_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`Measure`."""
        table_KK = self.confusion(weight_R)
        occurs_K = table_KK.sum(axis=1) > 0
        if not occurs_K.any():
            return np.full(3, np.nan)
        auroc_K = np.array([risks.values(weight_R)[0] for risks in self._risks])
        return np.array(
            (
                np.trace(table_KK) / table_KK.sum(),
                self.sensitivities(weight_R)[occurs_K].mean(),
                np.nanmean(auroc_K) if not np.isnan(auroc_K).all() else np.nan,
            )
        )

    def confusion(self, weight_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weight of rows (K, K) by true class (first axis) and most likely class."""
        size = self._classes**2
        flat = np.bincount(self._cell_R, weights=weight_R, minlength=size).astype(np.float64)
        return flat.reshape(self._classes, self._classes)

    def sensitivities(self, weight_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of each class recognised (K,); NaN for a class that does not occur."""
        table_KK = self.confusion(weight_R)
        occurring_K = table_KK.sum(axis=1)
        return np.where(
            occurring_K > 0, np.diag(table_KK) / np.maximum(occurring_K, 1e-300), np.nan
        )


class Errors:
    """Mean absolute error, root of the mean squared error, and R squared, over known targets."""

    def __init__(self, scores_RK: NDArray[np.float64], truth_RK: NDArray[np.float64]) -> None:
        self._known_RK = ~np.isnan(truth_RK)
        self._truth_RK = np.where(self._known_RK, truth_RK, 0.0)
        self._error_RK = np.where(self._known_RK, scores_RK - truth_RK, 0.0)

    def values(self, weight_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`Measure`; R squared is the mean over targets of 1 - error / variance."""
        weight_RK = weight_R[:, None] * self._known_RK
        total_K = weight_RK.sum(axis=0)
        if not (total_K > 0).all():
            return np.full(3, np.nan)
        squared_K = (weight_RK * self._error_RK**2).sum(axis=0) / total_K
        mean_K = (weight_RK * self._truth_RK).sum(axis=0) / total_K
        variance_K = (weight_RK * (self._truth_RK - mean_K) ** 2).sum(axis=0) / total_K
        explained_K = np.where(
            variance_K > 0, 1 - squared_K / np.maximum(variance_K, 1e-300), np.nan
        )
        absolute = (weight_RK * np.abs(self._error_RK)).sum() / total_K.sum()
        return np.array((absolute, np.sqrt(squared_K.mean()), explained_K.mean()))
