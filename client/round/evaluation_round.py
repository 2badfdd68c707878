"""A site's part in evaluating the model: noisy sums over its validation patients.

Guarantee: every part that leaves has the noise that was charged for it.
"""

import numpy as np
from numpy.typing import NDArray

from consilium.client.hospital.policy import Policy
from consilium.client.records.cohort import Cohort
from consilium.client.records.declared_size import shortened_parts
from consilium.client.records.features import PatientTensors
from consilium.client.round.attribution_sums import attribution_sums
from consilium.client.round.own_part import OwnPart
from consilium.client.round.randomness import RoundRandomness
from consilium.client.round.round_model import RoundModel
from consilium.client.round.subgroups import Members, stays_by_group
from consilium.client.round.validation_sums import validation_sums
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.export.signed_model import Trained
from consilium.shared.model.branch import Branch
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    edges_from_bytes,
    metrics_noise,
    metrics_sensitivity,
    validation_patients,
)
from consilium.shared.study.definition import Study

Vector = NDArray[np.float64]


def evaluates(asked: RoundConfiguration) -> bool:
    """Return whether the round asks for sums over validation patients."""
    return asked.evaluate or asked.purpose is Purpose.EVALUATION


class EvaluationRound:
    """Evaluates the model on this site's validation patients.

    Args:
        site: this site's name in the study.
        study: the approved study.
        cohort: the site's patients.
        policy: decides for which groups of them figures may leave.
        model: the study's network.
    """

    def __init__(
        self, site: str, study: Study, cohort: Cohort, policy: Policy, model: RoundModel
    ) -> None:
        self._model = model
        self._site, self._study, self._cohort, self._policy = site, study, cohort, policy
        self._explained: tuple[bytes, Vector] | None = None

    def parts(
        self,
        asked: RoundConfiguration,
        global_D: NDArray[np.float32],
        patients: PatientTensors | None,
        size: int,
        own: OwnPart,
        randomness: RoundRandomness,
    ) -> dict[str, Vector]:
        """Return the parts of :func:`validation_sums`, and ``attributions``, with their noise.

        Args:
            asked: gives the edges, and whether the model is the final one.
            global_D: the global weights.
            patients: the validation patients.
            size: this site's declared size, which bounds for how many of them it counts.
            own: this site's own part; its model is evaluated if the study is personalised.
            randomness: the round's random numbers.

        Raises:
            MessageError: weights, normalisation or edges do not belong to this study's model.
            SettingsError: what this site has kept does not fit the study.
        """
        study, final = self._study, asked.purpose is Purpose.EVALUATION
        model = self._model.with_weights(own.used(global_D) if study.evaluates_own else global_D)
        edges_KL = edges_from_bytes(asked.edges, study)
        sums = validation_sums(model, patients, study, edges_KL, self._members() if final else None)
        if final and study.evaluation.explained_patients:
            sums["attributions"] = self._attributions(model, patients, asked, randomness)
        most = validation_patients(study, size) * metrics_sensitivity(study, final=final)
        sums = shortened_parts(sums, most)
        deviation = metrics_noise(study, final=final)
        return sums if deviation == 0 else noised(sums, deviation, randomness.stream("noise"))

    def _members(self) -> list[Members | None]:
        """Return each group's validation stays (N,), or None if this site adds nothing to it."""
        if self._cohort.validation is None:
            return []
        return stays_by_group(
            self._cohort.validation,
            self._study,
            site=self._site,
            own=self._policy.release_own_figures,
            smallest=self._policy.smallest_group,
        )

    def _attributions(
        self,
        model: Branch,
        patients: PatientTensors | None,
        asked: RoundConfiguration,
        randomness: RoundRandomness,
    ) -> Vector:
        """Return the sums of attributions; without noise, they are kept for the same model."""
        private = self._study.privacy.mode != "none"
        key = asked.normalisation + to_vector(model).tobytes()
        if private or self._explained is None or self._explained[0] != key:
            normalisation = Normalisation.from_bytes(asked.normalisation, self._study)
            trained = Trained(study=self._study, model=model, normalisation=normalisation)
            source = randomness.stream("explained")
            # with noise, leaving out small numbers would reveal what the noise hides
            smallest = 0 if private else self._policy.smallest_group
            self._explained = key, attribution_sums(trained, patients, source, smallest=smallest)
        return self._explained[1].copy()


def noised(parts: dict[str, Vector], deviation: float, source: Keystream) -> dict[str, Vector]:
    """Add independent Gaussian noise of this standard deviation to every number of every part."""
    return {
        name: part + deviation * source.standard_normal(part.size) for name, part in parts.items()
    }
