"""C-index, curves and calibration from counts, against slow and obvious ones from the patients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.figures.score_counts import first_edges
from consilium.shared.figures.survival_counts import (
    count_intervals,
    curve_of,
    figures_from_counts,
)
from consilium.shared.study.survival import interval_labels
from consilium.shared.study.training import Task
from consilium.simulations.figures.measures import Survival

CUTS = (1.0, 2.0, 3.0, 5.0)
TASK = Task(kind="survival", cuts=CUTS)
GRID = np.arange(1, 20, dtype=np.float32) / 20  # edges; risks stand between them, one bin each
EDGES_KL = np.tile(GRID, (len(CUTS), 1))


def patients(times: list[int], events: list[bool]) -> np.ndarray:
    """Times in whole intervals, so that Harrell's pairs are those of the intervals."""
    ends = np.array([0.5, 1.5, 2.5, 4.5, 9.0])[times]  # of an event: within; of a loss: at the cut
    lost = np.array([0.0, *CUTS])[times]
    event_N = np.array(events) & (np.array(times) < len(CUTS))
    time_N = np.where(event_N, ends, lost)
    return interval_labels(time_N, event_N.astype(float), TASK, "made up")


def harrell(risk_N: list[float], times: list[int], events: list[bool]) -> float:
    """Every pair of which one had the event in an interval that the other lived through."""
    right = pairs = 0.0
    for i in range(len(times)):
        for j in range(len(times)):
            if not events[i] or times[i] >= len(CUTS):
                continue
            if times[j] > times[i]:
                pairs += 1
                right += (risk_N[i] > risk_N[j]) + 0.5 * (risk_N[i] == risk_N[j])
    return right / pairs if pairs else math.nan


PEOPLE = st.lists(
    st.tuples(st.integers(0, 19), st.integers(0, len(CUTS)), st.booleans()), min_size=2, max_size=30
)


@settings(deadline=None, max_examples=60)
@given(PEOPLE)
def test_the_c_index_from_counts_is_harrells_over_all_pairs(people) -> None:
    places, times, events = map(list, zip(*people, strict=True))
    risk_N = [(place + 0.5) / 20 for place in places]
    label_NK, ones = patients(times, events), np.ones(len(people))
    counts_K2B = count_intervals(np.array(risk_N), label_NK, ones, EDGES_KL)
    found, expected = figures_from_counts(counts_K2B, GRID), harrell(risk_N, times, events)
    if math.isnan(expected):
        assert found is None
        return
    assert found.c_index.value == pytest.approx(expected, abs=1e-9)
    assert found.c_index.low <= found.c_index.value <= found.c_index.high
    scores_NK = np.tile(np.array(risk_N)[:, None], (1, len(CUTS)))
    assert Survival(scores_NK, label_NK.astype(float)).values(ones)[0] == pytest.approx(expected)


def made_up(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    risk_N = draw.uniform(0.05, 0.9, patients)
    rate_N = -np.log1p(-risk_N) / CUTS[-1]  # so that the risk by the horizon is as predicted
    event_N, lost_N = draw.exponential(1 / rate_N), draw.uniform(1, 12, patients)
    time_N = np.minimum(event_N, lost_N)
    return risk_N, interval_labels(time_N, (event_N <= lost_N).astype(float), TASK, "made up")


def test_true_risks_are_found_calibrated_although_many_were_lost() -> None:
    risk_N, label_NK = made_up(20_000, 1)
    edges_L = first_edges(400)
    edges_KL = np.tile(edges_L, (len(CUTS), 1))
    counts_K2B = count_intervals(risk_N, label_NK, np.ones(len(risk_N)), edges_KL)
    found = figures_from_counts(counts_K2B, edges_L)
    assert found.ratio.value == pytest.approx(1.0, abs=0.03)
    assert len(found.calibration) == 10
    for group in found.calibration:
        assert group.observed.value == pytest.approx(group.predicted, abs=0.05)
    assert [g.predicted for g in found.risk_groups] == sorted(
        g.predicted for g in found.risk_groups
    )
    naive = np.nansum(label_NK == 1) / len(label_NK)
    assert naive < 0.92 * found.whole.observed.value  # who was lost must not count as without


def test_the_interval_of_the_c_index_is_as_wide_as_its_spread_over_cohorts() -> None:
    edges_L = first_edges(200)
    edges_KL, values, widths = np.tile(edges_L, (len(CUTS), 1)), [], []
    for seed in range(200):
        risk_N, label_NK = made_up(150, seed)
        counts = count_intervals(risk_N, label_NK, np.ones(150), edges_KL)
        found = figures_from_counts(counts, edges_L).c_index
        values.append(found.value)
        widths.append(found.high - found.low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.2)


def test_a_curve_is_the_product_of_the_shares_that_lived_with_greenwoods_interval() -> None:
    found = curve_of(np.array([100.0, 60.0]), np.array([10.0, 6.0]))
    assert [share.value for share in found] == pytest.approx([0.9, 0.81])
    deviation = 0.81 * math.sqrt(10 / (100 * 90) + 6 / (60 * 54))
    assert found[1].high - found[1].low == pytest.approx(2 * 1.96 * deviation, rel=0.05)
    wider = curve_of(np.array([100.0, 60.0]), np.array([10.0, 6.0]), noise=5.0)
    assert wider[1].high - wider[1].low > found[1].high - found[1].low


@pytest.mark.parametrize("size", [-1e9, -3.0, 0.0, 1e9])
def test_noisy_counts_give_finite_figures_or_none(size: float) -> None:
    draw = np.random.default_rng(3)
    counts_K2B = draw.normal(size, 40.0, (4, 2, 20))
    found = figures_from_counts(counts_K2B, GRID, noise=40.0)
    assert (found is None) == (size <= 0)
    if found is not None:
        curves = [share for group in found.calibration for share in group.curve]
        numbers = [(share.low, share.value, share.high) for share in curves]
        assert np.isfinite(numbers).all()
        assert (np.diff(np.array(numbers), axis=1) >= -1e-12).all()
