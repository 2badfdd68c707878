import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import EncodingError
from consilium.shared.secure_sum.fixed_point import (
    RING_BITS,
    Segment,
    VectorSpec,
    decode,
    encode,
    largest_scale,
)

SOURCE_SEED = b"rounding".ljust(32, b"-")


def spec_of(ring_bits=32, **changes):
    given = {"name": "a", "length": 3, "linf": 1.0, "scale": 1000.0, **changes}
    return VectorSpec(ring_bits=ring_bits, segments=(Segment(**given),))


def encode_one(values, spec):
    return encode({"a": values}, spec, Keystream(SOURCE_SEED))


@given(
    ring_bits=st.sampled_from(RING_BITS),
    sites=st.integers(2, 40),
    linf=st.floats(1e-6, 1e6),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_sum_of_encodings_at_the_bound_ever_wraps(ring_bits, sites, linf, dtype, seed):
    scale = largest_scale(linf, sites=sites, ring_bits=ring_bits)
    spec = spec_of(ring_bits, linf=linf, scale=scale)
    spec.check_headroom(sites, max_weight=1)
    rng = np.random.default_rng(seed)
    values = (rng.choice([-1.0, 1.0, 0.5], 3) * linf).astype(dtype)
    encodings = [encode_one(values, spec) for _ in range(sites)]
    total = np.sum(encodings, axis=0, dtype=np.uint32) & np.uint32(2**ring_bits - 1)
    decoded = decode(total, spec)["a"][:]
    bounded = np.clip(values.astype(float), -linf, linf)  # single precision may round beyond linf
    assert np.abs(decoded - sites * bounded).max() <= (sites + 1) / scale


@given(linf=st.floats(1e-9, 1e9), sites=st.integers(1, 16_000), bits=st.sampled_from(RING_BITS))
def test_the_largest_scale_fits_and_uses_the_whole_range(linf, sites, bits):
    if sites >= 2 ** (bits - 1) - 1:
        return
    qmax = (2 ** (bits - 1) - 1) // sites
    scale = largest_scale(linf, sites=sites, ring_bits=bits)
    assert qmax - 1 <= math.ceil(scale * linf) <= qmax


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_an_encoding_is_one_of_the_two_neighbouring_whole_numbers(values):
    spec = spec_of()
    q = encode_one(np.array(values), spec).view(np.int32)
    exact = np.array(values) * 1000.0
    assert ((q == np.floor(exact)) | (q == np.ceil(exact))).all()


def test_rounding_is_right_on_average():
    spec = spec_of(length=200_000, scale=10.0)
    values = np.full(200_000, 0.0333)
    mean = encode_one(values, spec).view(np.int32).mean()
    assert abs(mean - 0.333) < 5 * math.sqrt(0.333 * 0.667 / 200_000)


def test_whole_numbers_and_integer_arrays_are_encoded_exactly():
    spec = spec_of(scale=1.0, linf=1000)
    assert encode_one(np.array([-1000.0, 0.0, 1000.0]), spec).view(np.int32).tolist() == [
        -1000,
        0,
        1000,
    ]
    for dtype in (np.int64, np.int32, np.int16):
        encoded = encode_one(np.array([-3, 0, 1000], dtype), spec)
        assert encoded.view(np.int32).tolist() == [-3, 0, 1000]
        assert decode(encoded, spec)["a"][:].tolist() == [-3.0, 0.0, 1000.0]


def test_a_vector_clipped_in_single_precision_is_accepted_and_stays_in_its_bound():
    spec = spec_of(linf=0.1, scale=1000.0)
    clipped = np.clip(np.array([9, -9, 0], np.float32), np.float32(-0.1), np.float32(0.1))
    assert np.abs(encode_one(clipped, spec).view(np.int32)).max() <= 100


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.001, -1.001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_not_finite_or_out_of_range_are_refused(bad, dtype):
    for place in range(3):
        values = np.zeros(3, dtype)
        values[place] = bad
        with pytest.raises(EncodingError, match=r"not finite or beyond its bound of 1\.0"):
            encode_one(values, spec_of())


def test_a_bad_value_beyond_the_first_piece_is_refused():
    values = np.zeros(100_000)
    values[-1] = np.nan
    with pytest.raises(EncodingError, match="not finite"):
        encode_one(values, spec_of(length=100_000))


@pytest.mark.parametrize("bad", [-1001, 1001, 2**31, -(2**40)])
def test_integers_beyond_their_bound_are_refused(bad):
    with pytest.raises(EncodingError, match="beyond its bound of 1000"):
        encode_one(np.array([0, bad, 0], np.int64), spec_of())


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "the parts given are"),
        ({"b": np.zeros(3)}, "the parts given are"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, "the parts given are"),
        ({"a": np.zeros(2)}, "has shape"),
        ({"a": np.zeros((3, 1))}, "has shape"),
        ({"a": np.zeros(3, bool)}, "neither float nor integer"),
        ({"a": np.zeros(3, complex)}, "neither float nor integer"),
        ({"a": np.zeros(3, np.float16)}, "neither float nor integer"),
    ],
)
def test_parts_of_another_layout_are_refused(parts, sentence):
    with pytest.raises(EncodingError, match=sentence):
        encode(parts, spec_of(), Keystream(SOURCE_SEED))


@pytest.mark.parametrize(
    "changes",
    [
        {"length": 0},
        {"linf": 0.0},
        {"linf": -1.0},
        {"linf": math.nan},
        {"linf": math.inf},
        {"scale": 0.0},
        {"scale": math.nan},
        {"linf": 2.0**20, "scale": 2.0**11},
    ],
)
def test_impossible_segments_are_refused(changes):
    with pytest.raises(EncodingError):
        spec_of(**changes)


def test_layouts_need_a_known_ring_and_segments_of_different_names():
    segment = Segment(name="a", length=1, linf=1.0)
    with pytest.raises(EncodingError, match="not supported"):
        VectorSpec(ring_bits=18, segments=(segment,))
    for segments in ((), (segment, segment)):
        with pytest.raises(EncodingError, match="named differently"):
            VectorSpec(ring_bits=32, segments=segments)


def test_headroom_counts_values_and_weights_to_the_last_unit():
    spec = spec_of(16, scale=1.0, linf=8191)
    spec.check_headroom(4, max_weight=8191)
    with pytest.raises(EncodingError, match="the weight"):
        spec.check_headroom(4, max_weight=8192)
    with pytest.raises(EncodingError, match="segment a"):
        spec_of(16, scale=1.0, linf=8192).check_headroom(4, max_weight=1)


def test_no_scale_exists_for_too_many_sites_or_an_impossible_bound():
    for sites, linf in ((40_000, 1.0), (2, math.inf), (2, 0.0), (2, math.nan)):
        with pytest.raises(EncodingError, match="no scale"):
            largest_scale(linf, sites=sites, ring_bits=16)


def test_a_total_of_another_length_is_not_decoded():
    with pytest.raises(EncodingError, match="the total has shape"):
        decode(np.zeros(4, np.uint32), spec_of())


def test_the_digest_tells_all_layouts_apart():
    layouts = [
        spec_of(),
        spec_of(24),
        spec_of(length=4),
        spec_of(linf=2.0),
        spec_of(scale=999.0),
        spec_of(name="b"),
        VectorSpec(
            ring_bits=32,
            segments=(*spec_of().segments, Segment(name="b", length=1, linf=1)),
        ),
    ]
    assert len({layout.digest for layout in layouts}) == len(layouts)
    assert spec_of(linf=1).digest == spec_of(linf=1.0).digest


def test_encoding_is_the_same_from_the_same_seed_and_differs_between_segments():
    spec = VectorSpec(
        ring_bits=32,
        segments=tuple(Segment(name=n, length=500, linf=1.0, scale=10.0) for n in "ab"),
    )
    half = {"a": np.full(500, 0.05), "b": np.full(500, 0.05)}
    first = encode(half, spec, Keystream(SOURCE_SEED))
    assert (first == encode(half, spec, Keystream(SOURCE_SEED))).all()
    assert (first[:500] != first[500:]).any()
