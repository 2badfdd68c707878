"""The study's network, built once and given each round's weights."""

import threading

import numpy as np
from numpy.typing import NDArray

from consilium.shared.model.branch import Branch
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import load_vector, parameter_count
from consilium.shared.study.definition import Study


class RoundModel:
    """Networks of one study, one for each thread that asks.

    Drawing a network's initial weights takes longer than many a round's training, and a round
    replaces them.

    Args:
        study: the study.

    Attributes:
        parameters: number of the model's parameters D.
    """

    def __init__(self, study: Study) -> None:
        self._study, self._built = study, threading.local()
        self.parameters = parameter_count(self._model)

    def with_weights(self, weights_D: NDArray[np.float32]) -> Branch:
        """Return the network with these weights (D,); it is lent until this thread asks again.

        Raises:
            MessageError: the weights are not this model's, or not finite.
        """
        load_vector(self._model, weights_D)
        return self._model

    @property
    def _model(self) -> Branch:
        model: Branch | None = getattr(self._built, "model", None)
        if model is None:
            model = self._built.model = study_model(self._study)
        return model
