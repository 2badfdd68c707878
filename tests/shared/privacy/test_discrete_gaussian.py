"""The exact discrete Gaussian: its distribution, and its decisions that need more digits."""

import math

import numpy as np
import pytest
from scipy import stats

import consilium.shared.privacy.discrete_gaussian
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import PrivacyError
from consilium.shared.kernels import build, discrete
from consilium.shared.privacy.discrete_gaussian import (
    _exceeds_exactly,
    _floor_exactly,
    discrete_gaussian,
)


def stream(number: int) -> Keystream:
    return Keystream(number.to_bytes(32, "little"))


def fits(sample: np.ndarray, variance: int) -> float:
    """p-value of a chi-square test against the discrete Gaussian's own probabilities."""
    reach = math.ceil(3.5 * math.sqrt(variance))
    values = np.arange(-20 * reach, 20 * reach + 1)
    weights = np.exp(-(values.astype(float) ** 2) / (2 * variance))
    probability = weights / weights.sum()
    inner = np.abs(values) <= reach
    expected = np.append(probability[inner], probability[~inner].sum()) * len(sample)
    counts = np.array([np.count_nonzero(sample == v) for v in values[inner]])
    observed = np.append(counts, len(sample) - counts.sum())
    return stats.chisquare(observed, expected).pvalue


@pytest.mark.parametrize("variance", [1, 2, 7, 100])
def test_small_variances_have_exactly_the_right_probabilities(variance):
    assert fits(discrete_gaussian(variance, 300_000, stream(variance)), variance) > 1e-4


@pytest.mark.parametrize("variance", [10**5, 10**9, 2**50])
def test_large_variances_look_normal(variance):
    sample = discrete_gaussian(variance, 200_000, stream(1)) / math.sqrt(variance)
    assert stats.kstest(sample, "norm").pvalue > 1e-4


def test_the_chi_square_test_notices_a_slightly_wrong_variance():
    sample = discrete_gaussian(103, 300_000, stream(5))
    assert fits(sample, 100) < 1e-4


def test_the_same_stream_gives_the_same_noise_and_any_count_is_served():
    assert np.array_equal(
        discrete_gaussian(50, 999, stream(1)), discrete_gaussian(50, 999, stream(1))
    )
    assert discrete_gaussian(50, 0, stream(1)).shape == (0,)
    assert discrete_gaussian(50, 1, stream(1)).dtype == np.int64


@pytest.mark.parametrize("variant", build.VARIANTS)
@pytest.mark.parametrize("slack", [2.0**-46, 1e-3])
def test_the_kernel_draws_the_same_numbers_as_numpy_and_reads_the_stream_as_far(
    variant, slack, monkeypatch
):
    """Also where many decisions are doubtful, and for counts that fill no vector."""
    library, status = build.load_kernel()
    if library is None:
        pytest.skip(status.sentence)
    if build.VARIANTS.index(variant) > library.consilium_level():
        pytest.skip(f"this processor has no {variant}")
    monkeypatch.setattr(consilium.shared.privacy.discrete_gaussian, "FLOAT_SLACK", slack)

    def drawn(compiled):
        monkeypatch.setattr(discrete, "_compiled", compiled)
        for variance in (1, 100, 5 * 10**8, 2**50) if slack < 1e-3 else (9,):
            for count in (1, 17, 20_000) if slack < 1e-3 else (1001,):
                source = stream(variance + count)
                yield discrete_gaussian(variance, count, source).tolist(), source.bytes(8)

    def compiled(name):
        return discrete.function_of(library, name, variant)

    assert list(drawn(compiled)) == list(drawn(lambda name: None))


def test_the_kernel_leaves_words_that_are_too_small_to_numpy():
    words = np.array([0, 1, 2**39, 2**63, 2**64 - 1], np.uint64)
    sizes, unsure = discrete.certain_floors(words, 1000, 2.0**-45)
    certain = np.setdiff1d(np.arange(5), unsure)
    assert {0, 1, 2}.issubset(unsure.tolist())
    assert all(sizes[i] == math.floor(-1000 * math.log((words[i] + 0.5) / 2**64)) for i in certain)


@pytest.mark.parametrize("variance", [0, -1, 2**50 + 1])
def test_impossible_variances_are_refused(variance):
    with pytest.raises(PrivacyError, match="variance"):
        discrete_gaussian(variance, 1, stream(1))


@pytest.mark.slow
def test_doubtful_decisions_are_made_exactly_and_keep_the_distribution(monkeypatch):
    """With floating point trusted to 1 % only, thousands of decisions take the exact way."""
    monkeypatch.setattr(consilium.shared.privacy.discrete_gaussian, "FLOAT_SLACK", 1e-2)
    assert fits(discrete_gaussian(9, 60_000, stream(3)), 9) > 1e-4


def test_exact_decisions_agree_with_floating_point_where_that_is_certain():
    words = stream(4).uniform_u64(300)
    for word in map(int, words):
        exponential = -math.log((word + 0.5) / 2**64)
        assert _floor_exactly(word, 1000, stream(1)) == math.floor(1000 * exponential)
        cost = (7 * 10 - 90) ** 2 / (2 * 90 * 100)
        assert _exceeds_exactly(word, 7, 10, 90, stream(1)) == (exponential > cost)


def test_a_word_of_zeros_asks_for_more_bits():
    # U below 2^-64: -ln U is above 44.36, however its further bits turn out.
    assert _floor_exactly(0, 1, stream(1)) >= 44
    assert _exceeds_exactly(0, 0, 2, 4, stream(1))
