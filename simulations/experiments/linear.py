"""Logistic and ridge regression, their penalty chosen on folds of the training patients."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from consilium.simulations.experiments.inner_folds import inner_folds

INVERSE_PENALTIES = (0.001, 0.01, 0.1)  # of the L2 penalty, as scikit-learn counts it
RIDGE_PENALTIES = (1000.0, 100.0, 10.0)


def fit_linear(
    train_RF: NDArray[np.floating],
    truth_R: NDArray[np.floating] | NDArray[np.int64],
    patient_R: NDArray[np.int64],
    *,
    classes: bool,
    seed: int,
) -> Any:
    """Return a linear model on standardised inputs; a missing value counts as the mean.

    If the persons are too few for folds, the strongest penalty is taken.

    Args:
        train_RF: the inputs, NaN where one is missing.
        truth_R: the classes, or the values to predict.
        patient_R: the person of each row.
        classes: whether outcomes are classes.
        seed: of the folds.
    """
    model: LogisticRegression | Ridge = (
        LogisticRegression(C=INVERSE_PENALTIES[0], max_iter=300, tol=1e-3)
        if classes
        else Ridge(RIDGE_PENALTIES[0])
    )
    pipeline = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), model)
    folds = inner_folds(truth_R, patient_R, classes=classes, seed=seed)
    if not folds:
        return pipeline.fit(train_RF, truth_R)
    search = GridSearchCV(
        pipeline,
        {"logisticregression__C": INVERSE_PENALTIES}
        if classes
        else {"ridge__alpha": RIDGE_PENALTIES},
        cv=folds,
        scoring=_log_loss_of_known if classes else "neg_mean_squared_error",
    )
    return search.fit(train_RF, truth_R)


def _log_loss_of_known(
    model: Pipeline, test_RF: NDArray[np.floating], class_R: NDArray[np.floating]
) -> float:
    """Return minus the mean log loss; a class missing in the fold's training has probability 0."""
    return -log_loss_of_known(model.predict_proba(test_RF), class_R, model.classes_)


def log_loss_of_known(
    chances_RK: NDArray[np.floating],
    class_R: NDArray[np.floating] | NDArray[np.int64],
    classes_K: NDArray[np.floating] | NDArray[np.int64],
) -> float:
    """Return the mean log loss of chances of the classes K; other classes have chance 0."""
    found_RK = class_R[:, None] == classes_K
    return -float(np.log(np.maximum((chances_RK * found_RK).sum(axis=1), 1e-9)).mean())
