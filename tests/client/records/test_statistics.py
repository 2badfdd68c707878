from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consilium.client.records.features import TimeGrid, select, to_grid
from consilium.client.records.statistics import clip_rows, clipped_sum, patient_contributions
from consilium.shared.errors import PrivacyError
from consilium.shared.model.normalisation import Normalisation, reference_scores, statistics_size
from consilium.shared.study.definition import load_study
from consilium.simulations.cohorts.hospitals import synthetic_hospital

STUDY = load_study(Path(__file__).parents[3] / "studies" / "demo.toml")
GRID = to_grid(synthetic_hospital(0, STUDY).read_patients(STUDY), STUDY)
ROWS = arrays(
    np.float64,
    st.tuples(st.integers(1, 8), st.integers(1, 6)),
    elements=st.floats(-1e12, 1e12),
)
NORMS = st.floats(1e-6, 1e6)


@given(ROWS, NORMS)
def test_no_row_is_longer_than_the_bound_after_clipping(rows: np.ndarray, norm: float) -> None:
    assert (np.linalg.norm(clip_rows(rows, norm), axis=1) <= norm).all()


@given(ROWS, NORMS)
def test_rows_within_the_bound_are_untouched(rows: np.ndarray, norm: float) -> None:
    short = rows / (1 + np.linalg.norm(rows, axis=1, keepdims=True)) * norm * 0.99
    assert (clip_rows(short, norm) == short).all()


@given(ROWS, NORMS, st.data())
def test_a_patient_more_or_less_moves_the_sum_by_at_most_the_bound(
    rows: np.ndarray, norm: float, data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, len(rows) - 1))
    moved = clipped_sum(rows, norm) - clipped_sum(np.delete(rows, gone, axis=0), norm)
    slack = 1e-9 * norm * len(rows)  # rounding of the float64 sums themselves
    assert np.linalg.norm(moved) <= norm + slack


def test_contributions_hold_presence_mean_and_mean_square() -> None:
    variables = len(STUDY.variables)
    contribution = patient_contributions(GRID, STUDY)
    assert contribution.shape == (GRID.patients, statistics_size(STUDY))
    for index, variable in enumerate(STUDY.variables.values()):
        z = reference_scores(GRID.value_NTV[7, :, index], variable).astype(float)
        z = z[~np.isnan(z)]
        expected = [1, z.mean(), (z**2).mean()] if len(z) else [0, 0, 0]
        assert contribution[7, index::variables] == pytest.approx(expected)


def test_several_stays_of_a_patient_give_one_vector() -> None:
    halves = TimeGrid(
        value_NTV=GRID.value_NTV[:4],
        mask_NT=GRID.mask_NT[:4],
        y_N=GRID.y_N[:4],
        patient_N=np.array([0, 0, 1, 1]),
        patient_ids=("a", "b"),
    )
    joined = TimeGrid(
        value_NTV=GRID.value_NTV[:4].reshape(2, 96, -1),
        mask_NT=GRID.mask_NT[:4].reshape(2, 96),
        y_N=GRID.y_N[:2],
        patient_N=np.array([0, 1]),
        patient_ids=("a", "b"),
    )
    assert patient_contributions(halves, STUDY) == pytest.approx(
        patient_contributions(joined, STUDY)
    )


def test_sums_of_sites_standardise_the_pooled_patients() -> None:
    half = np.arange(GRID.patients) % 2
    sums = sum(
        clipped_sum(patient_contributions(select(GRID, np.flatnonzero(half == k)), STUDY), 1e6)
        for k in (0, 1)
    )
    together = clipped_sum(patient_contributions(GRID, STUDY), 1e6)
    assert sums == pytest.approx(together)
    found = Normalisation.from_sums(sums, STUDY)
    assert np.abs(found.mean_V).max() < 1.5
    assert found.deviation_V.min() > 0.4


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_that_bounds_nothing_is_refused(norm: float) -> None:
    with pytest.raises(PrivacyError, match="clip_norm"):
        clipped_sum(np.ones((2, 3)), norm)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_patient_whose_contribution_is_not_finite_counts_as_zero_and_changes_no_other(
    bad: float,
) -> None:
    others = np.array([[3.0, -4.0], [0.1, 0.2]])
    with_it = np.vstack([others, [bad, 1.0]])
    change = clipped_sum(with_it, 1.0) - clipped_sum(others, 1.0)
    assert np.linalg.norm(change) <= (0.0 if not np.isfinite(bad) else 1.0)
