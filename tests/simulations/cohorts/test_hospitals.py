from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.shared.errors import DataError
from consilium.shared.study.definition import load_study, with_changes
from consilium.simulations.cohorts.hospitals import (
    SOURCE_NAME,
    synthetic_hospital,
    synthetic_sites,
    synthetic_tests,
)

STUDY = load_study(Path(__file__).parents[3] / "studies" / "demo.toml")


def test_hospitals_differ_in_size_rate_of_death_and_habit() -> None:
    grids = [to_grid(s.read_patients(STUDY), STUDY) for s in synthetic_sites(STUDY).values()]
    sizes = [grid.patients for grid in grids]
    assert max(sizes) > 2 * min(sizes)
    assert 3000 < sum(sizes) < 5000
    deaths = np.concatenate([grid.y_N for grid in grids])
    assert 0.11 < deaths.mean() < 0.17
    assert all(grid.y_N.sum() >= 10 for grid in grids)
    lactate = list(STUDY.variables).index("Lactate")
    habit = [np.isfinite(grid.value_NTV[:, :, lactate]).mean() for grid in grids]
    assert max(habit) > 1.5 * min(habit)


def test_those_who_die_are_measured_more() -> None:
    sources = synthetic_tests(STUDY).values()
    grid = to_grid((p for source in sources for p in source.read_patients(STUDY)), STUDY)
    lactate = list(STUDY.variables).index("Lactate")
    measured_N = np.isfinite(grid.value_NTV[:, :, lactate]).sum(axis=1)
    assert measured_N[grid.y_N == 1].mean() > 1.2 * measured_N[grid.y_N == 0].mean()


def test_a_hospital_is_the_same_every_time_and_another_seed_gives_another() -> None:
    hospital = synthetic_hospital(2, STUDY)
    first, again = (to_grid(hospital.read_patients(STUDY), STUDY) for _ in range(2))
    assert np.array_equal(first.value_NTV, again.value_NTV, equal_nan=True)
    other = to_grid(synthetic_hospital(2, STUDY, seed=5).read_patients(STUDY), STUDY)
    assert other.value_NTV.shape != first.value_NTV.shape


def test_test_patients_are_not_training_patients() -> None:
    test = {p.patient_id for s in synthetic_tests(STUDY).values() for p in s.read_patients(STUDY)}
    train = {p.patient_id for s in synthetic_sites(STUDY).values() for p in s.read_patients(STUDY)}
    assert test
    assert test.isdisjoint(train)


def test_synthetic_patients_are_labelled_so() -> None:
    hospital = synthetic_hospital(0, STUDY)
    assert hospital.name == SOURCE_NAME == STUDY.data.source
    assert all(p.patient_id.startswith("synthetic-") for p in hospital.read_patients(STUDY))
    assert "ynthetic" in STUDY.title


def test_a_variable_or_label_or_source_that_is_not_made_is_refused() -> None:
    icu = load_study(Path(__file__).parents[3] / "studies" / "icu-mortality-2012.toml")
    for study, reason in (
        (icu, "physionet2012"),
        (with_changes(STUDY, data={"label": "Survival"}), "In-hospital_death"),
        (with_changes(icu, data={"source": SOURCE_NAME}), "does not make variable"),
    ):
        with pytest.raises(DataError, match=reason):
            synthetic_hospital(0, study).read_patients(study)
