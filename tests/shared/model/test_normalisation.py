import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consilium.shared.errors import MessageError
from consilium.shared.model.normalisation import CLIP, Normalisation, reference_scores
from consilium.shared.study.definition import Study, parse_study
from consilium.shared.study.dictionary import Variable
from tests.study_text import small_study

STUDY: Study = parse_study("""
name = "tiny"
title = "tiny"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "physionet2012"
label = "In-hospital_death"
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
Lactate = { unit = "mmol/L", low = 0.1, high = 40, center = 2, spread = 0.5, scale = "log" }
""")
HR, LACTATE = STUDY.variables.values()


@given(arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32)))
def test_scores_are_nan_only_where_the_value_is_and_else_within_the_clip(
    values: np.ndarray,
) -> None:
    for variable in (HR, LACTATE):
        scores = reference_scores(values, variable)
        assert (np.isnan(scores) == np.isnan(values)).all()
        assert (np.abs(scores[~np.isnan(scores)]) <= CLIP).all()


def test_center_scores_zero_and_one_spread_scores_one() -> None:
    assert reference_scores(np.float32([85, 103]), HR) == pytest.approx([0, 1])
    lactate = np.float32([2, 2 * np.exp(0.5)])
    assert reference_scores(lactate, LACTATE) == pytest.approx([0, 1], abs=1e-5)


def test_zero_on_a_log_scale_scores_the_lowest_and_not_minus_infinity() -> None:
    score = reference_scores(np.float32([0]), Variable(**{**LACTATE.model_dump(), "low": 0.0}))
    assert score == pytest.approx([-CLIP], rel=1e-6)


@pytest.mark.slow
@given(
    arrays(np.float64, 6, elements=st.floats(-1e9, 1e9)),
    st.floats(0, 1e6),
)
def test_any_noisy_sum_gives_a_finite_bounded_normalisation(sums: np.ndarray, noise: float) -> None:
    found = Normalisation.from_sums(sums, STUDY, noise=noise)
    assert (np.abs(found.mean_V) <= CLIP).all()
    assert (found.deviation_V > 0).all()
    assert Normalisation.from_bytes(found.to_bytes(), STUDY) == found


def test_large_exact_sums_give_back_mean_and_deviation() -> None:
    n, mean, deviation = 1e6, np.array([0.5, -1.0]), np.array([0.7, 1.3])
    sums = n * np.concatenate([[1, 1], mean, deviation**2 + mean**2])
    found = Normalisation.from_sums(sums, STUDY)
    assert found.mean_V == pytest.approx(mean, rel=1e-4)
    assert found.deviation_V == pytest.approx(deviation, rel=1e-4)


def test_a_variable_nobody_measured_keeps_the_reference() -> None:
    found = Normalisation.from_sums(np.array([0, 500, 0, 100, 0, 600.0]), STUDY)
    assert (found.mean_V[0], found.deviation_V[0]) == (0, 1)
    assert found.mean_V[1] != 0


def test_much_noise_pulls_towards_the_reference() -> None:
    sums = np.array([20, 20, 40, 40, 100, 100.0])
    exact, noisy = (
        Normalisation.from_sums(sums, STUDY),
        Normalisation.from_sums(sums, STUDY, noise=100),
    )
    assert (np.abs(noisy.mean_V) < 0.1 * np.abs(exact.mean_V)).all()


@given(st.binary(max_size=64))
def test_bytes_that_are_not_a_normalisation_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        Normalisation.from_bytes(data, STUDY)


@pytest.mark.parametrize(
    ("mean", "deviation"), [(np.nan, 1.0), (2 * CLIP, 1.0), (0.0, 0.0), (0.0, np.inf)]
)
def test_numbers_out_of_bounds_are_refused(mean: float, deviation: float) -> None:
    bad = Normalisation(mean_V=np.array([0, mean]), deviation_V=np.array([1, deviation]))
    with pytest.raises(MessageError, match="normalisation has a"):
        Normalisation.from_bytes(bad.to_bytes(), STUDY)


def test_a_normalisation_of_another_format_is_refused() -> None:
    data = Normalisation.reference(STUDY).to_bytes()
    with pytest.raises(MessageError, match="mark of its format"):
        Normalisation.from_bytes(b"XXXX" + data[4:], STUDY)
    assert Normalisation.reference(STUDY) != data


def test_the_reference_of_a_study_that_counts_classes_is_one_that_sites_take() -> None:
    several = small_study(task={"kind": "multiclass", "outputs": 4, "loss": {"balance": 1.0}})
    labels = small_study(task={"kind": "multilabel", "outputs": 3, "loss": {"balance": 1.0}})
    for study, share in ((several, 0.25), (labels, 0.5)):
        reference = Normalisation.reference(study)
        assert set(reference.share_K) == {share}
        assert Normalisation.from_bytes(reference.to_bytes(), study) == reference
