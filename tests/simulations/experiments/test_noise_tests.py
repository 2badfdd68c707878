"""Intervals cover what they should, on draws whose truth is known; all draws from fixed seeds."""

import numpy as np
import pytest

from consilium.simulations.experiments import noise_tests

LEVEL = 0.01
TIMES = 400
MISSES = 12  # of 400 at level 0.01, with probability 0.9995; the seeds are fixed


def gaussian(seed: int, draws: int, size: int, deviation: float = 1.0) -> np.ndarray:
    return deviation * np.random.default_rng(seed).standard_normal((draws, size))


def test_the_interval_of_the_deviation_covers_it_and_shrinks_with_the_numbers() -> None:
    found = [
        noise_tests.deviation(gaussian(seed, 3, 40, deviation=2.5), LEVEL) for seed in range(TIMES)
    ]
    assert sum(not each.low <= 2.5 <= each.high for each in found) <= MISSES
    wide = [noise_tests.deviation(gaussian(0, 3, size), LEVEL).high / 1.0 for size in (40, 4000)]
    assert wide[1] < 1.05 < wide[0]


def test_residuals_lose_the_degrees_of_freedom_of_their_means() -> None:
    having, lacking = gaussian(1, 5, 2000) + 7.0, gaussian(2, 5, 2000) - 3.0
    rest, fitted = noise_tests.residuals(having, lacking)
    found = noise_tests.deviation(rest, LEVEL, fitted=fitted)
    assert found.low < 1.0 < found.high
    assert found.high - found.low < 0.06
    assert noise_tests.residual_deviation(having, lacking) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("size", "length"), [(3, 1.0), (500, 1.0), (500, 0.0)])
def test_the_interval_of_a_shift_covers_its_length_in_any_direction(
    size: int, length: float
) -> None:
    misses = 0
    for seed in range(TIMES):
        direction = np.random.default_rng(seed + 10_000).standard_normal(size)
        moved = length * direction / np.linalg.norm(direction)
        having = gaussian(seed, 24, size, 0.07) + moved
        found = noise_tests.shift(having, gaussian(seed + 5000, 24, size, 0.07), LEVEL)
        misses += not found.low <= length <= found.high
    assert misses <= MISSES


def test_distances_from_a_gaussian_tell_laplace_and_uniform_from_it() -> None:
    most = noise_tests.largest_distance(20_000, 1e-5)
    rng = np.random.default_rng(3)
    assert noise_tests.distance_from_normal(gaussian(4, 20, 1000)) < most
    assert noise_tests.distance_from_normal(rng.laplace(size=(20, 1000))) > 2 * most
    assert noise_tests.distance_from_normal(rng.uniform(-1, 1, (20, 1000))) > 2 * most
    assert noise_tests.distance_from_normal(np.zeros((2, 5))) == 1.0


def test_the_mean_and_the_correlation_are_found_where_they_are_not_zero() -> None:
    draws, others = gaussian(5, 10, 1000), gaussian(6, 10, 1000)
    center = noise_tests.mean(draws + 0.2, LEVEL)
    assert center.low > 0.1
    still = noise_tests.mean(draws, LEVEL)
    assert still.low < 0 < still.high
    apart = noise_tests.largest_correlation([(draws, others), (others, draws)], LEVEL)
    assert apart.low < 0 < apart.high
    alike = noise_tests.largest_correlation([(draws, others), (draws, draws)], LEVEL)
    assert alike.low > 0.9
    assert noise_tests.largest_correlation([(draws * 0, draws)], LEVEL).estimate == 1.0
