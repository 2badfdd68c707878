"""What a site computes for one round: a bounded vector that already contains its privacy noise.

A record's path: cohort -> normalised inputs -> statistics, training, calibration or evaluation (one
module for each purpose of a round; numbers of persons need no inputs) -> whole numbers.

Guarantee: whatever the records, a site counts for no more patients than it declared
(:mod:`consilium.client.records.declared_size`); in the feasibility round, which asks what the
declared size leaves open, for no more than twice as many.

Guarantee: in a study with privacy, every segment that leaves has the noise that was charged to the
ledger (:mod:`consilium.client.round.charges`), drawn from a fresh cryptographic keystream
(:mod:`consilium.client.round.randomness`). No segment contains the part of the model that stays at
the site (:mod:`consilium.client.round.own_part`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.hospital.graphics_card import allowed_card
from consilium.client.hospital.personal_store import KeepsParts
from consilium.client.hospital.policy import Policy
from consilium.client.records.cohort import Cohort
from consilium.client.round.calibration_round import calibration_parts
from consilium.client.round.cohort_inputs import CohortInputs
from consilium.client.round.control_variates import split_received
from consilium.client.round.evaluation_round import EvaluationRound, evaluates
from consilium.client.round.feasibility_round import feasibility_parts
from consilium.client.round.gradients import Sample
from consilium.client.round.own_part import OwnPartOfRun
from consilium.client.round.randomness import RoundRandomness
from consilium.client.round.round_model import RoundModel
from consilium.client.round.statistics_round import statistics_parts
from consilium.client.round.training import FirstStep
from consilium.client.round.training_round import Parts, SiteShare, TrainingRound
from consilium.client.round.training_set import sample_patients
from consilium.shared.crypto.keys import Roster
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import MessageError
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.weight_vector import require_weights
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    edges_from_bytes,
    vector_spec,
)
from consilium.shared.secure_sum.fixed_point import VectorSpec, encode
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study


class Contributor:
    """A site's computations for one study, on one cohort.

    Args:
        site: the site's name in the study.
        study: the approved study.
        cohort: the site's patients.
        policy: decides for which groups of them figures may leave, and whether a graphics card
            may be used.
        store: keeps the part of the model that stays at this site.
        model: the study's network; several sites of a simulation may share one.

    Attributes:
        parameters: number of model parameters D.
    """

    def __init__(
        self,
        site: str,
        study: Study,
        cohort: Cohort,
        policy: Policy,
        store: KeepsParts,
        model: RoundModel | None = None,
    ) -> None:
        self._site, self._study, self._cohort = site, study, cohort
        model = model or RoundModel(study)
        self.parameters = model.parameters
        shared_D = shared_weights(study, self.parameters)
        self._sent = int(shared_D.sum())
        self._model = model
        self._own = OwnPartOfRun(study, store)
        self._inputs = CohortInputs(study, cohort)
        self._training = TrainingRound(
            study, self._own, model, shared_D=shared_D, card=allowed_card(policy)
        )
        self._evaluation = EvaluationRound(site, study, cohort, policy, model)

    def spec(self, asked: RoundConfiguration, roster: Roster) -> VectorSpec:
        """Return the layout of the round's vector, for the sites summed together."""
        return vector_spec(
            self._study, asked, parameters=self._sent, largest_size=roster.largest_size
        )

    def check(self, asked: RoundConfiguration, received: NDArray[np.float32]) -> None:
        """Refuse what does not belong to this study's model, before a record is used.

        Raises:
            MessageError: weights, normalisation or edges do not, a weight is not finite, or the
                study has no feasibility or calibration rounds and this is one.
        """
        if asked.purpose is Purpose.FEASIBILITY:
            self._check_feasibility(asked)
        if asked.purpose is Purpose.CALIBRATION and not self._study.calibration_rounds:
            raise MessageError(
                f"a calibration round is asked for, and study {self._study.name} has none; the "
                "coordinator must run the study that was approved"
            )
        if asked.purpose in (Purpose.FEASIBILITY, Purpose.STATISTICS):
            return
        Normalisation.from_bytes(asked.normalisation, self._study)
        global_D, _ = self._received(asked, received)
        if evaluates(asked):
            edges_from_bytes(asked.edges, self._study)
        require_weights(global_D, self.parameters)

    def vector(
        self,
        asked: RoundConfiguration,
        received: NDArray[np.float32],
        round_number: int,
        parameters: SumParameters,
        first: FirstStep | None = None,
    ) -> NDArray[np.uint32]:
        """Compute and encode the round's vector, of what :meth:`check` has accepted.

        Guarantee: its length does not depend on the records, and in a study with privacy no record
        makes it fail: what leaves is bounded to what its segment can hold.

        Args:
            asked: what the round is for.
            received: global weights (D,), ignored by the statistics round; in a training round with
                control variates, followed by that of all sites (2 D,).
            round_number: number of the secure sum.
            parameters: of the run's secure sum, with this site's declared size.
            first: a training round's first step, if it was computed together with other sites'.

        Raises:
            MessageError: weights, normalisation or edges do not belong to this study's model.
            EncodingError: in a study without privacy, the result is not finite or out of range.
            SettingsError: this site's own part of the model cannot be read.
        """
        self._own.begin_round(parameters.study_hash, round_number, run_id=parameters.run_id)
        roster = parameters.roster
        randomness = RoundRandomness(study=self._study, site=self._site, round_number=round_number)
        if asked.purpose is Purpose.STATISTICS:
            grid = self._cohort.training
            size = roster.sizes[self._site]
            parts: Parts = {**statistics_parts(self._study, grid, size, self._own, randomness)}
        elif asked.purpose is Purpose.FEASIBILITY:
            size = roster.sizes[self._site]
            parts = {**feasibility_parts(self._study, self._cohort, size, randomness)}
        else:
            parts = self._model_parts(asked, received, roster, randomness, first)
        spec = self.spec(asked, roster)
        if self._study.privacy.mode != "none":
            parts = bounded(parts, spec)
        return encode(parts, spec, randomness.stream("rounding"))

    @property
    def changes(self) -> Mapping[str, NDArray[Any]]:
        """What the last vector changed in this site's own part, not saved yet."""
        return self._own.unsaved

    def first_sample(
        self, asked: RoundConfiguration, round_number: int, parameters: SumParameters
    ) -> tuple[Sample, Keystream] | None:
        """Draw a training round's first sample, for a step that sites compute together.

        Returns:
            The sample and the keystream that it was drawn from; None where each site computes for
            itself: in a round that does not train, without privacy (whose results are exact),
            with dropout, and where sites keep weights of their own.

        Raises:
            SettingsError: this site's own part of the model cannot be read.
        """
        study = self._study
        if (
            asked.purpose is not Purpose.TRAINING
            or study.privacy.mode == "none"
            or study.model.drops
            or study.personalisation.weights
        ):
            return None
        self._own.begin_round(parameters.study_hash, round_number, run_id=parameters.run_id)
        common = Normalisation.from_bytes(asked.normalisation, study)
        used = self._own.part.normalisation() or common
        data = self._inputs.training_set(used, common.share_K)
        randomness = RoundRandomness(study=study, site=self._site, round_number=round_number)
        source = randomness.stream("training")
        chosen = sample_patients(data.patients, study.training.sampling_rate, source)
        return Sample(data=data, chosen=chosen), source

    def keep(self) -> bytes:
        """Save what the last vector changed in this site's own part; call before the vector leaves.

        Returns:
            SHA-256 of the file that holds this site's own part; empty if there is none.

        Raises:
            SettingsError: the changes cannot be saved.
        """
        self._own.save()
        return self._own.digest

    def _check_feasibility(self, asked: RoundConfiguration) -> None:
        if self._study.feasibility is None or asked.evaluate:
            raise MessageError(
                f"study {self._study.name} as approved has no feasibility round like the one asked "
                "for; submit a study with [feasibility], and ask for nothing else in that round"
            )

    def _model_parts(
        self,
        asked: RoundConfiguration,
        received: NDArray[np.float32],
        roster: Roster,
        randomness: RoundRandomness,
        first: FirstStep | None,
    ) -> Parts:
        """Return the parts of what is asked for: evaluation, and training or calibration."""
        study, own = self._study, self._own.part
        normalisation = Normalisation.from_bytes(asked.normalisation, study)
        used = own.normalisation() or normalisation
        training, validation = self._inputs.under(used)
        global_D, control_D = self._received(asked, received)
        parts: Parts = {}
        if evaluates(asked):
            size = roster.sizes[self._site]
            parts |= self._evaluation.parts(asked, global_D, validation, size, own, randomness)
        if asked.purpose is Purpose.TRAINING:
            data = self._inputs.training_set(used, normalisation.share_K)
            share = SiteShare.of(study, roster, self._site)
            parts |= self._training.parts(global_D, control_D, data, share, randomness, first)
        if asked.purpose is Purpose.CALIBRATION:
            used_D = own.used(global_D) if study.evaluates_own else global_D
            model, size = self._model.with_weights(used_D), roster.sizes[self._site]
            parts |= calibration_parts(model, training, study, size=size, randomness=randomness)
        return parts

    def _received(
        self, asked: RoundConfiguration, received: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
        """Return the global weights (D,), and with control variates the mean of all sites'."""
        if self._study.training.control_variates and asked.purpose is Purpose.TRAINING:
            return split_received(received, self.parameters)
        return received, None


MakeContributor = Callable[[str, Study, Cohort, Policy, KeepsParts, RoundModel | None], Contributor]


def bounded(parts: Parts, spec: VectorSpec) -> Parts:
    """Bound every number to what its segment can hold; NaN counts as 0.

    This is done to numbers that have their noise, so it costs no privacy; and it is never needed
    but beyond ``NOISE_MARGIN`` deviations of the noise.
    """
    found: Parts = {}
    for segment in spec.segments:
        part = parts[segment.name]
        if part.dtype == np.int64:
            whole: NDArray[np.int64] = np.clip(part, -segment.qmax, segment.qmax)
            found[segment.name] = whole.astype(np.int64, copy=False)
        else:
            finite = np.nan_to_num(part.astype(np.float64), nan=0.0)
            found[segment.name] = np.clip(finite, -segment.linf, segment.linf)
    return found
