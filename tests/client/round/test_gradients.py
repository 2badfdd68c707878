"""One patient moves a sample's clipped gradient sum by a bounded amount, however it is computed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import consilium.client.round.gradients
from consilium.client.round.gradients import clipped_gradient_sum
from consilium.client.round.training_set import TrainingSet
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import to_vector
from tests.client.round.made_up_patients import FEATURES, one_patient_less, patients, stream
from tests.study_text import small_study


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(2, 8),
    stays=st.integers(1, 4),
    clip=st.floats(0.01, 2.0),
    scale=st.floats(0.1, 30.0),
    cell=st.sampled_from(["rnn", "lstm", "gru"]),
)
def test_one_patient_moves_the_clipped_sum_by_at_most_the_clip_norm(
    count, stays, clip, scale, cell
):
    study = small_study(
        privacy={"clip_norm": clip}, training={"sampling_rate": 1.0}, model={"cell": cell}
    )
    data = patients(count, stays=stays)
    data.x_NTF.mul_(scale)
    model = build_model(study, FEATURES, seed=1)
    whole = clipped_gradient_sum(model, data, study, source=stream(1))
    less = clipped_gradient_sum(model, one_patient_less(data), study, source=stream(1))
    assert np.linalg.norm(whole - less) <= clip * (1 + 1e-4)


@settings(max_examples=12, deadline=None)
@given(
    count=st.integers(1, 5),
    stays=st.integers(1, 3),
    clip=st.floats(0.05, 1.0),
    projection=st.sampled_from([0, 3]),
    seed=st.integers(0, 99),
)
def test_with_codes_the_clipped_sum_is_that_of_one_patient_at_a_time(
    count, stays, clip, projection, seed
):
    study = small_study(
        tokens={"names": ["first", "second"], "vocabulary": ["a", "b", "c"], "width": 3},
        privacy={"clip_norm": clip},
        training={"sampling_rate": 1.0},
        model={"projection": projection},
    )
    data = patients(count, stays=stays, seed=seed)
    codes = torch.randint(
        0, 5, (*data.x_NTF.shape[:2], 2), generator=torch.Generator().manual_seed(seed)
    )
    data = replace(data, x_NTF=torch.cat([data.x_NTF, codes.float()], dim=2))
    model = build_model(study, FEATURES + 2, seed=1)
    expected = np.zeros(to_vector(model).size)
    for patient in range(count):
        rows = data.patient_N == patient
        logits = model(data.x_NTF[rows], data.mask_NT[rows])
        loss = model.loss_per_stay(logits, data.y[rows], data.mask_NT[rows]).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        gradient = torch.cat([g.flatten() for g in gradients]).double().numpy()
        expected += gradient * min(1.0, clip / np.linalg.norm(gradient))
    found = clipped_gradient_sum(model, data, study, source=stream(1))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-6)


def test_a_patient_with_several_stays_is_one_contribution():
    study = small_study(privacy={"clip_norm": 1e-3}, training={"sampling_rate": 1.0})
    model = build_model(study, FEATURES, seed=1)
    total = clipped_gradient_sum(model, patients(1, stays=7), study, source=stream(1))
    assert np.linalg.norm(total) == pytest.approx(1e-3, rel=1e-4)


def test_parting_a_large_sample_changes_nothing(monkeypatch):
    data = patients(20, stays=2)
    study = small_study(training={"sampling_rate": 1.0})
    model = build_model(study, FEATURES, seed=1)
    whole = clipped_gradient_sum(model, data, study, source=stream(1))
    monkeypatch.setattr(consilium.client.round.gradients, "PIECE_NUMBERS", 8_000)
    parted = clipped_gradient_sum(model, data, study, source=stream(1))
    np.testing.assert_allclose(parted, whole, rtol=1e-4, atol=1e-6)


def test_patients_without_stays_are_sampled_and_add_nothing():
    data = patients(6)
    alone = TrainingSet(
        x_NTF=data.x_NTF, mask_NT=data.mask_NT, y=data.y, patient_N=data.patient_N, patients=9
    )
    study = small_study(training={"sampling_rate": 1.0})
    model = build_model(study, FEATURES, seed=1)
    with_empty = clipped_gradient_sum(model, alone, study, source=stream(1))
    without = clipped_gradient_sum(model, data, study, source=stream(1))
    assert np.array_equal(with_empty, without)
    nobody = TrainingSet(
        x_NTF=data.x_NTF[:0],
        mask_NT=data.mask_NT[:0],
        y=data.y[:0],
        patient_N=data.patient_N[:0],
        patients=9,
    )
    assert not clipped_gradient_sum(model, nobody, study, source=stream(1)).any()
