"""Predictions are the same however many stays are taken at a time."""

import numpy as np

from consilium.client.round.predictions import predict, predict_with_loss
from consilium.shared.model.network import build_model
from tests.client.round.made_up_patients import FEATURES, patients
from tests.study_text import small_study


def test_prediction_does_not_depend_on_the_batch():
    data = patients(11)
    model = build_model(small_study(model={"dropout": 0.5}), FEATURES, seed=1)
    whole = predict(model, data.x_NTF, data.mask_NT)
    assert whole.shape == (11, 1)
    np.testing.assert_allclose(predict(model, data.x_NTF, data.mask_NT, rows=3), whole, rtol=1e-5)


def test_prediction_with_loss_gives_the_same_scores():
    data = patients(11)

    class Cohort:
        x_NTF, mask_NT, y_N = data.x_NTF, data.mask_NT, data.y

    model = build_model(small_study(), FEATURES, seed=1)
    scores, losses = predict_with_loss(model, Cohort(), rows=4)
    np.testing.assert_allclose(scores, predict(model, data.x_NTF, data.mask_NT), rtol=1e-5)
    truth = data.y.numpy()
    expected = -np.log(np.where(truth == 1, scores[:, 0], 1 - scores[:, 0]))
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
