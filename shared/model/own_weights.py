"""Which of a model's weights are shared, and which are each site's own.

The update that leaves a site holds the shared weights alone: the others are not in the vector that
is masked, so no sum can hold them. The order is that of
:func:`consilium.shared.model.weight_vector.to_vector`.
"""

import numpy as np
from numpy.typing import NDArray

from consilium.shared.study.definition import Study

_NAMES = {"head": {"head", "skip"}, "norm": {"norm"}}  # of modules


def shared_weights(study: Study, parameters: int) -> NDArray[np.bool_]:
    """Return which weights (D,) the sites train together; all, unless the study keeps parts.

    ``parameters`` is the size D of the study's model.
    """
    own = {name for part in study.personalisation.weights for name in _NAMES[part]}
    if not own:
        return np.broadcast_to(np.True_, parameters)  # which takes no memory
    from consilium.shared.model.study_model import study_model

    model = study_model(study)
    return np.concatenate(
        [
            np.full(value.numel(), own.isdisjoint(name.split(".")), dtype=np.bool_)
            for name, value in model.state_dict().items()
        ]
    )
