"""One of eight hospitals wants the model for itself, and claims more patients than it declared.

When the weight came with the sum, a hospital that claimed the study's ``max_weight`` of 10,000
patients bent the mean update to itself, cosine 0.995, within every bound.
"""

import numpy as np
import pytest

from consilium.server.secure_sum.protocol import SumResult
from consilium.server.study.plausibility import check_plausible
from consilium.server.study.run import MeanUpdate
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import RoundVoidError
from consilium.shared.privacy.shared_noise import noise_share, noisy_sum
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    gradient_sum_bound,
    update_share,
    vector_spec,
)
from consilium.shared.secure_sum.fixed_point import VectorSpec, decode, encode
from consilium.shared.study.definition import with_changes
from tests.rosters import sized_roster
from tests.study_text import small_study

D = 5000
SITES = [f"h{number}" for number in range(8)]
SIZES = dict(zip(SITES, (300, 400, 200, 400, 300, 300, 500, 300), strict=True))
ATTACKER = SITES[-1]
TARGET = np.ones(D) / D**0.5
KEYS = {site: IdentityKey.from_seed(site.encode().ljust(32, b".")) for site in SITES}
TRAINING = RoundConfiguration(purpose=Purpose.TRAINING)


def result_of(vectors: dict[str, np.ndarray], spec: VectorSpec, roster: Roster) -> SumResult:
    """What the secure sum over all sites gives."""
    total = sum(vector.astype(np.uint64) for vector in vectors.values()).astype(np.uint32)
    return SumResult(
        parts=decode(total, spec),
        ring_total=total,
        roster=roster,
        survivors=tuple(vectors),
        dropped=(),
        refusals={},
        seconds={},
        bytes_up={},
        bytes_down={},
        audit_heads={},
    )


def attacked(factor: float, **sizes: int) -> tuple[float, float]:
    """The attacker's part of the mean, in clip norms, and the mean's cosine with its direction.

    ``factor`` times its share of the clip bound is what the attacker sends.
    """
    study = with_changes(
        small_study(privacy={"mode": "site"}, aggregation={"max_weight": 10_000}),
        study={"sites": tuple(SITES)},
    )
    roster = sized_roster(KEYS, study.digest, **{**SIZES, **sizes})
    spec = vector_spec(study, TRAINING, parameters=D, largest_size=roster.largest_size)
    rng, norm = np.random.default_rng(1), study.aggregation.update_norm
    vectors = {}
    for site in SITES:
        step_D = rng.normal(size=D)
        length = norm * update_share(study, roster, [site])
        update_D = length * step_D / np.linalg.norm(step_D)
        if site == ATTACKER:
            update_D = factor * length * TARGET
        vectors[site] = encode({"update": update_D}, spec, Keystream(site.encode().ljust(32)))
    total = result_of(vectors, spec, roster)
    check_plausible(study, total)
    shared_D = np.ones(D, bool)
    mean_D = MeanUpdate(
        study=study, totals=(total,), weights_D=np.zeros(D, np.float32), shared_D=shared_D
    )[0:D]
    return mean_D @ TARGET / norm, mean_D @ TARGET / np.linalg.norm(mean_D)


def test_who_keeps_to_the_clip_bound_moves_the_mean_by_its_declared_share_of_it() -> None:
    part, cosine = attacked(1.0)
    assert part == pytest.approx(300 / 2700, abs=0.02)
    assert cosine < 0.3  # 0.995 for the same hospital when it could claim 10,000 patients


def test_who_declared_a_huge_size_has_it_and_everybody_saw_it_in_the_roster() -> None:
    part, cosine = attacked(1.0, h7=10_000)
    assert part == pytest.approx(10_000 / 12_400, abs=0.02)
    assert cosine > 0.99


def test_who_claims_ten_thousand_in_its_vector_alone_is_beyond_what_clips_allow() -> None:
    with pytest.raises(RoundVoidError, match="the sum of updates has norm"):
        attacked(10_000 / 300)


def test_who_does_not_clip_has_what_all_clips_together_leave_and_no_more() -> None:
    """A secure sum cannot show one update's norm: this is the part that remains."""
    assert attacked(8.0)[1] == pytest.approx(0.93, abs=0.01)
    with pytest.raises(RoundVoidError):
        attacked(10.0)


def test_a_shared_noise_sum_is_bounded_by_the_samples_of_declared_sizes() -> None:
    study = with_changes(
        small_study(
            privacy={"mode": "distributed"},
            training={"local_steps": 1, "sampling_rate": 0.1},
            aggregation={"max_weight": 10_000},
        ),
        study={"sites": tuple(SITES)},
    )
    roster = sized_roster(KEYS, study.digest, **SIZES)
    share = noise_share(study, D)
    spec = vector_spec(study, TRAINING, parameters=D, largest_size=roster.largest_size)

    def total(factor: float) -> SumResult:
        vectors = {}
        for number, site in enumerate(SITES):
            source = Keystream(bytes([number]) * 32)
            bound = gradient_sum_bound(study, roster.sizes[site])
            length = factor * bound if site == ATTACKER else bound
            whole_D = noisy_sum(length * TARGET, share, source)
            vectors[site] = encode({"update": whole_D}, spec, source)
        return result_of(vectors, spec, roster)

    check_plausible(study, total(1.0))  # honest sites are never refused
    with pytest.raises(RoundVoidError, match="the sum of updates has norm"):
        check_plausible(study, total(40.0))
