"""What the linear path beside the recurrent network reads: the one definition of its inputs.

Training, prediction, streaming and explanation call this function;
:mod:`consilium.shared.export.onnx_graph` builds the same of ONNX operators.

It reads the F measured features of a step (no codes), and for each of V time-series variables
whether it was never measured: I = F + V inputs.
"""

import math

import torch
from torch import Tensor

_COUNT_BLOCK = 5  # of consilium.shared.study.input_names.feature_names: how often measured so far


def count_columns(series: int) -> slice:
    """Return where the V counts of measurements so far stand among a step's inputs."""
    return slice(_COUNT_BLOCK * series, (_COUNT_BLOCK + 1) * series)


def skip_inputs(x_F: Tensor, series: int) -> Tensor:
    """Return a step's inputs, and 1 for each series never measured so far, scaled to one length.

    The result has the shape (..., I).

    Guarantee: the length is sqrt(I); inputs shorter than 1 keep their length over sqrt(I).

    Args:
        x_F: (..., F), as :func:`consilium.shared.study.input_names.feature_names` orders them.
        series: V; 0 where sequences have no hours, and their inputs no counts.
    """
    never_V = (x_F[..., count_columns(series)] == 0).to(x_F.dtype)
    x_I = torch.cat([x_F, never_V], dim=-1)
    length = torch.linalg.vector_norm(x_I, dim=-1, keepdim=True)
    scaled: Tensor = x_I * (math.sqrt(x_I.shape[-1]) / length.clamp(min=1.0))
    return scaled
