"""The weight of each label in the training loss: given in the study, or from counted shares."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilium.shared.model.class_shares import LEAST_SHARE
from consilium.shared.study.definition import Study


def weights_of_labels(y: Tensor, study: Study, share_K: NDArray[np.float64]) -> Tensor | None:
    """Return the weight of each label in the loss, shaped like ``y``; None where all weigh 1.

    Args:
        y: labels as of :meth:`consilium.shared.model.branch.Branch.loss_per_stay`; one that is not
            known weighs something finite.
        study: names the weights, or the power of the shares.
        share_K: from :func:`consilium.shared.model.class_shares.shares_of_sums`; empty unless the
            study asks for them.
    """
    task, loss = study.task, study.task.loss
    if not loss.weights and not loss.balance:
        return None
    if task.kind == "multiclass":
        weight_K = np.array(loss.weights)
        if loss.balance:
            weight_K = share_K**-loss.balance
            weight_K = weight_K / (share_K * weight_K).sum()
        known = (y >= 0) & (y < task.outputs)
        return torch.from_numpy(weight_K.astype(np.float32))[torch.where(known, y, 0).long()]
    present_K, absent_K = np.array(loss.weights), np.ones(task.outputs)
    if loss.balance:
        share_K = np.clip(share_K, LEAST_SHARE, 1 - LEAST_SHARE)
        present_K, absent_K = share_K**-loss.balance, (1 - share_K) ** -loss.balance
        mean_K = share_K * present_K + (1 - share_K) * absent_K
        present_K, absent_K = present_K / mean_K, absent_K / mean_K
    present, absent = (torch.from_numpy(w.astype(np.float32)) for w in (present_K, absent_K))
    if task.kind == "binary":  # its labels have no axis of outputs
        present, absent = present[0], absent[0]
    return torch.where(y == 1, present, absent)
