"""SGD, Adam, AdamW and RMSprop on one flat vector, with the rules and defaults of ``torch.optim``.

The model is one vector here, because noise is drawn for one vector. Besides, ``torch.optim`` would
load PyTorch's compiler (about two seconds) in every new process of a site.
"""

import torch
from torch import Tensor

from consilium.shared.study.training import Training

FIRST_DECAY, SECOND_DECAY, RMS_DECAY, TINY = 0.9, 0.999, 0.99, 1e-8  # torch.optim's defaults


class Optimizer:
    """The study's local optimiser: its rule and its state.

    Args:
        training: optimizer, learning_rate, momentum (sgd, rmsprop), weight_decay (decoupled in
            adamw), l1, gradient_clip (L2 norm of the whole gradient, 0 for none).
        weights_D: the vector (D,) to be changed in place.
        pull: strength of the pull towards ``anchor_D``: the loss gets pull / 2 times the squared
            distance; by default the study's ``proximal`` (FedProx, Li et al., MLSys 2020).
        anchor_D: what the weights are pulled towards; by default their present values.
        correction_D: added to every gradient, shape (D,).
    """

    def __init__(
        self,
        training: Training,
        weights_D: Tensor,
        *,
        pull: float | None = None,
        anchor_D: Tensor | None = None,
        correction_D: Tensor | None = None,
    ) -> None:
        self._training, self._weights_D, self._steps = training, weights_D, 0
        self._first_D = torch.zeros_like(weights_D)
        self._second_D = torch.zeros_like(weights_D)
        self._pull = training.proximal if pull is None else pull
        self._correction_D = correction_D
        self._anchor_D = weights_D.clone() if anchor_D is None else anchor_D

    def step(self, gradient_D: Tensor) -> None:
        """Change the weights by one step along ``gradient_D`` (D,), which is overwritten.

        Clipping comes first, so it acts on the gradient of the loss alone.
        """
        training, weights_D = self._training, self._weights_D
        self._steps += 1
        if training.gradient_clip:
            norm = gradient_D.norm().clamp(min=training.gradient_clip)
            gradient_D.mul_(training.gradient_clip / norm)
        if training.l1:
            gradient_D.add_(weights_D.sign(), alpha=training.l1)
        if self._correction_D is not None:
            gradient_D.add_(self._correction_D)
        if self._pull:
            gradient_D.add_(weights_D - self._anchor_D, alpha=self._pull)
        if training.optimizer == "adamw":
            weights_D.mul_(1 - training.learning_rate * training.weight_decay)
        elif training.weight_decay:
            gradient_D.add_(weights_D, alpha=training.weight_decay)
        weights_D.sub_(self._direction(gradient_D), alpha=training.learning_rate)

    def _direction(self, gradient_D: Tensor) -> Tensor:
        if self._training.optimizer == "sgd":
            return self._with_momentum(gradient_D)
        if self._training.optimizer == "rmsprop":
            self._second_D.mul_(RMS_DECAY).addcmul_(gradient_D, gradient_D, value=1 - RMS_DECAY)
            return self._with_momentum(gradient_D / (self._second_D.sqrt() + TINY))
        self._first_D.lerp_(gradient_D, 1 - FIRST_DECAY)
        self._second_D.mul_(SECOND_DECAY).addcmul_(gradient_D, gradient_D, value=1 - SECOND_DECAY)
        unbias_first = 1 - FIRST_DECAY**self._steps
        unbias_second = 1 - SECOND_DECAY**self._steps
        return self._first_D / unbias_first / ((self._second_D / unbias_second).sqrt() + TINY)

    def _with_momentum(self, gradient_D: Tensor) -> Tensor:
        if not self._training.momentum:
            return gradient_D
        return self._first_D.mul_(self._training.momentum).add_(gradient_D)
