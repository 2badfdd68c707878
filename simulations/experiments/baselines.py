"""Baselines: how well models without recurrence do on the same patients.

A linear model on hand-made summaries is a strong rival on clinical data, so every comparison has
one. For whole stays it reads summaries of each variable and counts of codes; for steps, the same
inputs that the recurrent network reads at that step. Its penalty is chosen by cross-validation over
patients within the training records.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from consilium.client.records.features import TimeGrid, to_tensors
from consilium.client.records.statistics import patient_contributions
from consilium.shared.errors import DataError
from consilium.shared.model.normalisation import Normalisation, reference_scores
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import UNKNOWN_TOKEN, token_names, token_numbers

Scores = NDArray[np.float64]
Baseline = Callable[[TimeGrid, TimeGrid], Scores]

INVERSE_PENALTIES = (0.001, 0.01, 0.1)  # of the L2 penalty, as scikit-learn counts it
RIDGE_PENALTIES = (10.0, 100.0, 1000.0)
MOST_ROWS = 20_000  # of more steps than this, so many are drawn at random before fitting
MOST_FLAT = 256  # values of a sequence (positions times variables), up to which it is read whole
_FOLDS = 3


def baselines(study: Study, constant: Mapping[str, float]) -> dict[str, Baseline]:
    """Return the baselines of a study by name: functions from training and test grid to scores.

    Args:
        study: its task decides.
        constant: values that a naive forecast predicts for everybody, by the forecast's name.
    """
    linear = {"regression": "ridge-regression", "survival": "logistic-hazard-regression"}.get(
        study.task.kind, "logistic-regression"
    )
    naive = {name: partial(_constant, value=value, study=study) for name, value in constant.items()}
    return {**naive, linear: partial(linear_model, study=study)}


def linear_model(train: TimeGrid, test: TimeGrid, study: Study) -> Scores:
    """Return scores (N, K), or (N, T, K) per step, of the test stays, by a linear model.

    It is fitted to ``train``; a missing value counts as the training mean.

    Raises:
        DataError: the training labels are all the same.
    """
    if study.task.per_step:
        inputs, test_inputs = _step_inputs(train, test, study)
        known_NT = _known(train.y_N, study) & train.mask_NT
        rows = np.flatnonzero(known_NT.ravel())
        stream = np.random.default_rng(study.seed)
        if len(rows) > MOST_ROWS:
            rows = np.sort(stream.choice(rows, MOST_ROWS, replace=False))
        truth = train.y_N.reshape(known_NT.size, *train.y_N.shape[2:])[rows]
        patient_R = np.repeat(train.patient_N, known_NT.shape[1])[rows]
        flat = inputs.reshape(-1, inputs.shape[-1])[rows]
        scores = _fit_predict(
            flat, truth, patient_R, test_inputs.reshape(-1, inputs.shape[-1]), study
        )
        return scores.reshape(*test.mask_NT.shape, -1)
    rows = np.flatnonzero(_known(train.y_N, study))
    features_NF = stay_features(train, study)[rows]
    return _fit_predict(
        features_NF, train.y_N[rows], train.patient_N[rows], stay_features(test, study), study
    )


def stay_features(grid: TimeGrid, study: Study) -> NDArray[np.float64]:
    """Return each stay's summaries of its variables and counts of its codes (N, F).

    A short sequence whose steps are positions is also read value by value: position 30 of a heart
    beat always means the same.
    """
    parts = [summary_features(grid, study)]
    steps, variables = grid.value_NTV.shape[1], len(study.variables)
    if study.data.clock == "position" and steps * variables <= MOST_FLAT and study.tokens is None:
        parts.append(grid.value_NTV[:, :, :variables].reshape(len(grid.y_N), -1).astype(np.float64))
    if study.tokens is not None:
        parts.append(code_counts(grid, study))
    return np.concatenate(parts, axis=1)


def code_counts(grid: TimeGrid, study: Study) -> NDArray[np.float64]:
    """Return log(1 + count) of each code in each stay, and of all unknown codes (N, codes)."""
    return codes_so_far(grid, study)[:, -1].astype(np.float64)


def codes_so_far(grid: TimeGrid, study: Study) -> NDArray[np.float32]:
    """Return log(1 + count so far) of each code at each step, unknown ones too (N, T, codes)."""
    lines = len(token_numbers(study)) + UNKNOWN_TOKEN
    number_NTM = grid.value_NTV[:, :, -len(token_names(study)) :]
    counts = np.zeros((*number_NTM.shape[:2], lines), dtype=np.float32)
    stay_E, step_E, column_E = np.nonzero(~np.isnan(number_NTM))
    line_E = number_NTM[stay_E, step_E, column_E].astype(np.int64) - UNKNOWN_TOKEN
    np.add.at(counts, (stay_E, step_E, line_E), 1)
    return np.log1p(np.cumsum(counts, axis=1, out=counts))


def summary_features(grid: TimeGrid, study: Study) -> NDArray[np.float64]:
    """Return mean, least, greatest and last reference score, and count, by stay and variable.

    Returns:
        (N, F) float64, NaN where a variable was never measured (its count is 0).
    """
    columns: list[NDArray[np.float64]] = []
    for index, variable in enumerate(study.variables.values()):
        z_NT = reference_scores(grid.value_NTV[:, :, index], variable).astype(np.float64)
        known_NT = ~np.isnan(z_NT)
        count_N = known_NT.sum(axis=1)
        never_N = count_N == 0
        last_N = np.where(known_NT, np.arange(z_NT.shape[1]), -1).max(axis=1)
        summaries = (
            np.where(known_NT, z_NT, 0).sum(axis=1) / np.maximum(count_N, 1),
            np.where(known_NT, z_NT, np.inf).min(axis=1),
            np.where(known_NT, z_NT, -np.inf).max(axis=1),
            z_NT[np.arange(len(z_NT)), last_N],
        )
        columns.extend(np.where(never_N, np.nan, summary) for summary in summaries)
        columns.append(count_N.astype(np.float64))
    return np.stack(columns, axis=1)


def _step_inputs(
    train: TimeGrid, test: TimeGrid, study: Study
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the recurrent network's inputs at each step, and counts of the codes so far."""
    normalisation = Normalisation.from_sums(patient_contributions(train, study).sum(axis=0), study)
    codes = len(token_names(study))
    both = [to_tensors(grid, normalisation, study).x_NTF.numpy() for grid in (train, test)]
    train_NTF, test_NTF = (x_NTF[..., : x_NTF.shape[2] - codes] for x_NTF in both)
    if not codes:
        return train_NTF, test_NTF
    counts = [codes_so_far(grid, study) for grid in (train, test)]
    return (
        np.concatenate([train_NTF, counts[0]], axis=2),
        np.concatenate([test_NTF, counts[1]], axis=2),
    )


def _known(y: NDArray[np.float32], study: Study) -> NDArray[np.bool_]:
    several = y.ndim > (2 if study.task.per_step else 1)
    return np.asarray(~np.isnan(y).all(axis=-1) if several else ~np.isnan(y))


def _fit_predict(
    train_RF: NDArray[np.floating],
    truth: NDArray[np.float32],
    patient_R: NDArray[np.int64],
    test_RF: NDArray[np.floating],
    study: Study,
) -> Scores:
    """Return scores (R, K) of the test rows, by a model for each output or one for all classes."""
    known_RF = ~np.isnan(train_RF)
    mean_F = np.where(known_RF, train_RF, 0).sum(axis=0) / np.maximum(known_RF.sum(axis=0), 1)
    train_RF = np.where(known_RF, train_RF, mean_F)
    test_RF = np.where(np.isnan(test_RF), mean_F, test_RF)
    if study.task.kind == "multiclass":
        return _classes(train_RF, truth, patient_R, test_RF, study.task.outputs)
    if study.task.kind == "survival":
        return _hazards(train_RF, truth, patient_R, test_RF)
    columns = []
    for truth_R in truth.reshape(len(truth), -1).T:
        rows = np.flatnonzero(~np.isnan(truth_R))
        if len(np.unique(truth_R[rows])) < 2:
            raise DataError(
                "the training labels are all alike, so nothing can be learned; check them"
            )
        if study.task.kind == "regression":
            model = _searched(Ridge(), "ridge__alpha", RIDGE_PENALTIES)
        else:
            model = _searched(_logistic(), "logisticregression__C", INVERSE_PENALTIES)
        model.fit(train_RF[rows], truth_R[rows], groups=patient_R[rows])
        columns.append(
            model.predict(test_RF)
            if study.task.kind == "regression"
            else model.predict_proba(test_RF)[:, 1]
        )
    return np.stack(columns, axis=1).astype(np.float64)


def _classes(
    train_RF: NDArray[np.floating],
    class_R: NDArray[np.float32],
    patient_R: NDArray[np.int64],
    test_RF: NDArray[np.floating],
    classes: int,
) -> Scores:
    """Return probabilities (R, K) by multinomial regression; 0 for a class not in training."""
    model = _searched(_logistic(), "logisticregression__C", INVERSE_PENALTIES)
    model.fit(train_RF, class_R.astype(np.int64), groups=patient_R)
    scores_RK = np.zeros((len(test_RF), classes))
    scores_RK[:, model.classes_] = model.predict_proba(test_RF)
    return scores_RK


def _hazards(
    train_RF: NDArray[np.floating],
    label_RK: NDArray[np.float32],
    patient_R: NDArray[np.int64],
    test_RF: NDArray[np.floating],
) -> Scores:
    """Return risks by each cut (R, K), by one logistic regression of the hazards of all intervals.

    An interval that a patient was seen through, or had the event in, is a row; beside the
    summaries the rows read which interval it is (D'Agostino et al. 1990, Stat Med 9:1501).
    """
    row_E, interval_E = np.nonzero(~np.isnan(label_RK))
    which_KK = np.eye(label_RK.shape[1])
    model = _searched(_logistic(), "logisticregression__C", INVERSE_PENALTIES)
    read_EF = np.concatenate([train_RF[row_E], which_KK[interval_E]], axis=1)
    model.fit(read_EF, label_RK[row_E, interval_E], groups=patient_R[row_E])
    left_R, columns = np.ones(len(test_RF)), []
    for which_K in which_KK:
        rows_RF = np.concatenate([test_RF, np.tile(which_K, (len(test_RF), 1))], axis=1)
        left_R = left_R * (1 - model.predict_proba(rows_RF)[:, 1])
        columns.append(1 - left_R)
    return np.stack(columns, axis=1).astype(np.float64)


def _searched(
    model: LogisticRegression | Ridge, name: str, values: tuple[float, ...]
) -> GridSearchCV:
    """Return the model on standardised inputs; cross-validation over patients picks its penalty."""
    pipeline = make_pipeline(StandardScaler(), model)
    linear = isinstance(model, Ridge)
    return GridSearchCV(
        pipeline,
        {name: values},
        cv=GroupKFold(_FOLDS) if linear else StratifiedGroupKFold(_FOLDS),
        scoring="neg_mean_squared_error" if linear else _log_loss_of_known,
    )


def _logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=300, tol=1e-3)


def _log_loss_of_known(
    model: Pipeline, test_RF: NDArray[np.floating], class_R: NDArray[np.floating]
) -> float:
    """Return minus the mean log loss; a class missing in the fold's training has probability 0."""
    chances_RK = model.predict_proba(test_RF)
    found_RK = class_R[:, None] == model.classes_
    return float(np.log(np.maximum((chances_RK * found_RK).sum(axis=1), 1e-9)).mean())


def _constant(train: TimeGrid, test: TimeGrid, *, value: float, study: Study) -> Scores:
    """Predict the same value for every stay or step: scores (N, K) or (N, T, K)."""
    del train
    places = test.y_N.shape[: 2 if study.task.per_step else 1]
    return np.full((*places, study.task.outputs), value)
