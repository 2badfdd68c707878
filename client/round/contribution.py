"""What a site computes for one round: a bounded vector that already contains its privacy noise.

A record's path: cohort -> normalised inputs -> statistics, training or evaluation (one module for
each purpose of a round) -> whole numbers.

Guarantee: in a study with privacy, every segment that leaves has the noise that was charged to the
ledger (:mod:`consilium.client.round.charges`), drawn from a fresh cryptographic keystream
(:mod:`consilium.client.round.randomness`). No segment contains the part of the model that stays at
the site (:mod:`consilium.client.round.own_part`).
"""

import numpy as np
from numpy.typing import NDArray

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.records.cohort import Cohort
from consilium.client.round.cohort_inputs import CohortInputs
from consilium.client.round.control_variates import split_received
from consilium.client.round.evaluation_round import EvaluationRound, evaluates
from consilium.client.round.own_part import OwnPartOfRun
from consilium.client.round.randomness import RoundRandomness
from consilium.client.round.statistics_round import statistics_parts
from consilium.client.round.training_round import Parts, TrainingRound
from consilium.client.round.training_set import TrainingSet
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import parameter_count
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    edges_from_bytes,
    vector_spec,
)
from consilium.shared.secure_sum.fixed_point import VectorSpec, encode
from consilium.shared.study.definition import Study


class Contributor:
    """A site's computations for one study, on one cohort.

    Args:
        site: the site's name in the study.
        study: the approved study.
        cohort: the site's patients.
        policy: decides for which groups of them figures may leave.
        store: keeps the part of the model that stays at this site.

    Attributes:
        parameters: number of model parameters D.
        weight: number of training patients, at most the study's ``max_weight``.
    """

    def __init__(
        self, site: str, study: Study, cohort: Cohort, policy: Policy, store: PersonalStore
    ) -> None:
        self._site, self._study, self._cohort = site, study, cohort
        self.parameters = parameter_count(study_model(study))
        self.weight = min(cohort.training.patients, study.aggregation.max_weight)
        shared_D = shared_weights(study, self.parameters)
        self._sent = int(shared_D.sum())
        self._own = OwnPartOfRun(study, store)
        self._inputs = CohortInputs(study, cohort)
        self._training = TrainingRound(study, self._own, shared_D=shared_D, weight=self.weight)
        self._evaluation = EvaluationRound(site, study, cohort, policy)

    def spec(self, asked: RoundConfiguration) -> VectorSpec:
        """Return the layout of the round's vector."""
        return vector_spec(self._study, asked, parameters=self._sent)

    def vector(
        self,
        asked: RoundConfiguration,
        received: NDArray[np.float32],
        round_number: int,
        study_hash: bytes,
    ) -> NDArray[np.uint32]:
        """Compute and encode the round's vector.

        Args:
            asked: what the round is for.
            received: global weights (D,), ignored by the statistics round; in a training round with
                control variates, followed by that of all sites (2 D,).
            round_number: number of the secure sum.
            study_hash: identifies the run.

        Raises:
            MessageError: weights, normalisation or edges do not belong to this study's model;
                raised before a record is looked at.
            SettingsError: this site's own part of the model cannot be read.
        """
        self._own.begin_round(study_hash)
        randomness = RoundRandomness(study=self._study, site=self._site, round_number=round_number)
        if asked.purpose is Purpose.STATISTICS:
            grid = self._cohort.training
            parts: Parts = {**statistics_parts(self._study, grid, self._own, randomness)}
        else:
            parts = self._model_parts(asked, received, randomness)
        return encode(parts, self.spec(asked), randomness.stream("rounding"))

    def keep(self) -> None:
        """Save what the last vector changed in this site's own part; call before the vector leaves.

        Raises:
            SettingsError: the changes cannot be saved.
        """
        self._own.save()

    def _model_parts(
        self,
        asked: RoundConfiguration,
        received: NDArray[np.float32],
        randomness: RoundRandomness,
    ) -> Parts:
        """Return the parts of the model's evaluation, its training, or both, as asked for."""
        study, own = self._study, self._own.part
        # before any record is looked at, so that a refusal is the same for all
        normalisation = Normalisation.from_bytes(asked.normalisation, study)
        global_D, control_D = received, None
        if study.training.control_variates and asked.purpose is Purpose.TRAINING:
            global_D, control_D = split_received(received, self.parameters)
        study_model(study, global_D)  # refuses weights that are not this study's, or not finite
        if evaluates(asked):
            edges_from_bytes(asked.edges, study)
        training, validation = self._inputs.under(own.normalisation() or normalisation)
        parts: Parts = {}
        if evaluates(asked):
            parts |= self._evaluation.parts(asked, global_D, validation, own, randomness)
        if asked.purpose is Purpose.TRAINING:
            data = TrainingSet.of(training)
            parts |= self._training.parts(global_D, control_D, data, randomness)
        return parts
