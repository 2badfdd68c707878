"""Sampling takes whole patients, each by itself."""

import numpy as np
import torch
from scipy import stats

from consilium.client.round.training_set import TrainingSet, sample_patients
from tests.client.round.made_up_patients import stream


def test_sampling_takes_each_patient_independently_at_the_rate():
    rate, rounds, count = 0.2, 400, 500
    source = stream(3)
    taken = np.zeros((rounds, count), dtype=bool)
    for r in range(rounds):
        taken[r, sample_patients(count, rate, source)] = True
    sizes = taken.sum(axis=1)
    assert stats.binomtest(int(sizes.sum()), rounds * count, rate).pvalue > 1e-4
    # Poisson sampling makes the size binomial: its variance is that of independent patients.
    ratio = sizes.var() / (count * rate * (1 - rate))
    assert 0.75 < ratio < 1.3


def test_the_stays_of_sampled_patients_come_patient_by_patient_each_with_its_place() -> None:
    data = TrainingSet(
        x_NTF=torch.zeros(5, 1, 1),
        mask_NT=torch.ones(5, 1, dtype=torch.bool),
        y=torch.zeros(5),
        patient_N=torch.tensor([2, 0, 2, 3, 0]),
        patients=5,
    )
    rows_N, patient_N = data.stays(np.array([0, 1, 2]))
    assert rows_N.tolist() == [1, 4, 0, 2]
    assert patient_N.tolist() == [0, 0, 2, 2]
    assert repr(data) == "TrainingSet(5 stays of 5 patients)"
