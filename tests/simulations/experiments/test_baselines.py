from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from consilium.client.records.features import TimeGrid, to_grid
from consilium.shared.errors import DataError
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import load_study, with_changes
from consilium.simulations.cohorts.hospitals import SyntheticHospital, synthetic_sites
from consilium.simulations.experiments.baselines import baselines, boosted_trees, linear_model
from consilium.simulations.experiments.summaries import (
    code_counts,
    step_features,
    summary_features,
)
from consilium.simulations.figures.measures import measure_of
from consilium.simulations.figures.metrics import Truth

STUDY = load_study(Path(__file__).parents[3] / "studies" / "demo.toml")


@pytest.fixture(scope="module")
def grids() -> tuple[TimeGrid, TimeGrid]:
    largest = synthetic_sites(STUDY)["hospital-8"]
    test = (
        patient
        for index in range(len(STUDY.sites))
        for patient in SyntheticHospital(
            index, seed=STUDY.seed, cohort="testing", share=0.2
        ).read_patients(STUDY)
    )
    return to_grid(largest.read_patients(STUDY), STUDY), to_grid(test, STUDY)


def grid_of(values: list[float], label: float = 1.0) -> TimeGrid:
    value_NTV = np.full((1, len(values), len(STUDY.variables)), np.nan, dtype=np.float32)
    value_NTV[0, :, 0] = values
    return TimeGrid(
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


def test_logistic_regression_ranks_patients_it_has_not_seen(
    grids: tuple[TimeGrid, TimeGrid],
) -> None:
    train, test = grids
    scores = linear_model(train, test, STUDY)
    assert scores.shape == (len(test.y_N), 1)
    assert ((scores > 0) & (scores < 1)).all()
    assert roc_auc_score(test.y_N, scores[:, 0]) > 0.7


def test_labels_that_are_all_alike_are_refused(grids: tuple[TimeGrid, TimeGrid]) -> None:
    with pytest.raises(DataError, match="all alike"):
        linear_model(grid_of([85, 90]), grids[1], STUDY)


@pytest.mark.slow
def test_every_kind_of_task_has_a_baseline_that_beats_chance(
    grids: tuple[TimeGrid, TimeGrid], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilium.simulations.experiments.baselines.MOST_ROWS", 1000)
    monkeypatch.setattr("consilium.simulations.experiments.boosting.MOST_TREES", 25)
    monkeypatch.setattr("consilium.simulations.experiments.boosting.CANDIDATES", ((4, 0.2, 20),))
    train, test = grids
    age = list(STUDY.variables).index("Age")

    def labelled(grid: TimeGrid, task: dict) -> TimeGrid:
        age_N = np.nan_to_num(np.nanmax(grid.value_NTV[:, :, age], axis=1), nan=60)
        old = (age_N > 65).astype(np.float32)
        y = {
            "multiclass": np.digitize(age_N, (50, 75)).astype(np.float32),
            "multilabel": np.stack([old, grid.y_N], axis=1),
            "regression": age_N.astype(np.float32),
            "binary": np.repeat(old[:, None], grid.mask_NT.shape[1], axis=1),
        }[task["kind"]]
        return replace(grid, y_N=y)

    for task in (
        {"kind": "multiclass", "outputs": 3},
        {"kind": "multilabel", "outputs": 2},
        {"kind": "regression", "center": 60.0, "spread": 15.0},
        {"kind": "binary", "per_step": True},
    ):
        study = with_changes(STUDY, task=task)
        known = labelled(test, task)
        truth = Truth.of(study.task, known.y_N, known.mask_NT, known.patient_N)
        for baseline in (linear_model, boosted_trees):
            rows = truth.rows(baseline(labelled(train, task), known, study))
            value = measure_of(study.task, rows, truth.truth_R).values(np.ones(len(rows)))[0]
            assert value < 8 if task["kind"] == "regression" else value > 0.8


def test_a_naive_forecast_predicts_its_value_for_everybody(
    grids: tuple[TimeGrid, TimeGrid],
) -> None:
    study = with_changes(STUDY, task={"kind": "regression"})
    forecast = baselines(study, {"no-change": 3.0})["no-change"]
    assert np.array_equal(forecast(*grids), np.full((len(grids[1].y_N), 1), 3.0))


def test_codes_are_counted_by_stay() -> None:
    tokens = {"names": ["first", "second"], "vocabulary": ["a", "b"]}
    study = with_changes(STUDY, study={"tokens": tokens})
    grid = grid_of([85, 90, 95])
    codes = np.array([[[2, 3], [2, np.nan], [1, 2]]], dtype=np.float32)
    grid = replace(grid, value_NTV=np.concatenate([grid.value_NTV, codes], axis=2))
    assert code_counts(grid, study)[0] == pytest.approx(np.log1p([1, 3, 1]))


def test_at_a_step_a_rival_reads_what_was_measured_so_far_and_nothing_later() -> None:
    study = with_changes(STUDY, task={"per_step": True})
    early, late = ([85.0, np.nan, 103.0, *rest] for rest in ([67.0, 67.0], [121.0, 250.0]))
    normalisation = Normalisation.reference(study)
    rows = [
        step_features(grid_of(values), normalisation, study, np.zeros(3, int), np.arange(3))
        for values in (early, late)
    ]
    assert np.array_equal(rows[0], rows[1], equal_nan=True)
    summaries = rows[0][2, -5 * len([v for v in STUDY.variables.values() if v.role == "series"]) :]
    assert summaries[:5] == pytest.approx([0.5, 0, 1, 1, 2])  # mean, least, greatest, last, number


def test_one_label_of_which_nothing_can_be_learned_has_its_only_value(
    grids: tuple[TimeGrid, TimeGrid], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilium.simulations.experiments.boosting.CANDIDATES", ((4, 0.1, 20),))
    monkeypatch.setattr("consilium.simulations.experiments.boosting.MOST_TREES", 20)
    train, test = grids
    study = with_changes(STUDY, task={"kind": "multilabel", "outputs": 2})
    y_NK = np.stack([train.y_N, np.zeros_like(train.y_N)], axis=1)
    for baseline in (linear_model, boosted_trees):
        scores = baseline(replace(train, y_N=y_NK), test, study)
        assert (scores[:, 1] == 0).all()
        assert roc_auc_score(test.y_N, scores[:, 0]) > 0.65
