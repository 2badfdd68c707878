"""The weights that move a model's log-odds and nothing else: its outputs' intercepts."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.study.definition import Study


def intercepts(study: Study, shift_K: Sequence[float]) -> NDArray[np.float32]:
    """Return what is added to the weights (D,) to shift each output's log-odds by so much.

    Every branch is shifted alike, so their mean is.
    """
    model = study_model(study)
    with torch.no_grad():
        for value in model.state_dict().values():  # a module's fixed numbers too
            value.zero_()
        for layer in model.output_layers:
            if layer.bias is not None:
                layer.bias.copy_(torch.tensor(shift_K))
    return to_vector(model)
