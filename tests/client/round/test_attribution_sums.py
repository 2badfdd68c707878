"""What the model looks at is a bounded sum over patients, near their explanations one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.explain.integrated_gradients import explain
from consilium.client.records.features import PatientTensors
from consilium.client.round.attribution_sums import attribution_sums
from consilium.server.figures.attributions import attributions_from_sums
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import StudyError
from consilium.shared.export.signed_model import Trained
from consilium.shared.rounds.attribution_bands import (
    LARGEST_EFFECT,
    PARTS,
    attributions_size,
    band_starts,
)
from consilium.shared.rounds.contents import metrics_sensitivity
from consilium.shared.study.definition import parse_study, with_changes
from consilium.shared.study.input_names import feature_names
from tests.client.round.test_validation_sums import without
from tests.signed_models import some_trained
from tests.study_text import TEXT, small_study

AGE = {"unit": "a", "low": 0, "high": 120, "center": 60, "spread": 15, "role": "static"}
STUDY = small_study(
    variables={"age": AGE},
    data={"window_h": 10},
    model={"cell": "gru", "hidden": 4},
    evaluation={"validation_fraction": 0.3, "explained_patients": 100},
)


def patients_of(stays_P: list[int], seed: int, scale: float = 1.0) -> PatientTensors:
    stays = sum(stays_P)
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, 11, (stays,), generator=generator)
    features = len(feature_names(STUDY))
    return PatientTensors(
        x_NTF=scale * torch.randn(stays, 10, features, generator=generator),
        mask_NT=torch.arange(10) < steps[:, None],
        y_N=torch.zeros(stays),
        patient_N=torch.repeat_interleave(torch.arange(len(stays_P)), torch.tensor(stays_P)),
        patients=len(stays_P),
    )


def sums_of(trained: Trained, patients: PatientTensors | None, smallest: int = 0) -> np.ndarray:
    return attribution_sums(trained, patients, Keystream(b"k" * 32), smallest=smallest)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), louder=st.sampled_from([1.0, 20.0]))
def test_one_patient_changes_the_sums_by_at_most_what_is_charged(seed: int, louder: float) -> None:
    trained = some_trained(STUDY, seed)
    with torch.no_grad():
        trained.model.head.weight.mul_(louder)
    patients = patients_of([1, 3, 2], seed, scale=2.0)
    everyone = sums_of(trained, patients)
    for patient in range(3):
        change = everyone - sums_of(trained, without(patients, patient))
        assert np.linalg.norm(change[2:]) <= 1 + 1e-9
        assert np.linalg.norm(change) <= np.sqrt(PARTS) + 1e-9
    plain = with_changes(STUDY, evaluation={"explained_patients": 0})
    charged = (
        metrics_sensitivity(STUDY, final=True) ** 2 - metrics_sensitivity(plain, final=True) ** 2
    )
    assert charged == pytest.approx(PARTS)


@pytest.mark.parametrize("skip", [False, True], ids=["", "with a linear path"])
def test_the_means_are_those_of_the_patients_explained_one_by_one(skip: bool) -> None:
    trained = some_trained(with_changes(STUDY, model={"skip": skip}), 3)
    patients = patients_of([1, 2, 1], 3)
    expected_PVA = np.zeros((3, 2, 4))
    for stay, patient in enumerate(patients.patient_N.tolist()):
        steps = int(patients.mask_NT[stay].sum())
        told = explain(trained, patients.x_NTF[stay, :steps], output=0)
        effect = np.zeros((10, 2))
        effect[:steps] = told.effect_TC[:, :2]
        for band, part in enumerate(np.split(effect, band_starts(STUDY)[1:])):
            expected_PVA[patient, :, band] += np.abs(part.sum(axis=0)) / (2 if patient == 1 else 1)
    assert (
        np.linalg.norm(expected_PVA.reshape(3, -1), axis=1).max() < LARGEST_EFFECT
    )  # none clipped
    sums = sums_of(trained, patients)
    least = STUDY.model_copy(
        update={"evaluation": STUDY.evaluation.model_copy(update={"smallest_group": 1})}
    )
    found = attributions_from_sums(sums, least, noise=0.0)
    assert found is not None
    assert (found.patients, found.clipped, found.deviation) == (3, 0, 0)
    assert found.mean_VA == pytest.approx(expected_PVA.mean(axis=0), abs=1e-9)


def test_too_few_patients_say_nothing_at_the_site_or_in_the_sum() -> None:
    trained = some_trained(STUDY)
    patients = patients_of([1] * 6, 0)
    assert not sums_of(trained, None).any()
    assert not sums_of(trained, patients, smallest=7).any()
    sums = sums_of(trained, patients, smallest=6)
    assert sums[0] == 6
    assert attributions_from_sums(sums, STUDY, noise=0.0) is None  # 10 are needed
    many = sums * 3
    assert attributions_from_sums(many, STUDY, noise=0.0) is not None
    assert attributions_from_sums(many, STUDY, noise=5.0) is None  # 18 may be fewer than 10


def test_no_more_patients_are_explained_than_the_study_says() -> None:
    few = with_changes(STUDY, evaluation={"explained_patients": 4})
    trained = some_trained(few)
    assert sums_of(trained, patients_of([1] * 9, 1))[0] == 4
    assert len(sums_of(trained, None)) == attributions_size(few) == 2 + 2 * 4


@pytest.mark.parametrize(
    "lines", ["", 'validation_fraction = 0.2\n[task]\nkind = "multilabel"\noutputs = 2']
)
def test_a_study_that_cannot_be_explained_is_refused(lines: str) -> None:
    with pytest.raises(StudyError, match="explained_patients 5 explains the one output of a task"):
        parse_study(f"{TEXT}\n[evaluation]\nexplained_patients = 5\n{lines}")
