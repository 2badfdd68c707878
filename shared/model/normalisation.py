"""Normalisation: how measured values become model inputs of mean 0 and deviation 1.

Two steps. First a value is expressed against its variable's public reference, z = (s(x) -
s(center)) / spread with s the identity or the natural logarithm, clipped to +-CLIP. Then the mean
and deviation of z over all sites' patients, learned by one noisy secure sum, correct the
reference. Where the sum says little (few patients, much noise) the reference is kept.

A study that weighs classes by how often they occur counts them in the same sum; their shares travel
with the normalisation (:mod:`consilium.shared.model.class_shares`).
"""

import math
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from consilium.shared.errors import MessageError
from consilium.shared.model.class_shares import (
    LEAST_SHARE,
    class_sums,
    even_shares,
    shares_of_sums,
)
from consilium.shared.study.definition import Study
from consilium.shared.study.dictionary import Variable

CLIP = 5.0  # reference deviations; beyond it a value is believed but not its distance
_PRIOR_DEVIATION = 0.5  # how far, in reference deviations, a true mean is expected from its center
_DEVIATION_BOUNDS = (0.2, 5.0)  # a smaller or larger one would come from noise or a constant
_MAGIC, _MAGIC_WITH_SHARES = b"CNM1", b"CNM2"


def statistics_size(study: Study) -> int:
    """Return S, the length of a site's sum: for each variable patients, mean z and mean z^2.

    Those of classes follow, if the study counts them.
    """
    return 3 * len(study.variables) + class_sums(study)


def statistics_clip(study: Study) -> float:
    """Return the L2 norm to which a patient's statistics are clipped.

    A patient with every variable at one reference deviation from its center has norm sqrt(3 V);
    twice sqrt(V) leaves such patients whole. What is counted of classes adds sqrt(V) across.
    """
    return math.sqrt((5.0 if class_sums(study) else 4.0) * len(study.variables))


def reference_scores(values: NDArray[np.float32], variable: Variable) -> NDArray[np.float32]:
    """Express values in reference deviations: z = (s(x) - s(center)) / spread, clipped to +-CLIP.

    Args:
        values: any shape, in ``variable.unit``; NaN (missing) stays NaN.
        variable: the study's declaration.

    Guarantee: every result is NaN or lies in [-CLIP, CLIP].
    """
    if variable.scale == "log":
        floor = variable.center * np.exp(-CLIP * variable.spread)  # log of 0 or less is -CLIP
        distance = np.log(np.maximum(values, np.float32(floor)) / np.float32(variable.center))
    else:
        distance = values - np.float32(variable.center)
    scores = np.clip(distance / np.float32(variable.spread), -CLIP, CLIP)
    return np.asarray(scores, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalisation:
    """Mean and deviation of each variable's reference score over the federation's patients.

    Attributes:
        mean_V: float64, within +-CLIP.
        deviation_V: float64, above 0.
        share_K: float64, how often each class occurs, or each label where it is known; empty unless
            the study weighs its loss by that.
    """

    mean_V: NDArray[np.float64]
    deviation_V: NDArray[np.float64]
    share_K: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Normalisation)
            and np.array_equal(self.mean_V, other.mean_V)
            and np.array_equal(self.deviation_V, other.deviation_V)
            and np.array_equal(self.share_K, other.share_K)
        )

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    @classmethod
    def reference(cls, study: Study) -> Self:
        """The study's public reference alone: mean 0, deviation 1, classes equally frequent."""
        variables = len(study.variables)
        return cls(
            mean_V=np.zeros(variables), deviation_V=np.ones(variables), share_K=even_shares(study)
        )

    @classmethod
    def from_sums(cls, sum_S: NDArray[np.float64], study: Study, *, noise: float = 0.0) -> Self:
        """Estimate from the sum over patients of their statistics, itself noisy or not.

        The sum holds, per variable, the number of patients measured and the sums of their mean z
        and mean z squared (see :mod:`consilium.client.records.statistics`). Mean and variance are
        shrunk towards the reference (0 and 1) by the empirical-Bayes weight p / (p + e): p the
        prior variance of a mean, e the variance of its estimate, (noise^2 + n) / n^2 at n patients.

        Args:
            sum_S: [present_V, first_V, second_V], then those of classes.
            study: whose statistics they are.
            noise: standard deviation of the noise in every coordinate of the sum.

        Guarantee: the result is finite and within bounds whatever finite sum is given.
        """
        sum_S = np.asarray(sum_S, dtype=np.float64)
        of_variables, of_classes = np.split(sum_S, [3 * len(study.variables)])
        present_V, first_V, second_V = np.split(of_variables, 3)
        patients_V = np.maximum(present_V, 1.0)
        error_V = (noise**2 + patients_V) / patients_V**2
        weight_V = np.where(present_V >= 1.0, 1.0, 0.0) / (1.0 + error_V / _PRIOR_DEVIATION**2)
        raw_V = np.clip(first_V / patients_V, -CLIP, CLIP)
        variance_V = np.clip(second_V / patients_V - raw_V**2, 0.0, CLIP**2)
        deviation_V = np.sqrt(1.0 + weight_V * (variance_V - 1.0))
        share_K = np.empty(0)
        if class_sums(study):
            share_K = shares_of_sums(of_classes, study, noise=noise)
        return cls(
            mean_V=weight_V * raw_V,
            deviation_V=np.clip(deviation_V, *_DEVIATION_BOUNDS),
            share_K=share_K,
        )

    def to_bytes(self) -> bytes:
        """Magic, V as uint32, then means, deviations and shares as float64, all little-endian."""
        body = np.concatenate([self.mean_V, self.deviation_V, self.share_K]).astype("<f8")
        magic = _MAGIC_WITH_SHARES if self.share_K.size else _MAGIC
        return magic + struct.pack("<I", len(self.mean_V)) + body.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, study: Study, *, to_train: bool = True) -> Self:
        """Parse :meth:`to_bytes`, strictly.

        Args:
            data: encoded.
            study: whose normalisation it is.
            to_train: whether the shares of classes must be there, if the study asks for them; a
                finished model is used without.

        Raises:
            MessageError: wrong magic, count or length, or a number out of bounds.
        """
        variables = len(study.variables)
        shares = study.task.outputs if to_train and class_sums(study) else 0
        mean_V, deviation_V, share_K = _parsed(bytes(data), variables, shares)
        return cls(mean_V=mean_V, deviation_V=deviation_V, share_K=share_K)


@lru_cache(maxsize=8)  # all sites of a simulation parse the same bytes, several times a round
def _parsed(data: bytes, variables: int, shares: int) -> tuple[NDArray[np.float64], ...]:
    """Return means, deviations and shares, read-only; see :meth:`Normalisation.from_bytes`."""
    expected = len(_MAGIC) + 4 + 16 * variables + 8 * shares
    if len(data) != expected:
        raise MessageError(
            f"normalisation is {len(data)} bytes, not the {expected} of this study's "
            f"{variables} variables; both sides must run the same study and version"
        )
    magic = _MAGIC_WITH_SHARES if shares else _MAGIC
    if data[:4] != magic or struct.unpack("<I", data[4:8])[0] != variables:
        raise MessageError(
            "normalisation does not start with the mark of its format; "
            "both sides must run the same version"
        )
    body = np.frombuffer(data, dtype="<f8", offset=8)  # of bytes, so nobody can write it
    mean_V, deviation_V, share_K = np.split(body, [variables, 2 * variables])
    low, high = _DEVIATION_BOUNDS
    if not (np.abs(mean_V) <= CLIP).all():
        raise MessageError(f"normalisation has a mean beyond +-{CLIP:g}; discard the message")
    if not ((deviation_V >= low) & (deviation_V <= high)).all():
        raise MessageError(
            f"normalisation has a deviation outside {low:g} to {high:g}; discard the message"
        )
    if not ((share_K >= LEAST_SHARE) & (share_K <= 1)).all():
        raise MessageError(
            f"normalisation has a share of a class outside {LEAST_SHARE:g} to 1; discard the "
            "message"
        )
    return mean_V, deviation_V, share_K
