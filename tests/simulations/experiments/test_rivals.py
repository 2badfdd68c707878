"""Rivals: folds hold persons together, few persons do not stop them, words follow intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from consilium.simulations.experiments.boosting import fit_boosted
from consilium.simulations.experiments.inner_folds import FOLDS, inner_folds
from consilium.simulations.experiments.linear import fit_linear
from consilium.simulations.experiments.rivals import ALIKE, BETTER, WORSE, rivals_among, standing


@settings(max_examples=30, deadline=None)
@given(
    persons=st.integers(1, 30), rows=st.integers(1, 60), classes=st.integers(1, 4),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_no_person_is_fitted_to_and_judged_on_and_each_row_is_judged_at_most_once(
    persons: int, rows: int, classes: int, seed: int
) -> None:
    stream = np.random.default_rng(seed)
    patient_R, class_R = stream.integers(0, persons, rows), stream.integers(0, classes, rows)
    judged: list[int] = []
    for fitted_to, judged_on in inner_folds(class_R, patient_R, classes=True, seed=seed):
        assert not set(patient_R[fitted_to]) & set(patient_R[judged_on])
        assert len(np.unique(class_R[fitted_to])) > 1
        judged += judged_on.tolist()
    assert len(judged) == len(set(judged))
    folds = inner_folds(class_R.astype(float), patient_R, classes=False, seed=seed)
    assert len(folds) == (min(FOLDS, len(np.unique(patient_R))) if len(set(patient_R)) > 1 else 0)


@pytest.mark.parametrize("fit", [fit_linear, fit_boosted])
@pytest.mark.parametrize("classes", [True, False])
def test_persons_too_few_for_folds_get_the_most_careful_settings(fit, classes) -> None:
    stream = np.random.default_rng(3)
    train_RF = np.where(stream.random((40, 3)) < 0.3, np.nan, stream.normal(size=(40, 3)))
    truth_R = np.arange(40) % 2
    one_person = np.zeros(40, dtype=np.int64)
    model = fit(train_RF, truth_R, one_person, classes=classes, seed=3)
    assert np.isfinite(model.predict(train_RF)).all()


def test_the_same_seed_gives_the_same_trees() -> None:
    stream = np.random.default_rng(4)
    train_RF = stream.normal(size=(120, 4))
    truth_R = (train_RF[:, 0] + stream.normal(0, 0.5, 120) > 0).astype(int)
    fitted = [
        fit_boosted(train_RF, truth_R, np.arange(120), classes=True, seed=5, outputs=30)
        for _ in range(2)
    ]
    assert np.array_equal(*(model.predict_proba(train_RF) for model in fitted))
    assert fitted[0].n_iter_ <= 20  # many outputs get few trees each


@pytest.mark.parametrize("fit", [fit_linear, fit_boosted])
def test_an_input_that_no_row_of_training_has_changes_nothing(fit) -> None:
    stream = np.random.default_rng(4)
    known_RF = stream.normal(size=(90, 2))
    truth_R = (known_RF[:, 0] + stream.normal(size=90) > 0).astype(float)
    empty_RF = np.hstack([known_RF, np.full((90, 1), np.nan)])
    only_one_RF = empty_RF.copy()
    only_one_RF[7, 2] = 1.0  # then no fold but one has it
    for train_RF in (empty_RF, only_one_RF):
        model = fit(train_RF, truth_R, np.arange(90), classes=True, seed=1)
        found_RK = model.predict_proba(np.hstack([known_RF, np.ones((90, 1))]))
        assert np.isfinite(found_RK).all()
        assert roc_auc_score(truth_R, found_RK[:, 1]) > 0.7


def test_words_follow_the_interval_of_the_difference() -> None:
    told = [(0.01, 0.03, BETTER), (-0.03, -0.01, WORSE), (-0.01, 0.03, ALIKE), (None, None, ALIKE)]
    for low, high, word in told:
        assert standing({"value": 0.0, "low": low, "high": high}) == word


def test_rivals_are_all_settings_without_recurrence() -> None:
    names = ["last-value", "ridge-regression", "gradient-boosting", "local", "pooled",
             "federated", "federated-private-site-epsilon-3"]  # fmt: skip
    assert rivals_among(names) == names[:3]
