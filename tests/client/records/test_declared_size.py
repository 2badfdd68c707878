"""How a size is rounded before it is declared, and how it bounds what a site adds to a sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consilium.client.records.declared_size import rounded_size, shortened, shortened_parts
from consilium.client.records.statistics import statistics_release
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.model.normalisation import statistics_clip
from tests.study_text import small_study

VECTORS = arrays(np.float64, 4, elements=st.floats(-1e6, 1e6))


@pytest.mark.parametrize(
    ("patients", "declared"),
    [
        *[(0, 10), (1, 10), (14, 10), (15, 20), (94, 90), (95, 100), (149, 100), (150, 200)],
        *[(437, 400), (949, 900), (950, 1000), (12_345, 10_000), (15_000, 20_000)],
    ],
)
def test_a_size_is_rounded_to_one_digit(patients: int, declared: int) -> None:
    assert rounded_size(patients) == declared


@given(st.integers(15, 10**7))
def test_a_rounded_size_is_near_and_one_patient_rarely_changes_it(patients: int) -> None:
    declared = rounded_size(patients)
    assert 0.66 < declared / patients <= 4 / 3
    step = 10 ** (len(str(patients)) - 1)
    changes = sum(
        rounded_size(number) != rounded_size(number + 1)
        for number in range(patients, min(patients + step, 10 * step - 1))
    ) if step <= 1000 else 1  # fmt: skip
    assert changes <= 1


@given(VECTORS, VECTORS, st.floats(0.1, 1e5))
def test_shortening_keeps_the_bound_and_moves_no_two_sums_apart(one, other, longest) -> None:
    found, second = shortened(one, longest), shortened(other, longest)
    assert np.linalg.norm(found) <= longest
    apart = np.linalg.norm(one - other)
    assert np.linalg.norm(found - second) <= apart + 1e-9 * (1 + apart + longest)
    if np.linalg.norm(one) <= longest:
        assert found is one


def test_parts_are_shortened_by_one_factor() -> None:
    parts = shortened_parts({"a": np.array([3.0]), "b": np.array([0.0, 4.0])}, 2.5)
    assert parts["a"] == pytest.approx([1.5])
    assert parts["b"] == pytest.approx([0.0, 2.0])


@given(patients=st.integers(0, 60), size=st.integers(1, 30), seed=st.integers(0, 99))
def test_the_statistics_of_a_site_are_those_of_its_declared_size_at_most(
    patients: int, size: int, seed: int
) -> None:
    study = small_study()
    rows_PS = np.random.default_rng(seed).normal(2.0, 5.0, (patients, 3))
    source = Keystream(bytes(32))
    sent_S = statistics_release(rows_PS, study, size=size, deviation=0.0, source=source)
    assert np.linalg.norm(sent_S) <= size * statistics_clip(study)
