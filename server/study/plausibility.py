"""Could honest sites have made this sum? A norm bound on the aggregate.

With a secure sum no single update can be looked at. Every honest site clips its own; here the norm
of the sum is compared with the largest that clipped updates can add up to. One dishonest site can
still move the sum by as much as all clips together unnoticed: this stops only blunders and crude
attacks.
"""

import math

import numpy as np

from consilium.server.secure_sum.protocol import SumResult
from consilium.server.study.aggregation import SPAN, Spans
from consilium.shared.errors import RoundVoidError
from consilium.shared.privacy.calibration import calibration_bound
from consilium.shared.privacy.shared_noise import noise_share
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    calibration_noise,
    gradient_sum_bound,
    update_share,
    vector_spec,
)
from consilium.shared.study.definition import Study

NOISE_TAIL = 40.0
"""Natural logarithm of the odds against honest noise exceeding its allowance: e^-40."""


def norm_bound(
    *, length: int, sites: int, clip: float, scale: float, noise_std: float = 0.0
) -> float:
    """Return the largest L2 norm that a sum of clipped, noised and rounded updates can have.

    It is a sum of three: clip, by the triangle inequality; sites * sqrt(length) / scale for
    rounding; and for noise noise_std * sqrt(length + 2 sqrt(length x) + 2 x) with x = 40, which is
    exceeded with probability e^-40 at most (Laurent and Massart 2000, Lemma 1).

    Args:
        length: number of coordinates.
        sites: survivors summed.
        clip: sum of the L2 norms to which the survivors clip, each by its declared size.
        scale: ring units per unit of the encoding.
        noise_std: standard deviation of each coordinate of the sum's noise.
    """
    tail = length + 2.0 * math.sqrt(length * NOISE_TAIL) + 2.0 * NOISE_TAIL
    return clip + sites * math.sqrt(length) / scale + noise_std * math.sqrt(tail)


def l2_norm(values: Spans) -> float:
    """Return the L2 norm, read span by span."""
    spans = (values[first : first + SPAN] for first in range(0, values.size, SPAN))
    return math.sqrt(sum(float(np.dot(span, span)) for span in spans))


def check_norm(values: Spans, bound: float, *, name: str) -> float:
    """Return the L2 norm of a summed segment, if it is plausible.

    Args:
        values: the segment of `SumResult.parts`, shape (length,).
        bound: from `norm_bound`.
        name: of the segment, for the error.

    Raises:
        RoundVoidError: the norm exceeds the bound; nothing of the round should be used.
    """
    norm = l2_norm(values)
    if not norm <= bound:
        raise RoundVoidError(
            f"the sum of {name} has norm {norm:.6g}, and clipped updates reach at most "
            f"{bound:.6g}; some site did not clip, so the round is not used"
        )
    return norm


def check_plausible(study: Study, total: SumResult) -> None:
    """Refuse a sum of updates or of a calibration that honest, clipping sites could not have made.

    Raises:
        RoundVoidError: the norm is beyond its bound.
    """
    if "calibration" in total.parts:
        _check_calibration(study, total)
    for name in ("update", "control"):
        if name in total.parts:
            _check_segment(study, total, name)


def _check_calibration(study: Study, total: SumResult) -> None:
    sum_D, sites = total.parts["calibration"], len(total.survivors)
    spec = vector_spec(
        study,
        RoundConfiguration(purpose=Purpose.CALIBRATION),
        parameters=0,
        largest_size=total.roster.largest_size,
    )
    bound = norm_bound(
        length=sum_D.size,
        sites=sites,
        clip=calibration_bound(study) * total.weight,
        scale=spec.segments[0].scale,
        noise_std=math.sqrt(sites) * calibration_noise(study),
    )
    check_norm(sum_D, bound, name="a calibration round")


def _check_segment(study: Study, total: SumResult, name: str) -> None:
    sum_D = total.parts[name]
    sites, how = len(total.survivors), study.aggregation
    if study.privacy.mode == "distributed":
        share = noise_share(study, sum_D.size)
        sizes = total.roster.sizes
        clip = sum(gradient_sum_bound(study, sizes[site]) for site in total.survivors)
        scale, deviation = share.scale, math.sqrt(sites * share.variance) / share.scale
    else:
        asked = RoundConfiguration(purpose=Purpose.TRAINING)
        spec = vector_spec(
            study, asked, parameters=sum_D.size, largest_size=total.roster.largest_size
        )
        scale, deviation = spec.segments[0].scale, 0.0
        clip = how.update_norm * update_share(study, total.roster, total.survivors)
    bound = norm_bound(length=sum_D.size, sites=sites, clip=clip, scale=scale, noise_std=deviation)
    check_norm(sum_D, bound, name="updates" if name == "update" else "control variates")
