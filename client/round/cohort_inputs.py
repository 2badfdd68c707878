"""The model's inputs for this site's patients, made once for each normalisation, and arranged."""

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.cohort import Cohort
from consilium.client.records.features import PatientTensors
from consilium.client.round.training_set import TrainingSet
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import Study


class CohortInputs:
    """Makes the inputs of the training and the validation patients, and keeps the latest.

    Args:
        study: defines the inputs.
        cohort: the site's patients.
    """

    def __init__(self, study: Study, cohort: Cohort) -> None:
        self._study, self._cohort = study, cohort
        self._normalisation: Normalisation | None = None
        self._tensors: tuple[PatientTensors, PatientTensors | None] | None = None
        self._arranged: tuple[PatientTensors, bytes, TrainingSet] | None = None

    def under(self, normalisation: Normalisation) -> tuple[PatientTensors, PatientTensors | None]:
        """Return training and validation inputs under this normalisation."""
        if self._tensors is None or normalisation != self._normalisation:
            self._tensors = self._cohort.tensors(normalisation, self._study)
            self._normalisation = normalisation
        return self._tensors

    def training_set(
        self, normalisation: Normalisation, share_K: NDArray[np.float64]
    ) -> TrainingSet:
        """Return the training patients under this normalisation, arranged for sampling.

        Args:
            normalisation: of the inputs.
            share_K: shares of the classes, by which labels are weighed.
        """
        (training, _), shares = self.under(normalisation), share_K.tobytes()
        if (
            self._arranged is None
            or self._arranged[0] is not training
            or self._arranged[1] != shares
        ):
            found = TrainingSet.of(training, self._study, share_K)
            self._arranged = training, shares, found
        return self._arranged[2]
