"""The network of a study, with a round's weights loaded."""

import numpy as np
from numpy.typing import NDArray

from consilium.shared.model.branch import Branch
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import load_vector
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import feature_names


def study_model(study: Study, weights_D: NDArray[np.float32] | None = None) -> Branch:
    """Return the study's model with these weights (D,), or with its initial ones.

    Raises:
        MessageError: the weights are not this model's, or not finite.
    """
    model = build_model(study, len(feature_names(study)), seed=study.seed)
    if weights_D is not None:
        load_vector(model, weights_D)
    return model
