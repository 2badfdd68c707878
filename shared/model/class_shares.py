"""Shares of classes and labels, privately counted; weights in the training loss are made of them.

With ``[task.loss] balance`` each patient's contribution to the statistics is longer by the classes
of the patient's labels: of a multi-class task the share of the rows in each of K classes, otherwise
for each of K labels whether it was ever known and the share of its rows in which it was present.
They leave with the statistics, under the same clip and the same noise, and are charged with them.
"""

import math

import numpy as np
from numpy.typing import NDArray

from consilium.shared.study.definition import Study

LEAST_SHARE = 1e-3  # a class that is rarer, or hidden by noise, weighs no more than this
_SURE = 2.0  # deviations of the noise up to which a count says nothing


def class_sums(study: Study) -> int:
    """Return how many sums of classes follow those of variables: 0, K or 2 K."""
    task = study.task
    if not task.loss.balance:
        return 0
    return task.outputs if task.kind == "multiclass" else 2 * task.outputs


def class_scale(study: Study) -> float:
    """Return the factor of a patient's shares, by which their L2 norm is sqrt(V) at most.

    So the variables, which are clipped to 2 sqrt(V), leave a fifth of the squared norm to classes.
    """
    largest = 1 if study.task.kind == "multiclass" else 2 * study.task.outputs
    return math.sqrt(len(study.variables) / largest)


def shares_of_sums(sums: NDArray[np.float64], study: Study, *, noise: float) -> NDArray[np.float64]:
    """Return the shares (K,) of classes, or of known labels that are present.

    Args:
        sums: over patients, the last :func:`class_sums` numbers of the statistics.
        study: gives the task.
        noise: standard deviation of the noise in every sum.

    Guarantee: every share lies within ``LEAST_SHARE`` and 1, whatever finite sums are given.
    """
    least = max(_SURE * noise / class_scale(study), 1e-9)
    counts = np.maximum(np.asarray(sums, dtype=np.float64) / class_scale(study), 0.0)
    if study.task.kind == "multiclass":
        counts = np.maximum(counts, least)
        return np.asarray(np.clip(counts / counts.sum(), LEAST_SHARE, 1.0))
    known_K, present_K = np.split(counts, 2)
    known_K = np.maximum(known_K, 2 * least)
    share_K = np.maximum(present_K, least) / known_K
    return np.asarray(np.clip(share_K, LEAST_SHARE, 1 - LEAST_SHARE))


def even_shares(study: Study) -> NDArray[np.float64]:
    """Return shares (K,) that favour no class and no label; empty unless the study counts them."""
    task = study.task
    if not class_sums(study):
        return np.empty(0)
    even = max(LEAST_SHARE, 1 / task.outputs) if task.kind == "multiclass" else 0.5
    return np.full(task.outputs, even)
