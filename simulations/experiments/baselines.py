"""Baselines: how well models without recurrence do on the same patients.

A linear model and boosted trees on hand-made summaries are strong rivals on clinical data, so every
comparison has both. Their settings are chosen on folds of the training patients, by person.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.features import TimeGrid
from consilium.client.records.statistics import patient_contributions
from consilium.shared.errors import DataError
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import Study
from consilium.simulations.experiments.boosting import fit_boosted
from consilium.simulations.experiments.linear import fit_linear
from consilium.simulations.experiments.rivals import BOOSTING, HAZARD, LOGISTIC, RIDGE
from consilium.simulations.experiments.summaries import stay_features, step_features

Scores = NDArray[np.float64]
Baseline = Callable[[TimeGrid, TimeGrid], Scores]
Fit = Callable[..., Any]
"""From inputs, outcomes and persons of rows to a fitted model of scikit-learn's kind."""
_ALIKE = "the training labels are all alike, so nothing can be learned; check them"

MOST_ROWS = 20_000  # of more steps than this, so many are drawn at random before fitting


def baselines(study: Study, constant: Mapping[str, float]) -> dict[str, Baseline]:
    """Return the baselines of a study by name: functions from training and test grid to scores.

    Args:
        study: its task decides.
        constant: values that a naive forecast predicts for everybody, by the forecast's name.
    """
    linear = {"regression": RIDGE, "survival": HAZARD}.get(study.task.kind, LOGISTIC)
    naive = {name: partial(_constant, value=value, study=study) for name, value in constant.items()}
    return {
        **naive,
        linear: partial(linear_model, study=study),
        BOOSTING: partial(boosted_trees, study=study),
    }


def linear_model(train: TimeGrid, test: TimeGrid, study: Study) -> Scores:
    """Return scores (N, K), or (N, T, K) per step, of the test stays, by a linear model.

    Raises:
        DataError: the training labels are all the same.
    """
    return _scores(_rows(train, test, study), study, fit_linear)


def boosted_trees(train: TimeGrid, test: TimeGrid, study: Study) -> Scores:
    """Return scores (N, K), or (N, T, K) per step, of the test stays, by gradient boosting.

    Raises:
        DataError: the training labels are all the same.
    """
    fit = partial(fit_boosted, outputs=study.task.outputs)
    return _scores(_rows(train, test, study), study, fit)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Rows to fit to, and the test's: of stays, or of their observed steps.

    ``truth`` is (R,), or (R, K) for several labels or targets; ``place`` says which stays (N,), or
    steps of stays (N, T), of the test are rows of ``test_RF``.
    """

    train_RF: NDArray[np.floating]
    truth: NDArray[np.float32]
    patient_R: NDArray[np.int64]
    test_RF: NDArray[np.floating]
    place: NDArray[np.bool_]


def _rows(train: TimeGrid, test: TimeGrid, study: Study) -> _Rows:
    known = _known(train.y_N, study)
    if not study.task.per_step:
        return _Rows(
            train_RF=stay_features(train, study)[known],
            truth=train.y_N[known],
            patient_R=train.patient_N[known],
            test_RF=stay_features(test, study),
            place=np.ones(len(test.y_N), dtype=np.bool_),
        )
    stay_R, step_R = np.nonzero(known & train.mask_NT)
    if len(stay_R) > MOST_ROWS:
        stream = np.random.default_rng(study.seed)
        drawn = np.sort(stream.choice(len(stay_R), MOST_ROWS, replace=False))
        stay_R, step_R = stay_R[drawn], step_R[drawn]
    normalisation = Normalisation.from_sums(patient_contributions(train, study).sum(axis=0), study)
    return _Rows(
        train_RF=step_features(train, normalisation, study, stay_R, step_R),
        truth=train.y_N[stay_R, step_R],
        patient_R=train.patient_N[stay_R],
        test_RF=step_features(test, normalisation, study, *np.nonzero(test.mask_NT)),
        place=test.mask_NT,
    )


def _known(y: NDArray[np.float32], study: Study) -> NDArray[np.bool_]:
    several = y.ndim > (2 if study.task.per_step else 1)
    return np.asarray(~np.isnan(y).all(axis=-1) if several else ~np.isnan(y))


def _scores(rows: _Rows, study: Study, fit: Fit) -> Scores:
    """Return scores of every stay, or step, by one model for all classes or one for each output.

    A step at which the stay was not observed has score 0.
    """
    scores = np.zeros((*rows.place.shape, study.task.outputs))
    if study.task.kind == "multiclass":
        class_R = rows.truth.astype(np.int64)
        scores[rows.place] = _fitted(rows, slice(None), class_R, study, fit)
        return scores
    if study.task.kind == "survival":
        return _risks(rows, study, fit)
    truth_RK = rows.truth.reshape(len(rows.truth), -1)
    known_RK = ~np.isnan(truth_RK)
    varied = [len(np.unique(truth_RK[known_RK[:, k], k])) > 1 for k in range(truth_RK.shape[1])]
    if not any(varied):
        raise DataError(_ALIKE)
    for number, varies in enumerate(varied):
        chosen_R = np.flatnonzero(known_RK[:, number])
        truth_R = truth_RK[chosen_R, number]
        if varies:
            scores[rows.place, number] = _fitted(rows, chosen_R, truth_R, study, fit)[:, -1]
        elif len(truth_R):  # one of several outputs of which nothing can be learned
            scores[rows.place, number] = truth_R[0]
    return scores


def _risks(rows: _Rows, study: Study, fit: Fit) -> Scores:
    """Return risks by each cut (N, K), by one model of the hazards of all intervals.

    An interval that a patient was seen through, or had the event in, is a row; beside the
    summaries the rows read which interval it is (D'Agostino et al. 1990, Stat Med 9:1501).
    """
    row_E, interval_E = np.nonzero(~np.isnan(rows.truth))
    which_KK = np.eye(rows.truth.shape[1])
    label_E = rows.truth[row_E, interval_E]
    if len(np.unique(label_E)) < 2:
        raise DataError(_ALIKE)
    read_EF = np.concatenate([rows.train_RF[row_E], which_KK[interval_E]], axis=1)
    model = fit(read_EF, label_E, rows.patient_R[row_E], classes=True, seed=study.seed)
    left_N, columns = np.ones(len(rows.test_RF)), []
    for which_K in which_KK:
        seen_NF = np.tile(which_K, (len(rows.test_RF), 1))
        read_NF = np.concatenate([rows.test_RF, seen_NF], axis=1)
        left_N = left_N * (1 - model.predict_proba(read_NF)[:, 1])
        columns.append(1 - left_N)
    return np.stack(columns, axis=1).astype(np.float64)


def _fitted(
    rows: _Rows,
    chosen: NDArray[np.int64] | slice,
    truth_R: NDArray[np.float32] | NDArray[np.int64],
    study: Study,
    fit: Fit,
) -> Scores:
    """Fit to the chosen rows; return chances (R, K) of the test's, or predicted values (R, 1)."""
    classes = study.task.kind != "regression"
    if len(np.unique(truth_R)) < 2:
        raise DataError(_ALIKE)
    model = fit(
        rows.train_RF[chosen], truth_R, rows.patient_R[chosen], classes=classes, seed=study.seed
    )
    if not classes:
        return np.asarray(model.predict(rows.test_RF), dtype=np.float64)[:, None]
    chances = np.asarray(model.predict_proba(rows.test_RF), dtype=np.float64)
    if study.task.kind != "multiclass":
        return chances
    scores_RK = np.zeros((len(chances), study.task.outputs))  # 0 for a class not in training
    scores_RK[:, model.classes_] = chances
    return scores_RK


def _constant(train: TimeGrid, test: TimeGrid, *, value: float, study: Study) -> Scores:
    """Predict the same value for every stay or step: scores (N, K) or (N, T, K)."""
    del train
    places = test.y_N.shape[: 2 if study.task.per_step else 1]
    return np.full((*places, study.task.outputs), value)
