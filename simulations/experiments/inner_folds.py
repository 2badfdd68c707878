"""Folds of the training patients, within which a rival's settings are chosen.

Guarantee: all rows of a person are in one fold, so no setting is judged on a person whose other
rows it was fitted to.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

FOLDS = 3
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def inner_folds(
    truth_R: NDArray[np.floating] | NDArray[np.int64],
    patient_R: NDArray[np.int64],
    *,
    classes: bool,
    seed: int,
) -> list[Fold]:
    """Return at most three folds: rows to fit to, rows to judge on.

    Args:
        truth_R: the outcome of each row.
        patient_R: the person of each row.
        classes: whether outcomes are classes, whose shares are kept alike in all folds.
        seed: of the folds' drawing.

    Returns:
        The folds; none if the persons, or those of the second most frequent class, are too few.
    """
    persons = len(np.unique(patient_R))
    if not classes:
        folds = min(FOLDS, persons)
        if folds < 2:
            return []
        found = GroupKFold(folds, shuffle=True, random_state=seed).split(truth_R, groups=patient_R)
        return list(found)
    of_class = [len(np.unique(patient_R[truth_R == one])) for one in np.unique(truth_R)]
    folds = min(FOLDS, persons, sorted(of_class)[-2] if len(of_class) > 1 else 0)
    if folds < 2:
        return []
    kind = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class of fewer rows than folds is no mistake: it cannot be in all of them.
        warnings.simplefilter("ignore", UserWarning)
        found = list(kind.split(np.zeros((len(truth_R), 1)), truth_R, patient_R))
    return [one for one in found if len(one[1]) and len(np.unique(truth_R[one[0]])) > 1]
