"""Whether this machine has a graphics card that is fit to compute recurrent layers.

It must give the processor's numbers, and a row's same bits in any batch, on which the clip bound
rests (:mod:`consilium.shared.model.graphics_card`).
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import Parameter

from consilium.shared.kernels.recorded import CudaRecorder, Tensors
from consilium.shared.model import cells
from consilium.shared.model.graphics_card import PROCESSOR, GraphicsCard, Processor, failure_of

LARGEST_DIFFERENCE = 1e-5  # of a state or delta between a card and the processor


@cache
def find_card() -> tuple[GraphicsCard | None, str]:
    """Return this machine's graphics card if it is fit, or None; and a sentence about it."""
    if not torch.cuda.is_available():
        return None, "PyTorch finds no graphics card here, so the processor is used"
    try:
        device = torch.device("cuda")
        card = GraphicsCard(device, CudaRecorder())
        wrong = disagreement(card)
        name = torch.cuda.get_device_name(device)
    except RuntimeError as error:
        wrong, name = failure_of(error), "here"
    if wrong:
        return None, f"the graphics card {name} is not used, but the processor: {wrong}"
    return card, f"the graphics card {name} computes the recurrent layers in training"


def disagreement(card: GraphicsCard) -> str:
    """Return how a card's numbers differ from what they must be; empty if they do not."""
    generator, rows = torch.Generator().manual_seed(1), 41
    for cell, gates in cells.GATES.items():
        shapes = ((gates * 24, 9), (gates * 24, 24), (gates * 24,), (gates * 24,))
        parameters = tuple(
            Parameter(torch.randn(shape, generator=generator) / 4) for shape in shapes
        )
        x_NTI, grad_NTH = (torch.randn(rows, 12, width, generator=generator) for width in (9, 24))
        usual = _states_and_deltas(PROCESSOR, cell, parameters, x_NTI, grad_NTH)
        found = _states_and_deltas(card, cell, parameters, x_NTI, grad_NTH)
        largest = max(float((a - b).abs().max()) for a, b in zip(usual, found, strict=True))
        if not largest <= LARGEST_DIFFERENCE:
            return f"its numbers ({cell}) are off by {largest:.1g}, over {LARGEST_DIFFERENCE:g}"
        few = _states_and_deltas(card, cell, parameters, x_NTI[17:24], grad_NTH[17:24])
        if not all(torch.equal(a[17:24], b) for a, b in zip(found, few, strict=True)):
            return f"its numbers for a patient ({cell}) depend on who else is in the batch"
    return ""


def _states_and_deltas(
    place: Processor,
    cell: cells.CellName,
    parameters: tuple[Parameter, ...],
    x_NTI: Tensor,
    grad_NTH: Tensor,
) -> Tensors:
    """Return one direction's states, and its deltas as inputs and states see them, (N, T, ...)."""
    weights = place.weights(parameters)
    trace = place.forward(cell, place.take(x_NTI), weights, None, alone=True)
    states = place.give(trace.states[1:], len(x_NTI)).clone()
    deltas = place.backward(cell, trace, weights, None, place.take(grad_NTH), alone=True)
    by_input, by_hidden = deltas.input_TNG, deltas.hidden_TNG
    return states, place.give(by_input, len(x_NTI)), place.give(by_hidden, len(x_NTI))
