"""The model's inputs for this site's patients, made once for each normalisation."""

from consilium.client.records.cohort import Cohort
from consilium.client.records.features import PatientTensors
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

    def under(self, normalisation: Normalisation) -> tuple[PatientTensors, PatientTensors | None]:
        """Return training and validation inputs under this normalisation."""
        if self._tensors is None or normalisation != self._normalisation:
            self._tensors = self._cohort.tensors(normalisation, self._study)
            self._normalisation = normalisation
        return self._tensors
