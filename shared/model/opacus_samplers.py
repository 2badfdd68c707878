"""Per-sample gradients of our layers for Opacus, by its extension point.

After :func:`register`, Opacus's ``GradSampleModule`` wraps models made of these layers, and its
``DPOptimizer``, accountants and virtual batches (``BatchMemoryManager``) work with them. It is here
for research with Opacus; sites train by :mod:`consilium.client.round.training`, which keeps no
gradient per sample.

Opacus is imported by :func:`register` alone: its import takes about three seconds.
"""

from typing import Any

import torch
from torch import Tensor, nn

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.layers import Embedding, LayerNorm, Linear
from consilium.shared.model.recurrent import GRU, LSTM, RNN

LAYERS: tuple[type[nn.Module], ...] = (RNN, LSTM, GRU, Linear, LayerNorm, Embedding)


def register() -> None:
    """Make our layers known to Opacus; repeating it changes nothing."""
    from opacus.grad_sample.utils import register_grad_sampler

    register_grad_sampler(list(LAYERS))(gradients_per_row)


def gradients_per_row(
    layer: nn.Module, activations: list[Any], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Return every row's gradient (N, ...) for each parameter of the layer.

    Runs the layer again on what went in, with books, and one backward from ``backprops``.

    Args:
        layer: one of ours.
        activations: the layer's positional inputs.
        backprops: loss gradient at the layer's output, (N, ...).
    """
    books, inputs = Bookkeeping(), activations
    with torch.enable_grad():
        if isinstance(layer, RNN | LSTM | GRU):
            mask_NT = inputs[1] if len(inputs) > 1 else None
            outputs = layer.forward(inputs[0], mask_NT, books)  # past Opacus's hooks
        else:
            outputs = layer.forward(inputs[0], books)
        torch.autograd.backward(outputs, backprops)
    parameters = list(layer.parameters())
    return dict(zip(parameters, books.per_row(parameters), strict=True))
