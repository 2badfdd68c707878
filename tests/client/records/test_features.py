from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.records.features import TimeGrid, require_usable, select, to_grid, to_tensors
from consilium.client.sources.common.source import Patient, Stay
from consilium.shared.errors import DataError
from consilium.shared.model.normalisation import CLIP, Normalisation
from consilium.shared.study.definition import Study, load_study, parse_study, with_changes
from consilium.shared.study.input_names import feature_names
from consilium.simulations.cohorts.hospitals import synthetic_hospital

STUDY: Study = parse_study("""
name = "tiny"
title = "tiny"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "physionet2012"
label = "In-hospital_death"
window_h = 6
minimum_patients = 2
[variables]
Age = { unit = "a", low = 15, high = 120, center = 60, spread = 10, role = "static" }
HR = { unit = "/min", low = 10, high = 300, center = 80, spread = 20 }
Na = { unit = "mmol/L", low = 80, high = 200, center = 140, spread = 5 }
""")
SERIES_SUFFIXES = ("", " measured", " recency", " deviance", " mean", " count")
DEMO = load_study(Path(__file__).parents[3] / "studies" / "demo.toml")


def stay(
    *events: tuple[float, int, float], label: object = 1.0, end_h: float | None = None
) -> Stay:
    hours, variables, values = zip(*events, strict=True) if events else ((), (), ())
    return Stay(
        stay_id="s",
        hours_E=np.array(hours, dtype=np.float32),
        variable_E=np.array(variables, dtype=np.int16),
        value_E=np.array(values, dtype=np.float32),
        label=label,
        end_h=end_h,
    )


def cohort(*stays: Stay) -> list[Patient]:
    return [Patient(patient_id=f"p{i}", stays=(one,)) for i, one in enumerate(stays)]


def channels(grid: TimeGrid, study: Study = STUDY) -> dict[str, np.ndarray]:
    tensors = to_tensors(grid, Normalisation.reference(study), study)
    return dict(zip(feature_names(study), tensors.x_NTF.numpy().transpose(2, 0, 1), strict=True))


def test_the_last_value_of_each_hour_is_kept() -> None:
    grid = to_grid(cohort(stay((0.1, 1, 70), (0.9, 1, 90), (3, 1, 100), (6, 1, 60))), STUDY)
    assert grid.value_NTV[0, :, 1] == pytest.approx(
        [90, *[np.nan] * 2, 100, np.nan, 60], nan_ok=True
    )
    assert np.isnan(grid.value_NTV[0, :, 2]).all()


def test_values_are_carried_forward_with_mask_and_recency() -> None:
    x = channels(to_grid(cohort(stay((1, 1, 100), (4, 1, 60))), STUDY))
    assert x["HR"][0] == pytest.approx([0, 1, 1, 1, -1, -1])
    assert x["HR measured"][0] == pytest.approx([0, 1, 0, 0, 1, 0])
    ages = np.array([np.inf, 0, 1, 2, 0, 1])
    assert x["HR recency"][0] == pytest.approx(np.exp(-ages / 12))
    assert not any(x[f"Na{suffix}"].any() for suffix in SERIES_SUFFIXES)


def test_unusual_values_the_mean_so_far_and_the_count_so_far_are_inputs() -> None:
    x = channels(to_grid(cohort(stay((1, 1, 120), (4, 1, 60))), STUDY))
    assert x["HR deviance"][0] == pytest.approx([0, 1.2, 1.2, 1.2, 0.2, 0.2])
    assert x["HR mean"][0] == pytest.approx([0, 2, 2, 2, 0.5, 0.5])
    counts = np.array([0, 1, 1, 1, 2, 2])
    assert x["HR count"][0] == pytest.approx(np.log1p(counts) / 6)


def test_static_values_last_from_the_step_they_are_known() -> None:
    x = channels(to_grid(cohort(stay((2, 0, 70), (4, 0, 90)), stay((0, 0, 50))), STUDY))
    assert x["Age"] == pytest.approx(np.array([[0, 0, 1, 1, 1, 1], [-1] * 6]))
    assert x["Age known"] == pytest.approx(np.array([[0, 0, 1, 1, 1, 1], [1] * 6]))


def test_steps_after_the_end_of_a_stay_are_masked_and_zero() -> None:
    grid = to_grid(cohort(stay((0, 1, 100), end_h=2.5)), STUDY)
    tensors = to_tensors(grid, Normalisation.reference(STUDY), STUDY)
    assert tensors.mask_NT[0].tolist() == [True] * 3 + [False] * 3
    assert not tensors.x_NTF[0, 3:].any()
    assert tensors.x_NTF[0, :3].any()


def test_no_input_depends_on_a_later_step() -> None:
    patients = list(synthetic_hospital(0, DEMO).read_patients(DEMO))[:20]
    whole = to_grid(patients, DEMO)
    cut = TimeGrid(
        value_NTV=np.where(np.arange(48)[None, :, None] < 20, whole.value_NTV, np.nan),
        mask_NT=whole.mask_NT,
        y_N=whole.y_N,
        patient_N=whole.patient_N,
        patient_ids=whole.patient_ids,
    )
    reference = Normalisation.reference(DEMO)
    x_whole, x_cut = (to_tensors(grid, reference, DEMO).x_NTF for grid in (whole, cut))
    assert (x_whole[:, :20] == x_cut[:, :20]).all()
    assert (x_whole[:, 20:] != x_cut[:, 20:]).any()


@given(
    st.lists(
        st.lists(
            st.tuples(st.floats(0, 6, width=32), st.integers(0, 2), st.floats(15, 120, width=32)),
            max_size=12,
        ),
        min_size=1,
        max_size=5,
    ),
    st.floats(-4, 4),
    st.floats(0.2, 5),
)
def test_every_input_is_finite_and_bounded(
    stays: list[list[tuple[float, int, float]]], mean: float, deviation: float
) -> None:
    grid = to_grid(cohort(*(stay(*sorted(events)) for events in stays)), STUDY)
    normalisation = Normalisation(mean_V=np.full(3, mean), deviation_V=np.full(3, deviation))
    x_NTF = to_tensors(grid, normalisation, STUDY).x_NTF
    assert x_NTF.shape == (len(stays), 6, len(feature_names(STUDY)))
    assert x_NTF.isfinite().all()
    assert (x_NTF.abs() <= CLIP).all()


def test_stays_of_one_patient_share_an_index() -> None:
    both = Patient(patient_id="p", stays=(stay((0, 1, 70)), stay((0, 1, 90), label=0.0)))
    grid = to_grid([both, *cohort(stay((0, 1, 80)))], STUDY)
    assert grid.patient_N.tolist() == [0, 0, 1]
    assert grid.patients == 2
    assert grid.patient_ids == ("p", "p0")


@given(st.lists(st.integers(0, 9)))
def test_selecting_patients_keeps_exactly_their_stays(chosen: list[int]) -> None:
    patients = [
        Patient(patient_id=f"p{i}", stays=tuple(stay((0, 1, 50 + i)) for _ in range(1 + i % 3)))
        for i in range(10)
    ]
    grid = to_grid(patients, STUDY)
    part = select(grid, np.array(chosen, dtype=np.int64))
    assert part.patient_ids == tuple(f"p{i}" for i in sorted(set(chosen)))
    expected = [50 + i for i in sorted(set(chosen)) for _ in range(1 + i % 3)]
    assert part.value_NTV[:, 0, 1].tolist() == expected
    assert [part.patient_ids[i] for i in part.patient_N] == [f"p{x - 50}" for x in expected]


def test_a_cohort_larger_than_a_chunk_gives_the_same_grid_as_its_parts() -> None:
    patients = list(synthetic_hospital(3, DEMO).read_patients(DEMO))
    patients = (patients * 3)[:1100]
    whole, tail = to_grid(patients, DEMO), to_grid(patients[1000:], DEMO)
    assert np.array_equal(whole.value_NTV[1000:], tail.value_NTV, equal_nan=True)
    assert (whole.y_N[1000:] == tail.y_N).all()


def test_labels_take_the_shape_of_the_task() -> None:
    many = with_changes(STUDY, task={"kind": "multilabel", "outputs": 3})
    steps = with_changes(STUDY, task={"per_step": True})
    labels = np.array([0, 1, np.nan], dtype=np.float32)
    assert to_grid(cohort(stay(label=labels)), many).y_N.shape == (1, 3)
    assert to_grid(cohort(stay(label=np.zeros(6, np.float32))), steps).y_N.shape == (1, 6)
    with pytest.raises(DataError, match="shape"):
        to_grid(cohort(stay(label=labels)), STUDY)


def test_cohorts_that_cannot_teach_are_refused() -> None:
    with pytest.raises(DataError, match="no patient fits"):
        to_grid([], STUDY)
    with pytest.raises(DataError, match="minimum_patients 2"):
        require_usable(to_grid(cohort(stay()), STUDY), STUDY)
    for label, word in ((0.0, "positive"), (1.0, "negative")):
        with pytest.raises(DataError, match=f"no patient has a {word} label"):
            require_usable(to_grid(cohort(stay(label=label), stay(label=label)), STUDY), STUDY)
    require_usable(to_grid(cohort(stay(label=0.0), stay()), STUDY), STUDY)


def test_grids_and_tensors_show_counts_and_no_values() -> None:
    grid = to_grid(cohort(stay((0, 1, 77))), STUDY)
    tensors = to_tensors(grid, Normalisation.reference(STUDY), STUDY)
    assert repr(grid) == "Grid(1 stays of 1 patients)"
    assert repr(tensors) == "PatientTensors(1 stays of 1 patients)"
