"""What a site computes for one round: a bounded vector with its privacy noise already in it.

Guarantee: every segment that leaves has the noise that the release charged to the ledger claims,
drawn from a fresh cryptographic keystream. Only in a study without privacy are rounding and
sampling drawn from the study's seed, so that such a run can be repeated bit for bit. What a study
leaves to each site (its own part of the model) is in no segment; see
:mod:`consilium.client.hospital.personal_store`.
"""

import logging
import secrets

import numpy as np
from numpy.typing import NDArray

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.ledger.store import Release
from consilium.client.records.cohort import Cohort, training_shards, validation_shards
from consilium.client.records.features import PatientTensors
from consilium.client.records.statistics import patient_contributions, statistics_release
from consilium.client.round.attribution_sums import attribution_sums
from consilium.client.round.control_variates import correction, parted, renewed
from consilium.client.round.own_part import OwnPart
from consilium.client.round.personal import (
    CONTROL,
    OWN_MODEL,
    OWN_WEIGHTS,
    STATISTICS,
    as_used,
    own_control,
    own_normalisation,
    with_own,
)
from consilium.client.round.subgroups import Members, contributing
from consilium.client.round.training import (
    TrainingSet,
    clipped_gradient_sum,
    train_locally,
    train_own,
)
from consilium.client.round.update import clip_update, weight_difference
from consilium.client.round.validation_sums import validation_sums
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.crypto.transcript import digest
from consilium.shared.export.signed_model import Trained
from consilium.shared.model.network import RecurrentModel, build_model
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.weight_vector import load_vector, parameter_count, to_vector
from consilium.shared.privacy.accounting import PrivacyEvent, plan
from consilium.shared.privacy.shared_noise import noise_share, noisy_sum
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    edges_from_bytes,
    metrics_noise,
    statistics_noise,
    update_share,
    vector_spec,
)
from consilium.shared.secure_sum.fixed_point import VectorSpec, encode
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import feature_names

Vector = NDArray[np.float64]

log = logging.getLogger(__name__)


class Contributor:
    """A site's computations for one study, on one cohort.

    Args:
        site: the site's name in the study.
        study: the approved study.
        cohort: the site's patients.
        policy: says what may be told about groups of them.
        store: holds what the study leaves to this site.

    Attributes:
        parameters: number of the study's model parameters D.
    """

    def __init__(
        self, site: str, study: Study, cohort: Cohort, policy: Policy, store: PersonalStore
    ) -> None:
        self._site, self._study, self._cohort = site, study, cohort
        self._policy, self._own = policy, OwnPart(study, store)
        self._plan = plan(study)
        self.parameters = parameter_count(self._model())
        self._shared_D = shared_weights(study, self.parameters)
        self._normalisation = b""
        self._tensors: tuple[PatientTensors, PatientTensors | None] | None = None
        self._explained: tuple[bytes, Vector] | None = None

    @property
    def weight(self) -> int:
        """The site's patients in training, at most the study's ``max_weight``."""
        return min(self._cohort.training.patients, self._study.aggregation.max_weight)

    def spec(self, asked: RoundConfiguration) -> VectorSpec:
        """Return the layout of the round's vector."""
        return vector_spec(self._study, asked, parameters=int(self._shared_D.sum()))

    def releases(
        self, asked: RoundConfiguration, round_number: int, study_hash: bytes
    ) -> tuple[Release, ...]:
        """Return what the round will cost, to be reserved before anything is computed."""
        if self._plan is None:
            return ()
        training, held_out = training_shards(self._study), validation_shards(self._study)
        costs: list[tuple[str, PrivacyEvent, tuple[int, int]]] = []
        if asked.purpose is Purpose.STATISTICS:
            costs.append(("statistics", self._plan.statistics, training))
        if asked.purpose is Purpose.TRAINING:
            costs.append(("training", self._plan.training_round, training))
        if self._validates(asked):
            costs.append(("metrics", self._plan.metrics, held_out))
        return tuple(
            Release(
                study_digest=self._study.digest,
                study_hash=study_hash,
                study_name=self._study.name,
                round=round_number,
                purpose=purpose,
                events=(event,),
                shards=shards,
            )
            for purpose, event, shards in costs
        )

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
            received: global weights (D,), ignored by the statistics round; a training round with
                control variates has those of all sites behind them (2 D,).
            round_number: number of the secure sum.
            study_hash: of the run.

        Raises:
            MessageError: weights, normalisation or edges do not belong to this study's model.
            EncodingError: the result is not finite or out of range, so nothing may be sent.
            SettingsError: this site's own part of the model cannot be read.
        """
        if self._own.recall(study_hash):
            self._tensors = None  # its normalisation may be the site's own
        parts: dict[str, Vector | NDArray[np.int64]] = {}
        if asked.purpose is Purpose.STATISTICS:
            parts |= self._statistics(round_number)
        else:
            training, validation = self._inputs(asked.normalisation)
            weights_D, control_D = received, None
            if self._study.training.control_variates and asked.purpose is Purpose.TRAINING:
                weights_D, control_D = parted(received, self.parameters)
            self._model(weights_D)  # refuses weights that are not this study's
            if self._validates(asked):
                used_D = weights_D
                if self._study.evaluates_own:
                    used_D = as_used(self._study, self._own.kept, weights_D)
                parts |= self._validation(self._model(used_D), validation, asked, round_number)
            if asked.purpose is Purpose.TRAINING:
                data = TrainingSet.of(training)
                parts |= self._update(weights_D, control_D, data, round_number)
                if self._study.personalisation.ditto is not None:
                    self._train_own(weights_D, data, round_number)
        return encode(parts, self.spec(asked), self._randomness("rounding", round_number))

    def keep(self) -> None:
        """Save what the last vector changed in this site's own part; call it before that leaves.

        Raises:
            SettingsError: it cannot be saved.
        """
        self._own.save()

    def _validates(self, asked: RoundConfiguration) -> bool:
        return asked.evaluate or asked.purpose is Purpose.EVALUATION

    def _statistics(self, round_number: int) -> dict[str, Vector]:
        release_S = statistics_release(
            patient_contributions(self._cohort.training, self._study),
            self._study,
            deviation=statistics_noise(self._study),
            source=self._randomness("noise", round_number),
        )
        if "inputs" in self._study.personalisation.parts:
            self._own.change(STATISTICS, release_S)
        return {"statistics": release_S}

    def _validation(
        self,
        model: RecurrentModel,
        patients: PatientTensors | None,
        asked: RoundConfiguration,
        round_number: int,
    ) -> dict[str, Vector]:
        edges_KL = edges_from_bytes(asked.edges, self._study)
        final = asked.purpose is Purpose.EVALUATION
        sums = validation_sums(
            model, patients, self._study, edges_KL, self._members() if final else None
        )
        if final and self._study.evaluation.explained_patients:
            sums["attributions"] = self._attributions(model, patients, asked, round_number)
        return self._noised(sums, metrics_noise(self._study, final=final), round_number)

    def _attributions(
        self,
        model: RecurrentModel,
        patients: PatientTensors | None,
        asked: RoundConfiguration,
        round_number: int,
    ) -> Vector:
        """Return what the model looks at; without noise the same model's sums are kept."""
        private = self._plan is not None
        key = asked.normalisation + to_vector(model).tobytes()
        if private or self._explained is None or self._explained[0] != key:
            normalisation = Normalisation.from_bytes(asked.normalisation, self._study)
            trained = Trained(study=self._study, model=model, normalisation=normalisation)
            source = self._randomness("explained", round_number)
            # leaving out what is small would tell what noise hides
            smallest = 0 if private else self._policy.smallest_group
            self._explained = key, attribution_sums(trained, patients, source, smallest=smallest)
        return self._explained[1].copy()

    def _members(self) -> list[Members | None]:
        """Return the validation stays of each of the study's groups, as far as they may be told."""
        if self._cohort.validation is None:
            return []
        return contributing(
            self._cohort.validation,
            self._study,
            site=self._site,
            own=self._policy.release_own_figures,
            smallest=self._policy.smallest_group,
        )

    def _update(
        self,
        received_D: NDArray[np.float32],
        control_D: Vector | None,
        data: TrainingSet,
        round_number: int,
    ) -> dict[str, Vector | NDArray[np.int64]]:
        """Train; return what the study's mode sums, of the shared weights.

        In mode ``distributed`` one step's clipped gradient sum in whole numbers, with this site's
        share of the noise; otherwise the clipped, weighted difference to the weights. Own weights
        take the same clipped and noised steps as shared ones: what the site sends later depends on
        them, so without noise they would give away what noise hides now. With control variates,
        the site's new one comes along, weighted alike.
        """
        weights_D = with_own(self._study, self._own.kept, received_D)
        model = self._model(weights_D)
        source = self._randomness("training", round_number)
        if self._study.privacy.mode == "distributed":
            sum_D = clipped_gradient_sum(model, data, self._study, source=source)
            share = noise_share(self._study, self.parameters)
            return {"update": noisy_sum(sum_D, share, self._randomness("noise", round_number))}
        added_D, own_D = None, None
        if control_D is not None:
            own_D = own_control(self._study, self._own.kept, control_D)
            added_D = correction(own_D, control_D, self._study.training)
        noise = self._plan.training_round.noise_multiplier if self._plan else None
        train_locally(
            model, data, self._study, noise_multiplier=noise, source=source, correction_D=added_D
        )
        norm, trained_D = self._study.aggregation.update_norm, to_vector(model)
        share_of_sum = update_share(self._study, self.weight)
        moved_D = weight_difference(trained_D, weights_D)
        parts = {"update": clip_update(moved_D[self._shared_D], norm) * share_of_sum}
        if not self._shared_D.all():
            self._own.change(OWN_WEIGHTS, trained_D[~self._shared_D])
        if control_D is not None and own_D is not None:
            renewed_D = renewed(own_D, control_D, moved_D, norm)
            self._own.change(CONTROL, renewed_D)
            parts["control"] = renewed_D * share_of_sum
        return {**parts}

    def _train_own(
        self, global_D: NDArray[np.float32], data: TrainingSet, round_number: int
    ) -> None:
        """Train this site's second model, which nothing that leaves depends on under privacy.

        One that has diverged is dropped for the one before it, and no round fails by it: that,
        too, would tell.
        """
        model = self._model(as_used(self._study, self._own.kept, global_D))
        source = self._randomness("own model", round_number)
        train_own(model, data, self._study, global_D=global_D, source=source)
        own_D = to_vector(model)
        if np.isfinite(own_D).all():
            self._own.change(OWN_MODEL, own_D)
        else:
            log.warning("this site's own model of study %s diverged", self._study.name)

    def _noised(
        self, parts: dict[str, Vector], deviation: float, round_number: int
    ) -> dict[str, Vector]:
        """Add independent Gaussian noise of this standard deviation to every coordinate."""
        if deviation == 0:
            return parts
        source = self._randomness("noise", round_number)
        return {
            name: part + deviation * source.standard_normal(part.size)
            for name, part in parts.items()
        }

    def _inputs(self, normalisation: bytes) -> tuple[PatientTensors, PatientTensors | None]:
        """Return training and validation inputs under this normalisation, or the site's own."""
        if self._tensors is None or normalisation != self._normalisation:
            received = Normalisation.from_bytes(normalisation, self._study)
            used = own_normalisation(self._study, self._own.kept) or received
            self._tensors = self._cohort.tensors(used, self._study)
            self._normalisation = normalisation
        return self._tensors

    def _model(self, weights_D: NDArray[np.float32] | None = None) -> RecurrentModel:
        model = build_model(self._study, len(feature_names(self._study)), seed=self._study.seed)
        if weights_D is not None:
            load_vector(model, weights_D)
        return model

    def _randomness(self, use: str, round_number: int) -> Keystream:
        """Return fresh secret randomness, or the study's own where there is no privacy to keep."""
        if self._plan is not None:
            return Keystream(secrets.token_bytes(32))
        return Keystream(digest("repeatable", self._study.seed, self._site, round_number, use))
