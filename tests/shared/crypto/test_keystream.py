import math
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.crypto.keystream import PIECE_WORDS, Keystream, add_masks

SEEDS = [bytes([i]) * 32 for i in range(6)]


def stream(seed, words):
    """The keystream by the shortest way: one call over zeros."""
    cipher = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * words)), "<u4")


@pytest.mark.parametrize(
    "words", [1, 5, PIECE_WORDS - 1, PIECE_WORDS, PIECE_WORDS + 3, 4 * PIECE_WORDS + 1]
)
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_masks_are_the_plain_keystream_whatever_the_threads(words, threads):
    start = np.arange(words, dtype=np.uint32)
    vector = start.copy()
    plus, minus = SEEDS[:4] * 4, SEEDS[4:]
    add_masks(vector, plus=plus, minus=minus, threads=threads)
    expected = start.copy()
    for seed in plus:
        expected += stream(seed, words)
    for seed in minus:
        expected -= stream(seed, words)
    assert (vector == expected).all()


def test_what_is_added_is_taken_off_again():
    vector = np.arange(1000, dtype=np.uint32)
    add_masks(vector, plus=SEEDS)
    assert (vector != np.arange(1000)).mean() > 0.99
    add_masks(vector, minus=SEEDS)
    assert (vector == np.arange(1000)).all()


def test_no_seeds_change_nothing_and_a_short_seed_is_a_defect():
    vector = np.arange(3, dtype=np.uint32)
    add_masks(vector)
    assert vector.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="32 bytes, not 4"):
        add_masks(vector, plus=[b"1234"])


@given(st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=30)
def test_a_stream_read_in_pieces_is_the_same_stream(sizes):
    source = Keystream(SEEDS[1])
    read = b"".join(source.bytes(size) for size in sizes)
    assert read == stream(SEEDS[1], 600).tobytes()[: len(read)]


def test_words_are_the_stream_little_endian():
    assert (Keystream(SEEDS[2]).uniform_u32(100_000) == stream(SEEDS[2], 100_000)).all()
    words = Keystream(SEEDS[2]).uniform_u64(50_000)
    assert (words == stream(SEEDS[2], 100_000).view("<u8")).all()
    assert Keystream(SEEDS[2]).uniform_u32(0).shape == (0,)


def test_uniforms_are_53_bit_fractions_below_one():
    drawn = Keystream(SEEDS[3]).uniform_float64(100_000)
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    assert (drawn * 2.0**53 == np.floor(drawn * 2.0**53)).all()
    counts = np.histogram(drawn, 64, (0, 1))[0]
    chi_square = ((counts - 100_000 / 64) ** 2 / (100_000 / 64)).sum()
    assert chi_square < 63 + 6 * math.sqrt(2 * 63)


@pytest.mark.parametrize("count", [0, 1, 7, 200_000])
def test_normals_have_the_asked_for_number(count):
    assert Keystream(SEEDS[3]).standard_normal(count).shape == (count,)


def test_normals_follow_the_normal_distribution():
    count = 400_000
    drawn = np.sort(Keystream(SEEDS[4]).standard_normal(count))
    normal_cdf = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in drawn[::40]])
    empirical = np.arange(0, count, 40) / count
    assert np.abs(normal_cdf - empirical).max() < 1.95 / math.sqrt(count)
    assert abs(drawn.mean()) < 5 / math.sqrt(count)
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((drawn**4).mean() - 3) < 5 * math.sqrt(96 / count)
    assert np.isfinite(drawn).all()


def test_a_keystream_prints_and_pickles_nothing():
    source = Keystream(SEEDS[5])
    assert repr(source) == "<Keystream, secret>"
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(source)
