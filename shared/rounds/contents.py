"""What the vector of each secure sum of a study holds; both sides derive it from the study.

A study's rounds are of four purposes: one sum of normalisation statistics, then training rounds,
then calibration rounds where risks are put right under privacy, then evaluations of the finished
model. A site counts as the number of patients that it declared,
which the roster holds: no number of patients travels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgpack
import numpy as np
from numpy.typing import NDArray

from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import MessageError, PrivacyError, StudyError
from consilium.shared.figures.score_counts import first_edges
from consilium.shared.model.normalisation import statistics_clip, statistics_size
from consilium.shared.privacy.accounting import plan
from consilium.shared.privacy.calibration import calibration_bound, calibration_size
from consilium.shared.privacy.shared_noise import calibration_share, noise_share
from consilium.shared.rounds.attribution_bands import PARTS, attributions_size
from consilium.shared.rounds.patient_groups import (
    block_parts,
    block_size,
    memberships,
    patient_groups,
)
from consilium.shared.secure_sum.fixed_point import Segment, VectorSpec, largest_scale
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study
from consilium.shared.wire.encoding import LARGEST_HEAD_BYTES, MAX_SITES

LARGEST_CONFIGURATION_BYTES = 1 << 20
LARGEST_EDGES_BYTES = 1 << 19  # leaves room for the rest of the configuration
NOISE_MARGIN = 12.0  # standard deviations of privacy noise that must fit; beyond: probability 1e-32
LARGEST_ERROR = 5.0  # spreads; a patient's mean absolute error is counted up to this
LARGEST_LOSS = 5.0  # a patient's loss is counted up to this, so that one patient's share is bounded


class Purpose(StrEnum):
    """Why a round's vectors are summed."""

    STATISTICS = "statistics"
    TRAINING = "training"
    CALIBRATION = "calibration"
    EVALUATION = "evaluation"


@dataclass(frozen=True, kw_only=True)
class RoundConfiguration:
    """What the coordinator asks of a round, beside the global weights.

    ``normalisation`` is the encoded :class:`consilium.shared.model.normalisation.Normalisation`,
    empty in the statistics round. ``evaluate`` asks a training round to bring validation counts
    too. ``audit_head`` is the coordinator's :class:`consilium.shared.audit.heads.AuditHead`,
    encoded; empty if it keeps no log. ``site_heads`` are the newest of the sites' own, one a site,
    so that all take part under the same ones. ``edges`` are those of the bins of risks
    (:func:`edges_to_bytes`), empty for :func:`consilium.shared.figures.score_counts.first_edges`.
    """

    purpose: Purpose
    evaluate: bool = False
    normalisation: bytes = b""
    audit_head: bytes = b""
    edges: bytes = b""
    site_heads: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """Encode as msgpack."""
        packed: bytes = msgpack.packb(
            [
                self.purpose.value,
                self.evaluate,
                self.normalisation,
                self.audit_head,
                self.edges,
                self.site_heads,
            ]
        )
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "RoundConfiguration":
        """Decode strictly.

        Raises:
            MessageError: the bytes are not a round configuration.
        """
        if len(data) > LARGEST_CONFIGURATION_BYTES:
            raise MessageError(
                f"round configuration: {len(data)} bytes is above the bound of "
                f"{LARGEST_CONFIGURATION_BYTES}; the coordinator must send a shorter one"
            )
        try:
            fields = msgpack.unpackb(data, use_list=False)
            purpose, evaluate, normalisation, head, edges, site_heads = fields
            if not isinstance(evaluate, bool) or not isinstance(normalisation, bytes):
                raise TypeError("a field has the wrong type")
            if not isinstance(edges, bytes):
                raise TypeError("a field has the wrong type")
            if not isinstance(site_heads, tuple) or len(site_heads) > MAX_SITES:
                raise TypeError("a field has the wrong type")
            for shown in (head, *site_heads):
                if not isinstance(shown, bytes) or len(shown) > LARGEST_HEAD_BYTES:
                    raise TypeError("the audit head is not one")
            return cls(
                purpose=Purpose(purpose),
                evaluate=evaluate,
                normalisation=normalisation,
                audit_head=head,
                edges=edges,
                site_heads=site_heads,
            )
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise MessageError(
                "round configuration: not of this version; use the same version at both ends"
            ) from error


def group_parameters(study: Study, roster: Roster, run_id: bytes) -> tuple[SumParameters, ...]:
    """Return the secure sums' parameters for one run of a study, by group of sites.

    ``roster`` has the sites' declared sizes.

    Raises:
        StudyError: the study's numbers do not give the secure sum's guarantees, or a declared
            size is above the study's ``max_weight``.
    """
    return tuple(_parameters(study, roster.restricted_to(group), run_id) for group in study.groups)


def sum_parameters(study: Study, roster: Roster, run_id: bytes, *, site: str) -> SumParameters:
    """Return the parameters of the secure sum that a site takes part in.

    ``roster`` has the declared sizes of that sum's sites at least.

    Raises:
        StudyError: as :func:`group_parameters`, or the study does not name the site.
    """
    return _parameters(study, roster.restricted_to(group_of(study, site)), run_id)


def group_of(study: Study, site: str) -> tuple[str, ...]:
    """Return the sites that are summed together with this one, itself included.

    Raises:
        StudyError: the study does not name the site.
    """
    for group in study.groups:
        if site in group:
            return group
    raise StudyError(f"study {study.name} does not name site {site}; add it to sites")


def _parameters(study: Study, roster: Roster, run_id: bytes) -> SumParameters:
    for site, size in roster.sizes.items():
        check_size(study, site, size)
    return SumParameters(
        study_digest=study.digest,
        run_id=run_id,
        roster=roster,
        threshold=study.threshold,
        minimum_sites=study.minimum_sites,
        collusion=study.aggregation.tolerated_collusion,
        degree=study.degree,
    )


def check_size(study: Study, site: str, patients: int) -> None:
    """Check that a site may declare this size in the study.

    Raises:
        StudyError: it is above ``[aggregation] max_weight``.
    """
    most = study.aggregation.max_weight
    if patients > most:
        raise StudyError(
            f"site {site} declares {patients} patients, above the study's [aggregation] max_weight "
            f"{most}; declare fewer, or ask for a study that allows more"
        )


def counts_shape(study: Study) -> tuple[int, int, int]:
    """Return (K, 2, B): one table of score counts for each output that is a risk.

    Regression has no risks, so K is 0.
    """
    outputs = 0 if study.task.kind == "regression" else study.task.outputs
    return outputs, 2, study.bins


def edges_to_bytes(edges_KL: NDArray[np.float32], study: Study) -> bytes:
    """Encode the edges of each output's bins as float32; as nothing where they are too many."""
    most = study.task.outputs * (study.bins - 1) * 4
    return edges_KL.astype("<f4").tobytes() if most <= LARGEST_EDGES_BYTES else b""


def edges_from_bytes(data: bytes, study: Study) -> NDArray[np.float32]:
    """Decode edges (K, L) strictly; ``first_edges`` where there are none.

    Raises:
        MessageError: not as many ascending risks as the study has bins.
    """
    outputs, _, bins = counts_shape(study)
    if not data:
        first_L = first_edges(bins, study.evaluation.thresholds)
        return np.tile(first_L, (outputs, 1))
    if len(data) != 4 * outputs * (bins - 1) or len(data) > LARGEST_EDGES_BYTES:
        raise MessageError(
            f"edges of bins are {len(data)} bytes, not those of this study's {outputs} times "
            f"{bins} bins; both sides must run the same study and version"
        )
    edges_KL = np.frombuffer(data, dtype="<f4").reshape(outputs, bins - 1).astype(np.float32)
    if not ((edges_KL > 0) & (edges_KL <= 1)).all() or not (np.diff(edges_KL) > 0).all():
        raise MessageError("edges of bins are not ascending risks; discard the message")
    return edges_KL


def hits_size(study: Study) -> int:
    """Return how many sums the task needs beyond its risk tables.

    Multiclass: the K * K confusion of true and most likely class. Regression: for each target the
    sums of absolute and of squared errors, and of the patients they were measured on.
    """
    outputs = study.task.outputs
    return {"multiclass": outputs * outputs, "regression": 3 * outputs}.get(study.task.kind, 0)


def update_share(study: Study, roster: Roster, sites: Iterable[str]) -> float:
    """Return the factor by which a site multiplies its clipped update, added up over these sites.

    It is the site's declared size over the roster's largest, hence in (0, 1]; 1 in a study that
    weights its sites alike. Added up over the survivors it is what the sum of updates is divided by
    for their mean.
    """
    if study.aggregation.weighting == "uniform":
        return float(sum(1 for _ in sites))
    return sum(roster.sizes[site] for site in sites) / roster.largest_size


def gradient_sum_bound(study: Study, patients: int) -> float:
    """Return the largest L2 norm of a site's sum of clipped gradients in mode ``distributed``.

    It is that of as many patients as a Poisson sample of the declared ``patients`` is expected to
    hold, and five standard deviations more, but not more than all of them. A site whose sum is
    longer scales it down; the bound knows nothing of its records.
    """
    expected = study.training.sampling_rate * patients
    return study.privacy.clip_norm * min(float(patients), expected + 5 * math.sqrt(expected))


def validation_patients(study: Study, patients: int) -> float:
    """Return as how many validation patients a site of this declared size may count."""
    held_out = study.evaluation.validation_fraction
    return patients * max(1.0, held_out / (1 - held_out))


def metrics_sensitivity(study: Study, *, final: bool = False) -> float:
    """Return the largest L2 norm of one patient's share, every part of which has norm 1 at most.

    The parts: K score tables, a loss, a count, and the confusion (multiclass) or three sums for
    each target (regression). Of the final model also the parts of a group's block for each way in
    which patients are grouped, and the parts of attributions.
    """
    of_groups = block_parts(study) * memberships(study)
    last = of_groups + PARTS * bool(attributions_size(study)) if final else 0
    more = {"multiclass": 1, "regression": hits_size(study)}.get(study.task.kind, 0)
    return math.sqrt(counts_shape(study)[0] + 2 + more + last)


def statistics_noise(study: Study) -> float:
    """Return the standard deviation of a site's noise on each statistic; 0 without privacy."""
    costs = plan(study)
    return costs.statistics.noise_multiplier * statistics_clip(study) if costs else 0.0


def metrics_noise(study: Study, *, final: bool = False) -> float:
    """Return the standard deviation of a site's noise on each count; 0 without privacy."""
    costs = plan(study)
    return (
        costs.metrics.noise_multiplier * metrics_sensitivity(study, final=final) if costs else 0.0
    )


def calibration_noise(study: Study) -> float:
    """Return the standard deviation of a site's noise on each sum of a calibration round.

    Raises:
        PrivacyError: the study has no such rounds, or its ring is too small for the noise.
    """
    if study.privacy.mode == "distributed":
        share = calibration_share(study)
        return math.sqrt(share.variance) / share.scale
    costs = plan(study)
    if costs is None or costs.calibration is None:
        raise PrivacyError(f"study {study.name} has no calibration rounds; ask for none")
    return costs.calibration.noise_multiplier * calibration_bound(study)


def vector_spec(
    study: Study, asked: RoundConfiguration, *, parameters: int, largest_size: int
) -> VectorSpec:
    """Return the segments of a round's vector.

    ``parameters`` is the model's size D, ``largest_size`` the roster's largest declared size.
    """
    how = study.aggregation
    segments: list[Segment] = []
    if asked.purpose is Purpose.STATISTICS:
        bound = largest_size * statistics_clip(study) + NOISE_MARGIN * statistics_noise(study)
        segments.append(_segment(study, "statistics", statistics_size(study), bound))
    if asked.purpose is Purpose.TRAINING and study.privacy.mode == "distributed":
        segments.append(noise_share(study, parameters).segment)
    elif asked.purpose is Purpose.TRAINING:
        segments.append(_segment(study, "update", parameters, how.update_norm))
        if study.training.control_variates:
            segments.append(_segment(study, "control", parameters, how.update_norm))
    if asked.purpose is Purpose.CALIBRATION and study.privacy.mode == "distributed":
        segments.append(calibration_share(study).segment)
    elif asked.purpose is Purpose.CALIBRATION:
        bound = largest_size * calibration_bound(study) + NOISE_MARGIN * calibration_noise(study)
        segments.append(_segment(study, "calibration", calibration_size(study), bound))
    if asked.evaluate or asked.purpose is Purpose.EVALUATION:
        outputs, classes, bins = counts_shape(study)
        final = asked.purpose is Purpose.EVALUATION
        most = validation_patients(study, largest_size) * metrics_sensitivity(study, final=final)
        bound = most + NOISE_MARGIN * metrics_noise(study, final=final)
        segments.append(_segment(study, "loss", 2, bound))
        if outputs:
            segments.append(_segment(study, "scores", outputs * classes * bins, bound))
        if size := hits_size(study):
            segments.append(_segment(study, "hits", size, bound))
        if final and (groups := len(patient_groups(study))):
            segments.append(_segment(study, "groups", groups * block_size(study), bound))
        if final and (size := attributions_size(study)):
            segments.append(_segment(study, "attributions", size, bound))
    return VectorSpec(ring_bits=how.ring_bits, segments=tuple(segments))


def _segment(study: Study, name: str, length: int, linf: float) -> Segment:
    """A segment scaled by the largest power of two that fits: whole numbers are summed exactly."""
    fits = largest_scale(linf, sites=len(study.sites), ring_bits=study.aggregation.ring_bits)
    return Segment(name=name, length=length, linf=linf, scale=2.0 ** math.floor(math.log2(fits)))
