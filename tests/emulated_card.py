"""A graphics card that is this processor: its recordings write to fixed memory, as a card's do."""

import torch

from consilium.shared.kernels.recorded import Tensors
from consilium.shared.model.graphics_card import GraphicsCard


def written_again(work):
    """Record nothing: do the work again, and write what comes out where the first results are."""
    results: Tensors = work()

    def replay() -> None:
        for place, new in zip(results, work(), strict=True):
            place.copy_(new)

    return replay, results


def emulated_card() -> GraphicsCard:
    return GraphicsCard(torch.device("cpu"), written_again)
