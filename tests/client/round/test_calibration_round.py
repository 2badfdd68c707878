"""A site's sums for a calibration round, against a slow reference, for any weights and records."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.ledger.store import Ledger
from consilium.client.records.cohort import training_shards
from consilium.client.records.features import PatientTensors
from consilium.client.round.calibration_round import calibration_sums
from consilium.client.round.charges import reserve_all, round_charges
from consilium.client.round.contribution import Contributor
from consilium.client.round.predictions import predict, predict_hazards
from consilium.shared.errors import BudgetError, MessageError
from consilium.shared.model.intercepts import intercepts
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import load_vector, parameter_count, to_vector
from consilium.shared.privacy.accounting import plan
from consilium.shared.privacy.calibration import calibration_bound, calibration_shift
from consilium.shared.rounds.contents import Purpose, RoundConfiguration
from consilium.shared.study.definition import Study
from tests.hostile.neighbours import hostile_normalisation, hostile_weights, pair
from tests.study_text import small_study

ASKED = RoundConfiguration(purpose=Purpose.CALIBRATION)


def calibrated(**tables: dict[str, object]) -> Study:
    return small_study(model={"hidden": 3}, privacy={"calibration_rounds": 2}, **tables)


STUDIES = {
    "binary": calibrated(),
    "steps": calibrated(task={"kind": "binary", "per_step": True}),
    "labels": calibrated(task={"kind": "multilabel", "outputs": 3}),
    "labels of steps": calibrated(task={"kind": "multilabel", "outputs": 2, "per_step": True}),
    "survival": calibrated(task={"kind": "survival", "outputs": 3, "cuts": [1.0, 2.0, 4.0]}),
    "branches": small_study(
        model={"branches": [{"kind": "linear"}, {"kind": "recurrent", "hidden": 3}]},
        privacy={"calibration_rounds": 1},
    ),
}
STEPS = 5


def tensors(study: Study, stays: int, others: int, seed: int) -> PatientTensors:
    """Patient 0 has so many stays, the others one each; a tenth of the labels is not known."""
    draw, model = np.random.default_rng(seed), study_model(study)
    rows, task = stays + others, study.task
    shape = (rows, *((STEPS,) if task.per_step else ()), *((task.outputs,) * (task.outputs > 1)))
    y = np.where(draw.random(shape) < 0.1, np.nan, draw.integers(0, 2, shape))
    patient = np.concatenate([np.zeros(stays, np.int64), np.arange(others) + 1])
    order = draw.permutation(rows)
    mask = np.arange(STEPS) < draw.integers(1, STEPS + 1, size=(rows, 1))
    return PatientTensors(
        x_NTF=torch.from_numpy(draw.normal(size=(rows, STEPS, model.features)).astype(np.float32)),
        mask_NT=torch.from_numpy(mask),
        y_N=torch.from_numpy(y.astype(np.float32)),
        patient_N=torch.from_numpy(patient[order]),
        patients=others + 1,
    )


def slowly(model, patients: PatientTensors, study: Study) -> np.ndarray:
    """Return the sums (3 K,), one risk after the other."""
    sums = np.zeros((study.task.outputs, 3))
    for patient in range(patients.patients):
        stays = np.flatnonzero(patients.patient_N.numpy() == patient)
        for stay in stays:
            x, mask = patients.x_NTF[stay : stay + 1], patients.mask_NT[stay : stay + 1]
            with torch.no_grad():
                risks = model.eval().scores(model(x, mask)).double().numpy()[0]
            if study.task.kind == "survival":  # hazards: of who was left, how many had the event
                left = np.concatenate([[1.0], 1 - risks])
                risks = 1 - left[1:] / left[:-1]
            labels = patients.y_N[stay].numpy().reshape(risks.shape)
            steps = np.flatnonzero(mask[0]) if study.task.per_step else [...]
            for step in steps:
                for output, (p, y) in enumerate(zip(risks[step], labels[step], strict=True)):
                    if not np.isnan(y):
                        terms = np.array([y - p, 3 * p * (1 - p), 3 * p * (1 - p) * (1 - 2 * p)])
                        sums[output] += terms / len(stays) / len(steps)
    return sums.ravel()


@pytest.mark.parametrize("name", STUDIES)
def test_the_sums_are_those_of_a_loop_over_patients_stays_and_steps(name: str) -> None:
    study = STUDIES[name]
    model, patients = study_model(study), tensors(study, 3, 6, 1)
    found = calibration_sums(model, patients, study)
    assert found == pytest.approx(slowly(model, patients, study), abs=1e-6)


def test_a_site_whose_patients_all_opted_out_adds_nothing() -> None:
    assert calibration_sums(study_model(STUDIES["labels"]), tensors(STUDIES["labels"], 0, 0, 1),
                            STUDIES["labels"]).tolist() == [0.0] * 9  # fmt: skip


def change(model, patients: PatientTensors, study: Study) -> float:
    """Return how far patient 0 moves the sums."""
    keep = patients.patient_N > 0
    without = PatientTensors(
        x_NTF=patients.x_NTF[keep],
        mask_NT=patients.mask_NT[keep],
        y_N=patients.y_N[keep],
        patient_N=patients.patient_N[keep] - 1,
        patients=patients.patients - 1,
    )
    sums = [calibration_sums(model, part, study) for part in (patients, without)]
    assert np.isfinite(sums).all()
    return float(np.linalg.norm(sums[0] - sums[1]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(list(STUDIES)),
    stays=st.sampled_from([0, 1, 2, 30]),
    number=st.integers(0, 9),
    wrong=st.sampled_from(["none", "nan", "huge", "missing", "labels"]),
)
def test_no_weights_and_no_records_let_a_patient_count_more_than_once(
    name, stays, number, wrong
) -> None:
    study = STUDIES[name]
    model, patients = study_model(study), tensors(study, stays, 8, number)
    load_vector(model, hostile_weights(parameter_count(model), number))
    first = patients.patient_N == 0
    if wrong == "nan":
        patients.x_NTF[first] = np.nan
    elif wrong == "huge":
        patients.x_NTF[first] = 1e30
    elif wrong == "missing":
        patients.mask_NT[first] = False
    elif wrong == "labels":
        patients.y_N[first] = 1e20
    assert change(model, patients, study) <= calibration_bound(study) * (1 + 1e-9)


def test_the_bound_is_reached_by_a_patient_whose_risks_are_all_wrong() -> None:
    study = STUDIES["labels"]
    model, patients = study_model(study), tensors(study, 1, 4, 2)
    weights = np.zeros(parameter_count(model), np.float32)
    load_vector(model, weights)
    with torch.no_grad():
        for layer in model.output_layers:
            layer.bias.fill_(1e4)
    patients.y_N[patients.patient_N == 0] = 0.0
    assert change(model, patients, study) == pytest.approx(calibration_bound(study))


def test_hazards_of_survival_are_put_right_interval_by_interval() -> None:
    """Of 4,000 people, some of them lost, a model that expects an eighth of the events."""
    study, draw = STUDIES["survival"], np.random.default_rng(4)
    true_K, people = np.array([0.1, 0.25, 0.4]), 4000
    came_NK = draw.random((people, 3)) < true_K
    at_risk_NK = np.cumsum(came_NK, axis=1) - came_NK == 0
    at_risk_NK &= np.cumsum(draw.random((people, 3)) < 0.1, axis=1) == 0  # others were lost
    label_NK = np.where(at_risk_NK, came_NK.astype(np.float32), np.float32(np.nan))
    model = study_model(study)
    features = draw.normal(size=(people, STEPS, model.features)).astype(np.float32)
    patients = PatientTensors(
        x_NTF=torch.from_numpy(features),
        mask_NT=torch.ones(people, STEPS, dtype=torch.bool),
        y_N=torch.from_numpy(label_NK),
        patient_N=torch.arange(people),
        patients=people,
    )
    load_vector(model, np.zeros(parameter_count(model), np.float32))
    with torch.no_grad():
        model.output_layers[0].bias.copy_(torch.logit(torch.tensor(true_K / 8)))
    doubt_K = None
    for _ in range(2):
        sums = calibration_sums(model, patients, study)
        shift = calibration_shift(sums, deviation=1.0, doubt_K=doubt_K)
        places, added = intercepts(study, shift.by_K)
        weights_D = to_vector(model)
        weights_D[places] += added
        load_vector(model, weights_D)
        doubt_K = shift.doubt_K
    hazard_NK = predict_hazards(model, patients.x_NTF, patients.mask_NT)
    expected_K = (hazard_NK * at_risk_NK).sum(axis=0)
    assert expected_K == pytest.approx(np.nansum(label_NK, axis=0), rel=0.03)
    horizon = predict(model, patients.x_NTF, patients.mask_NT)[:, -1].mean()
    assert horizon == pytest.approx(1 - np.prod(1 - true_K), abs=0.02)


def test_a_calibration_is_charged_to_the_training_patients_as_an_event_of_its_own() -> None:
    study = STUDIES["binary"]
    (release,) = round_charges(study, ASKED, 9, bytes(32))
    assert (release.purpose, release.events) == ("calibration", (plan(study).calibration,))
    assert release.shards == training_shards(study)
    assert round_charges(small_study(), ASKED, 9, bytes(32)) == ()


def test_a_site_answers_as_many_calibrations_as_the_study_has_and_each_once(tmp_path: Path) -> None:
    study = STUDIES["binary"]
    ledger = Ledger(tmp_path / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
    spent = []
    for number in (3, 3, 4):  # the third round is asked again, as after a crash
        spent += reserve_all(ledger, round_charges(study, ASKED, number, bytes(32)), study)
    assert spent[0] == spent[1] < spent[2]
    for run in (bytes(32), bytes([1]) * 32):
        with pytest.raises(BudgetError, match=r"calibration of round 5 .* one more than the 2"):
            reserve_all(ledger, round_charges(study, ASKED, 5, run), study)
    assert [entry.release.round for entry in ledger.entries()] == [3, 4]


def test_a_study_without_calibration_refuses_to_be_asked_for_one(tmp_path: Path) -> None:
    for study in (small_study(), small_study(privacy={"mode": "none"})):
        cohort = pair(study, "ordinary").present
        one = Contributor("a", study, cohort, Policy(), PersonalStore(tmp_path))
        weights = hostile_weights(one.parameters, 0)
        asked = RoundConfiguration(
            purpose=Purpose.CALIBRATION, normalisation=hostile_normalisation(study, 0)
        )
        with pytest.raises(MessageError, match="study small has none"):
            one.check(asked, weights)
