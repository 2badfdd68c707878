"""The weights that move a model's log-odds and nothing else: its outputs' intercepts."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from consilium.shared.model.study_model import study_model
from consilium.shared.study.definition import Study


def intercepts(
    study: Study, shift_K: Sequence[float]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what to add to the weights (D,) to shift each output's log-odds by so much.

    Every branch is shifted alike, so their mean is. The model is laid out without memory: a
    coordinator holds few copies of a large one.

    Returns:
        Places (n,) in the weights, and what is added there (n,).
    """
    with torch.device("meta"):
        model = study_model(study)
    biases = {id(layer.bias) for layer in model.output_layers if layer.bias is not None}
    places, start = [], 0
    for value in model.state_dict(keep_vars=True).values():
        if id(value) in biases:
            places.append(np.arange(start, start + value.numel()))
        start += value.numel()
    added = np.tile(np.array(shift_K, dtype=np.float32), len(places))
    return np.concatenate([np.zeros(0, dtype=np.int64), *places]), added
