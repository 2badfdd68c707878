from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from client.features import Grid, to_grid
from shared.errors import DataError
from shared.study import load_study, with_changes
from simulations.baselines import logistic_regression, summary_features
from simulations.hospitals import synthetic_sites, synthetic_test

STUDY = load_study(Path(__file__).parents[2] / "studies" / "demo.toml")


@pytest.fixture(scope="module")
def grids() -> tuple[Grid, Grid]:
    largest = synthetic_sites(STUDY)["hospital-8"]
    test = synthetic_test(STUDY, share=0.2)
    return tuple(to_grid(source.read_patients(STUDY), STUDY) for source in (largest, test))


def grid_of(values: list[float], label: float = 1.0) -> Grid:
    value_NTV = np.full((1, len(values), len(STUDY.variables)), np.nan, dtype=np.float32)
    value_NTV[0, :, 0] = values
    return Grid(
        value_NTV=value_NTV,
        mask_NT=np.ones((1, len(values)), dtype=np.bool_),
        y_N=np.array([label], dtype=np.float32),
        patient_N=np.array([0]),
        patient_ids=("p",),
    )


def test_summaries_are_mean_least_greatest_last_and_count() -> None:
    row = summary_features(grid_of([np.nan, 103, 67, np.nan, 121]), STUDY)[0]
    assert row[:5] == pytest.approx([2 / 3, -1, 2, 2, 3])


def test_a_variable_never_measured_has_count_zero_and_no_other_summary() -> None:
    row = summary_features(grid_of([85, np.nan]), STUDY)[0]
    assert np.isnan(row[5:9]).all()
    assert row[9] == 0


def test_logistic_regression_ranks_patients_it_has_not_seen(grids: tuple[Grid, Grid]) -> None:
    train, test = grids
    scores_N = logistic_regression(train, test, STUDY)
    assert ((scores_N > 0) & (scores_N < 1)).all()
    assert roc_auc_score(test.y_N, scores_N) > 0.75


def test_labels_that_are_all_alike_are_refused(grids: tuple[Grid, Grid]) -> None:
    with pytest.raises(DataError, match="all alike"):
        logistic_regression(grid_of([85, 90]), grids[1], STUDY)


def test_tasks_that_are_not_binary_are_refused(grids: tuple[Grid, Grid]) -> None:
    for task in ({"kind": "regression"}, {"per_step": True}):
        with pytest.raises(DataError, match="binary"):
            logistic_regression(*grids, with_changes(STUDY, task=task))
