"""Bands of risk cover their patients; thresholds do what their names say."""

import itertools

import numpy as np
import pytest

from consilium.shared.figures.operating_range import band_of, bands, thresholds
from consilium.shared.figures.score_counts import count_scores, first_edges
from tests.signed_models import EDGES, some_counts


def test_bands_cover_every_risk_once_and_hold_every_patient() -> None:
    found = bands(some_counts(1000), EDGES)
    assert found[0].low == 0
    assert found[-1].high == 1
    assert all(left.high == right.low for left, right in itertools.pairwise(found))
    assert sum(band.patients for band in found) == 1000
    assert 8 <= len(found) <= 10
    for risk in (0.0, 0.01, 0.3, 0.999, 1.0):
        band = band_of(found, risk)
        assert band is not None
        assert band.low <= risk
        assert risk < band.high or risk == 1
    assert bands(np.zeros((2, 20)), first_edges(20)) == ()
    assert band_of((), 0.5) is None


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Outcomes drawn with the very risk: each band's interval should hold its mean risk."""
    stream = np.random.default_rng(3)
    held = []
    for _ in range(60):
        risks = 1 / (1 + np.exp(-stream.normal(-1, 1.2, 600)))
        counts = count_scores(risks, stream.random(600) < risks, np.ones(600), EDGES)
        for band in bands(counts, EDGES):
            mine = risks[(risks >= band.low) & (risks < band.high)]
            held.append(band.observed_low <= mine.mean() <= band.observed_high)
    assert 0.92 < np.mean(held) < 0.99


def test_privacy_noise_widens_the_intervals() -> None:
    counts = some_counts()
    for exact, noisy in zip(bands(counts, EDGES), bands(counts, EDGES, noise=3.0), strict=True):
        assert noisy.observed == pytest.approx(exact.observed)
        assert noisy.observed_low < exact.observed_low
        assert noisy.observed_high > exact.observed_high


def test_a_band_whose_noisy_counts_are_negative_says_that_it_knows_nothing() -> None:
    counts = np.array([[-3.0, 5.0, 30.0, 10.0], [-2.0, 1.0, 4.0, 20.0]])
    assert all(
        0 <= band.observed_low <= band.observed_high <= 1 for band in bands(counts, first_edges(4))
    )


def test_thresholds_find_and_alarm_as_often_as_their_names_say() -> None:
    found = {point.name: point for point in thresholds(some_counts(), EDGES, (0.3,))}
    assert found["sensitivity 0.9"].sensitivity >= 0.9
    assert found["sensitivity 0.8"].threshold > found["sensitivity 0.9"].threshold
    assert found["alarms 0.1"].alarm_rate <= 0.1
    assert found["alarms 0.05"].alarm_rate <= 0.05
    assert abs(found["risk 0.3"].threshold - 0.3) < 0.01
    assert thresholds(np.array([[1.0, 2.0], [0.0, 0.0]]), first_edges(2), (0.3,)) == ()


def test_thresholds_are_not_told_where_privacy_noise_hides_them() -> None:
    counts = some_counts()
    positives = counts[1].sum()
    assert thresholds(counts, EDGES, noise=0.9 * 0.05 * positives / np.sqrt(200)) == thresholds(
        counts, EDGES
    )
    assert thresholds(counts, EDGES, noise=1.1 * 0.05 * positives / np.sqrt(200)) == ()
