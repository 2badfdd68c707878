"""Gradient boosting of trees, the rival that is hardest to beat on tables of summaries.

scikit-learn's HistGradientBoosting (after Ke et al. 2017, LightGBM). How large its trees are, how
far each goes, and how many there are is chosen on folds of the training patients. The candidates
were found on such folds of the heart and intensive-care studies: small trees are better on 600
persons, larger ones on 4,000.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from consilium.simulations.experiments.inner_folds import Fold, inner_folds
from consilium.simulations.experiments.linear import log_loss_of_known

CANDIDATES = ((4, 0.1, 20), (12, 0.05, 40), (31, 0.05, 40))  # leaves, learning rate, rows in a leaf
COLUMNS = 0.3  # share of the inputs that a split may choose among
Candidate = tuple[int, float, int]
MOST_TREES = 200  # of each output or class
MOST_IN_ALL = 600  # trees of all outputs in one fit: many outputs get fewer each
MOST_FOLDED = 8_000  # rows; of more, settings are judged on one fold alone, for the time it takes
_FEWEST_TREES = 20


def fit_boosted(
    train_RF: NDArray[np.floating],
    truth_R: NDArray[np.floating] | NDArray[np.int64],
    patient_R: NDArray[np.int64],
    *,
    classes: bool,
    seed: int,
    outputs: int = 1,
) -> Any:
    """Return boosted trees; a missing value is a branch of its own in every tree.

    If the persons are too few for folds, few small trees are taken.

    Args:
        train_RF: the inputs, NaN where one is missing.
        truth_R: the classes, or the values to predict.
        patient_R: the person of each row.
        classes: whether outcomes are classes.
        seed: of the folds and of the inputs that splits choose among.
        outputs: how many outputs of the task are fitted in all; bounds the number of trees.
    """
    most = max(_FEWEST_TREES, min(MOST_TREES, MOST_IN_ALL // outputs))
    folds = inner_folds(truth_R, patient_R, classes=classes, seed=seed)
    if len(truth_R) > MOST_FOLDED:
        folds = folds[:1]
    best, trees = CANDIDATES[0], _FEWEST_TREES
    least = np.inf
    for candidate in CANDIDATES if folds else ():
        loss = np.mean(
            [_losses(train_RF, truth_R, fold, classes, seed, candidate, most) for fold in folds],
            axis=0,
        )
        if loss.min() < least:
            least, best, trees = loss.min(), candidate, int(loss.argmin()) + 1
    return _fitted(_model(classes, seed, best, trees), train_RF, truth_R)


def _losses(
    train_RF: NDArray[np.floating],
    truth_R: NDArray[np.floating] | NDArray[np.int64],
    fold: Fold,
    classes: bool,
    seed: int,
    candidate: Candidate,
    most: int,
) -> list[float]:
    """Return the loss on a fold's held-out rows after each tree."""
    fitted_to, judged_on = fold
    model = _fitted(_model(classes, seed, candidate, most), train_RF[fitted_to], truth_R[fitted_to])
    judged_RF, true_R = train_RF[judged_on], truth_R[judged_on]
    if classes:
        stages = model.staged_predict_proba(judged_RF)
        return [log_loss_of_known(chances, true_R, model.classes_) for chances in stages]
    return [float(((values - true_R) ** 2).mean()) for values in model.staged_predict(judged_RF)]


def _fitted(
    model: HistGradientBoostingClassifier | HistGradientBoostingRegressor,
    train_RF: NDArray[np.floating],
    truth_R: NDArray[np.floating] | NDArray[np.int64],
) -> HistGradientBoostingClassifier | HistGradientBoostingRegressor:
    """Fit the model; an input that no row has is a constant, since scikit-learn cannot bin it."""
    return model.fit(np.where(np.isnan(train_RF).all(axis=0), 0, train_RF), truth_R)


def _model(
    classes: bool, seed: int, candidate: Candidate, trees: int
) -> HistGradientBoostingClassifier | HistGradientBoostingRegressor:
    leaves, rate, rows = candidate
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    return kind(
        max_leaf_nodes=leaves,
        learning_rate=rate,
        max_iter=trees,
        min_samples_leaf=rows,
        max_features=COLUMNS,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed % 2**32,
    )
