"""A site's part of a training round: train, clip, weight; keep what stays apart from what leaves.

Guarantee: in a study with privacy, every part that leaves depends on patients only through clipped
gradients with noise. Whatever the records, the update's L2 norm is at most ``update_norm`` times
the site's share, and a sum of gradients is no longer than its declared size allows
(:func:`consilium.shared.rounds.contents.gradient_sum_bound`). No part contains what the study
leaves to each site.
"""

import logging
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.declared_size import shortened
from consilium.client.round.control_variates import correction, new_control_variate
from consilium.client.round.gradients import clipped_gradient_sum
from consilium.client.round.own_part import CONTROL, OWN_MODEL, OWN_WEIGHTS, OwnPartOfRun
from consilium.client.round.randomness import RoundRandomness
from consilium.client.round.round_model import RoundModel
from consilium.client.round.training import FirstStep, train_locally, train_own
from consilium.client.round.training_set import TrainingSet
from consilium.client.round.update import clip_update, weight_difference
from consilium.shared.crypto.keys import Roster
from consilium.shared.model.graphics_card import GraphicsCard
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.privacy.accounting import plan
from consilium.shared.privacy.shared_noise import noise_share, noisy_sum
from consilium.shared.rounds.contents import gradient_sum_bound, update_share
from consilium.shared.study.definition import Study

FlatWeights = NDArray[np.float32]
Vector = NDArray[np.float64]
Parts = dict[str, Vector | NDArray[np.int64]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SiteShare:
    """What a site's declared size makes of its part of a training round.

    patients: the declared size.
    of_update: factor in (0, 1] of the clipped update.
    """

    patients: int
    of_update: float

    @classmethod
    def of(cls, study: Study, roster: Roster, site: str) -> Self:
        """Return the share of a site in a roster with declared sizes."""
        return cls(patients=roster.sizes[site], of_update=update_share(study, roster, [site]))


class TrainingRound:
    """Trains this site's model, and a second, personal one if the study asks for it.

    Args:
        study: the approved study.
        own: the part of the model that stays at this site; training changes it.
        model: the study's network.
        shared_D: True for the weights that the sites train together.
        card: computes the recurrent layers in training; None leaves them to the processor.
    """

    def __init__(
        self,
        study: Study,
        own: OwnPartOfRun,
        model: RoundModel,
        *,
        shared_D: NDArray[np.bool_],
        card: GraphicsCard | None = None,
    ) -> None:
        self._study, self._own, self._model, self._shared_D = study, own, model, shared_D
        self._card = card
        private = plan(study)
        self._noise = private.training_round.noise_multiplier if private else None

    def parts(
        self,
        global_D: FlatWeights,
        control_D: Vector | None,
        data: TrainingSet,
        share: SiteShare,
        randomness: RoundRandomness,
        first: FirstStep | None = None,
    ) -> Parts:
        """Train; return the parts that leave: ``update``, and ``control`` with control variates.

        Args:
            global_D: the global weights.
            control_D: mean control variate of all sites, in a study that has them.
            data: this site's training patients.
            share: what this site's declared size makes of it.
            randomness: the round's random numbers.
            first: the first step's clipped sum, if it was computed before.

        Raises:
            SettingsError: what this site has kept does not fit the study.
        """
        parts = self._update(global_D, control_D, data, share, randomness, first)
        if self._study.personalisation.ditto is not None:
            self._train_second(global_D, data, randomness)
        return parts

    def _update(
        self,
        global_D: FlatWeights,
        control_D: Vector | None,
        data: TrainingSet,
        share: SiteShare,
        randomness: RoundRandomness,
        first: FirstStep | None,
    ) -> Parts:
        """Return the parts for the sum: gradients or weight differences, by the study's mode.

        This site's own weights take the same clipped and noised steps as the shared weights: later
        updates depend on them, so without noise they would reveal what the noise hides now.
        """
        begun_D = self._own.part.joined(global_D)
        if self._study.privacy.mode == "distributed":
            return {"update": self._noisy_gradient_sum(begun_D, data, share, randomness, first)}
        added_D, own_control_D = None, None
        if control_D is not None:
            own_control_D = self._own.part.control(control_D)
            added_D = correction(own_control_D, control_D, self._study.training)
        trained_D = self._trained(begun_D, added_D, data, share, randomness, first)
        moved_D = weight_difference(trained_D, begun_D)
        norm, shared_D = self._study.aggregation.update_norm, self._shared_D
        parts: Parts = {"update": clip_update(moved_D[shared_D], norm) * share.of_update}
        if not shared_D.all():
            self._own.change(OWN_WEIGHTS, trained_D[~shared_D])
        if control_D is not None and own_control_D is not None:
            renewed_D = new_control_variate(own_control_D, control_D, moved_D, norm)
            self._own.change(CONTROL, renewed_D)
            parts["control"] = renewed_D * share.of_update  # weighted like the update
        return parts

    def _noisy_gradient_sum(
        self,
        weights_D: FlatWeights,
        data: TrainingSet,
        site: SiteShare,
        randomness: RoundRandomness,
        first: FirstStep | None,
    ) -> NDArray[np.int64]:
        """Return one step's clipped gradient sum as whole numbers, plus this site's noise share."""
        if first is None:
            model, source = self._model.with_weights(weights_D), randomness.stream("training")
            sum_D = clipped_gradient_sum(model, data, self._study, source=source, card=self._card)
        else:
            sum_D = first.sum_D.numpy()
        sum_D = shortened(sum_D, gradient_sum_bound(self._study, site.patients))
        share = noise_share(self._study, weights_D.size)
        return noisy_sum(sum_D, share, randomness.stream("noise"))

    def _trained(
        self,
        weights_D: FlatWeights,
        added_D: FlatWeights | None,
        data: TrainingSet,
        share: SiteShare,
        randomness: RoundRandomness,
        first: FirstStep | None,
    ) -> FlatWeights:
        """Return the weights (D,) after the round's steps; all finite.

        If steps lead beyond float32, as from weights made for that, the site's weights stay as they
        were: a failure would be seen. With privacy the steps are noised, so this tells no more.
        """
        model = self._model.with_weights(weights_D)
        source = randomness.stream("training") if first is None else first.source
        train_locally(
            model,
            data,
            self._study,
            noise_multiplier=self._noise,
            source=source,
            patients=None if self._noise is None else share.patients,
            correction_D=added_D,
            first=first,
            card=self._card,
        )
        trained_D = to_vector(model)
        if np.isfinite(trained_D).all():
            return trained_D
        log.warning(
            "training in study %s left the range of numbers; nothing moved", self._study.name
        )
        return weights_D

    def _train_second(
        self, global_D: FlatWeights, data: TrainingSet, randomness: RoundRandomness
    ) -> None:
        """Train this site's second model; with privacy, nothing that leaves depends on it.

        If it diverges, the model of the round before is kept. The round does not fail: a failure
        would reveal something about the patients.
        """
        model = self._model.with_weights(self._own.part.used(global_D))
        source = randomness.stream("own model")
        train_own(model, data, self._study, global_D=global_D, source=source, card=self._card)
        own_D = to_vector(model)
        if np.isfinite(own_D).all():
            self._own.change(OWN_MODEL, own_D)
        else:
            log.warning("this site's own model of study %s diverged", self._study.name)
