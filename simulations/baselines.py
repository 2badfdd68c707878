"""Baselines: what a model without recurrence reaches on the same patients.

Logistic regression on per-variable summaries (mean, least, greatest, last, count) is a strong
rival on intensive-care data; no table of ours stands without it.

Legend: N stays, V variables, S summaries.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from client.features import Grid
from shared.errors import DataError
from shared.normalisation import reference_scores
from shared.study import Study

INVERSE_PENALTY = 0.01  # of the L2 penalty, chosen by cross-validation within set-a


def summary_features(grid: Grid, study: Study) -> NDArray[np.float64]:
    """Per stay and variable the mean, least, greatest and last reference score, and the count.

    Returns:
        (N, S) float64, NaN where a variable was never measured (its count is 0).
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


def logistic_regression(train: Grid, test: Grid, study: Study) -> NDArray[np.float64]:
    """Scores (N,) of the test stays by a logistic regression fitted to the training stays.

    Never-measured variables take the training mean.

    Raises:
        DataError: the task is not binary, or the training labels are all alike.
    """
    if study.task.kind != "binary" or study.task.per_step:
        raise DataError(
            f"logistic regression is a baseline for binary tasks, not {study.task.kind}"
            f"{' per step' if study.task.per_step else ''}; leave it out"
        )
    if len(np.unique(train.y_N)) < 2:
        raise DataError("the training labels are all alike, so nothing can be learned; check them")
    train_NS, test_NS = summary_features(train, study), summary_features(test, study)
    known_NS = ~np.isnan(train_NS)
    mean_S = np.where(known_NS, train_NS, 0).sum(axis=0) / np.maximum(known_NS.sum(axis=0), 1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=2000))
    model.fit(np.where(known_NS, train_NS, mean_S), train.y_N)
    scores_N2 = model.predict_proba(np.where(np.isnan(test_NS), mean_S, test_NS))
    return np.asarray(scores_N2[:, 1], dtype=np.float64)
