import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.server.study.plausibility import check_norm, norm_bound
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import RoundVoidError
from consilium.shared.secure_sum.fixed_point import (
    Segment,
    VectorSpec,
    decode,
    encode,
    largest_scale,
)


@given(
    sites=st.integers(1, 12),
    length=st.integers(1, 60),
    clip=st.floats(0.01, 100),
    noise=st.floats(0, 10),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_of_clipped_updates_are_never_refused(sites, length, clip, noise, seed):
    scale = largest_scale(clip, sites=sites, ring_bits=24)
    segment = Segment(name="u", length=length, linf=clip, scale=scale)
    spec = VectorSpec(ring_bits=24, segments=(segment,))
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=length)
    direction *= clip / np.linalg.norm(direction)
    source = Keystream(seed.to_bytes(32, "big"))
    total = sum(
        encode({"u": np.clip(direction, -clip, clip)}, spec, source).astype(np.uint64)
        for _ in range(sites)
    )
    values = decode((total % 2**24).astype(np.uint32), spec)["u"][:]
    values = values + rng.normal(0, noise, length)
    bound = norm_bound(length=length, sites=sites, clip=sites * clip, scale=scale, noise_std=noise)
    assert check_norm(values, bound, name="u") == pytest.approx(np.linalg.norm(values))


@pytest.mark.parametrize("values", [[3.0, 4.1], [np.nan, 0.0], [np.inf, 0.0]])
def test_a_sum_beyond_its_bound_voids_the_round(values):
    with pytest.raises(RoundVoidError, match=r"the sum of update has norm .* at most 5;"):
        check_norm(np.array(values), 5.0, name="update")
