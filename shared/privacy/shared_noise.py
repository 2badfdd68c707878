"""Noise shared among sites: each adds its part, in whole numbers, and only the sum is protected.

One round is one step, or one calibration (:mod:`consilium.shared.privacy.calibration`), of which
the same holds with its own bound in place of clip_norm. A site sums its patients' clipped
gradients, clamps and rounds the sum to whole numbers of 1 / scale, adds discrete Gaussian noise of
variance v, and sends it into the secure sum. The guarantee is against the coordinator together with
up to c sites: it counts the noise of M - c sites, where M is the fewest survivors whose sum is ever
released. It does not hold against somebody who sees a single site's vector.

Why the total counts as one Gaussian of the event's noise multiplier z (each step is an inequality):

1. One patient moves a site's scaled sum by at most scale * clip_norm (L2); clamping moves nothing
   apart; rounding each coordinate at random to a neighbour adds less than 1 to its difference,
   whatever the randomness. So the whole-number sums differ by at most
   s = scale * clip_norm + sqrt(d).
2. The sum of h discrete Gaussians of variance v is within exp(10 h d exp(-pi^2 v)) of the discrete
   Gaussian of variance h v (Kairouz, Liu & Steinke 2021, "The Distributed Discrete Gaussian
   Mechanism", on sums of discrete Gaussians). With v >= 1000 that factor is 1 to 4000 digits.
3. A discrete Gaussian of variance h v around any whole number is, within exp(8 d exp(-8 pi^2)),
   what one gets by adding a Gaussian of variance h v - 4 and rounding that at random with a
   discrete Gaussian of variance 4 centred on it (convolution, Peikert 2010, theorem 3.1): the
   product of the two densities is the density of h v, but for the sum over the shifted lattice,
   which is constant to exp(4 exp(-8 pi^2)), 1 + 10^-33. So it is post-processing of a Gaussian
   mechanism of sensitivity s, and sampling, composition and all follow.

Hence v = ceil((z^2 s^2 + 4) / (M - c)) suffices, for d up to some 10^9 and as many rounds.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import PrivacyError
from consilium.shared.privacy.accounting import PrivacyEvent, plan
from consilium.shared.privacy.calibration import calibration_bound, calibration_size
from consilium.shared.privacy.discrete_gaussian import LARGEST_VARIANCE, discrete_gaussian
from consilium.shared.secure_sum.fixed_point import Segment
from consilium.shared.study.definition import Study

ROUNDING_SHARE = 64.0  # scale * clip_norm / sqrt(d): rounding then costs 1.6 % more noise
SMALLEST_UNIT = 1 << 10  # scale * clip_norm is at least this, for tiny models
SMALLEST_VARIANCE = 1000  # as step 2 of the argument needs
CONVOLUTION_VARIANCE = 4  # as step 3 needs
NOISE_MARGIN = 12.0  # standard deviations of one site's noise that fit; beyond: probability 1e-32
LEAST_CLAMP = 8.0  # clip norms that a coordinate of a site's sum may reach before it is clamped


@dataclass(frozen=True, kw_only=True)
class NoiseShare:
    """What each site does in a round of mode ``distributed``; follows from the study and d.

    scale: whole numbers per unit of gradient.
    clamp: largest absolute coordinate, in units of gradient, of a site's sum before noise.
    variance: of each site's own discrete Gaussian noise, in squared whole numbers.
    segment: of the secure sum's vector that carries them.
    honest: sites whose noise is counted.
    noise_multiplier: of the honest sites' noise together, as charged to the ledger.
    """

    scale: float
    clamp: float
    variance: int
    segment: Segment
    honest: int
    noise_multiplier: float


def noise_share(study: Study, parameters: int) -> NoiseShare:
    """Return every site's share of the noise, for a model of ``parameters`` coordinates d.

    Raises:
        PrivacyError: the study is of another mode, or its ring is too small to hold the sum and
            the noise.
    """
    costs = plan(study)
    event = None if costs is None else costs.training_round
    return _share(study, "update", parameters, event, study.privacy.clip_norm)


def calibration_share(study: Study) -> NoiseShare:
    """Return every site's share of the noise of a calibration round.

    Raises:
        PrivacyError: as :func:`noise_share`, or the study has no calibration rounds.
    """
    costs = plan(study)
    event = None if costs is None else costs.calibration
    return _share(study, "calibration", calibration_size(study), event, calibration_bound(study))


def _share(
    study: Study, name: str, length: int, event: PrivacyEvent | None, bound: float
) -> NoiseShare:
    """Return a site's share of the noise on a sum of ``length`` numbers, for this event.

    ``bound`` is the largest L2 norm of one patient's part.
    """
    how, privacy = study.aggregation, study.privacy
    honest = study.minimum_sites - how.tolerated_collusion
    if privacy.mode != "distributed" or event is None:
        raise PrivacyError(
            f"study {study.name}, of privacy mode {privacy.mode}, shares no noise of {name}; set "
            "mode = 'distributed'"
        )
    unit = max(SMALLEST_UNIT, ROUNDING_SHARE * math.sqrt(length))
    noise = event.noise_multiplier
    distance = unit + math.sqrt(length)
    variance = math.ceil(((noise * distance) ** 2 + CONVOLUTION_VARIANCE) / honest)
    variance = max(SMALLEST_VARIANCE, variance)
    largest = ((1 << (how.ring_bits - 1)) - 1) // len(study.sites)
    room = largest - math.ceil(NOISE_MARGIN * math.sqrt(variance)) - 1
    if room < LEAST_CLAMP * unit or variance > LARGEST_VARIANCE:
        raise PrivacyError(
            f"ring_bits {how.ring_bits} leaves {room / unit:.2g} clip norms for a site's sum "
            f"beside its noise, at least {LEAST_CLAMP:g} are needed; raise [aggregation] ring_bits "
            "or [privacy] epsilon"
        )
    scale = unit / bound
    segment = Segment(name=name, length=length, linf=largest / scale, scale=scale)
    while segment.qmax > largest:  # the division may have rounded up
        segment = Segment(
            name=name, length=length, linf=math.nextafter(segment.linf, 0.0), scale=scale
        )
    return NoiseShare(
        scale=scale,
        clamp=room / scale,
        variance=variance,
        segment=segment,
        honest=honest,
        noise_multiplier=noise,
    )


def noisy_sum(
    gradient_sum_D: NDArray[np.float64], share: NoiseShare, source: Keystream
) -> NDArray[np.int64]:
    """Return a site's clipped gradient sum as whole numbers (D,) with its share of the noise.

    Args:
        gradient_sum_D: sum of clipped patient gradients, or of a calibration round, shape (D,).
        share: from :func:`noise_share` or :func:`calibration_share`.
        source: secret and fresh; rounding and noise are drawn from it.

    Guarantee: one patient moves the result, noise aside, by at most scale * clip_norm + sqrt(d).

    Raises:
        PrivacyError: a coordinate is not finite, or (probability 1e-32) noise beyond its margin.
    """
    if not np.isfinite(gradient_sum_D).all():
        raise PrivacyError(
            "the sum of clipped gradients is not finite, so nothing may leave; check the features"
        )
    scaled_D = np.clip(gradient_sum_D, -share.clamp, share.clamp) * share.scale
    whole_D = np.floor(scaled_D + source.uniform_float64(len(scaled_D))).astype(np.int64)
    total_D = whole_D + discrete_gaussian(share.variance, len(scaled_D), source)
    if np.abs(total_D).max() > share.segment.qmax:
        raise PrivacyError(
            f"noise beyond {NOISE_MARGIN:g} standard deviations does not fit the ring, and cutting "
            "it off would break the guarantee; skip this round"
        )
    return total_D
