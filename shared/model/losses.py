"""Losses of classes and labels, made of their cross entropy; see :class:`.Loss` for the formulas.

Every one is a function of one row's logits and label alone, to the last bit where rows must not
depend on each other, so each patient's gradient is clipped as that of the plain loss is.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from consilium.shared.study.loss import Loss

_VECTOR = 64  # numbers; the longest vectors of any processor, a few together
_LEAST_ERROR = 1e-6  # a power below 1 of an error of 0 has no slope
PLAIN = Loss()


def of_labels(logits: Tensor, target: Tensor, loss: Loss, *, alone: bool) -> Tensor:
    """Return the loss of each label, shaped like ``logits``; ``target`` is 0 or 1.

    ``alone`` says that no number may depend on where it stands.
    """
    function = partial(_of_labels, loss=loss)
    return in_whole_vectors(function, logits, target) if alone else function(logits, target)


def of_classes(logits_RK: Tensor, class_R: Tensor, loss: Loss, *, alone: bool) -> Tensor:
    """Return each row's loss (R,); ``alone`` as in :func:`of_labels`."""
    entropy_R = functional.cross_entropy(
        logits_RK, class_R, reduction="none", label_smoothing=loss.smoothing
    )
    if loss.kind == "cross-entropy":
        return entropy_R
    function = partial(_shaped, loss=loss)
    return in_whole_vectors(function, entropy_R) if alone else function(entropy_R)


def in_whole_vectors(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Apply an elementwise function; a number's result does not depend on where it stands.

    torch computes the last few numbers, which fill no vector register, by another rule than the
    rest, and differs in the last bit; so zeros are appended.
    """
    size = values[0].numel()
    padded = [functional.pad(value.reshape(-1), (0, -size % _VECTOR)) for value in values]
    return function(*padded)[:size].view(values[0].shape)


def _of_labels(logits: Tensor, target: Tensor, loss: Loss) -> Tensor:
    if loss.smoothing:
        target = target * (1 - loss.smoothing) + loss.smoothing / 2
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _shaped(entropy, loss)


def _shaped(entropy: Tensor, loss: Loss) -> Tensor:
    """Return the loss of each cross entropy c, elementwise."""
    if loss.kind == "focal":
        wrong = (-torch.expm1(-entropy)).clamp(min=_LEAST_ERROR)
        return wrong**loss.gamma * entropy
    if loss.kind == "bounded":
        return -torch.expm1(-loss.q * entropy) / loss.q
    return entropy
