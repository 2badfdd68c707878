"""What leaves about validation patients: bounded a patient, and right in sum."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score, roc_auc_score

from consilium.client.records.features import PatientTensors
from consilium.client.round import validation_sums as scoring
from consilium.client.round.predictions import predict
from consilium.server.figures.evaluation import federated_metrics, next_edges
from consilium.shared.figures.score_counts import metrics_from_counts
from consilium.shared.model.network import build_model
from consilium.shared.rounds.contents import (
    LARGEST_LOSS,
    counts_shape,
    edges_from_bytes,
    metrics_sensitivity,
)
from consilium.shared.rounds.patient_groups import patient_groups
from consilium.shared.study.survival import interval_labels
from consilium.simulations.figures.measures import Survival
from tests.study_text import small_study

AGE = {"unit": "a", "low": 0, "high": 120, "center": 60, "spread": 15, "role": "static"}
TASKS = {
    "binary": {"kind": "binary"},
    "binary per step": {"kind": "binary", "per_step": True},
    "multiclass": {"kind": "multiclass", "outputs": 3},
    "multilabel": {"kind": "multilabel", "outputs": 2},
    "regression": {"kind": "regression"},
    "survival": {"kind": "survival", "outputs": 3, "cuts": (1.0, 2.0, 4.0)},
}


def cohort(task: dict, patients: int, seed: int) -> PatientTensors:
    stream = np.random.default_rng(seed)
    stays_P = stream.integers(1, 4, patients)
    patient_N = np.repeat(np.arange(patients), stays_P)
    stays, steps = len(patient_N), 4
    lengths_N = stream.integers(1, steps + 1, stays)
    outputs = task.get("outputs", 1)
    shape = (stays, steps) if task.get("per_step") else (stays,)
    y = stream.integers(0, outputs if task["kind"] == "multiclass" else 2, shape).astype(np.float32)
    if task["kind"] in ("multilabel", "survival"):
        y = stream.integers(0, 2, (stays, outputs)).astype(np.float32)
        y[0, 0] = np.nan
    return PatientTensors(
        x_NTF=torch.from_numpy(stream.normal(0, 3, (stays, steps, 3)).astype(np.float32)),
        mask_NT=torch.from_numpy(np.arange(steps) < lengths_N[:, None]),
        y_N=torch.from_numpy(y),
        patient_N=torch.from_numpy(patient_N),
        patients=patients,
    )


def validation_sums(model, patients, study, members=None) -> dict:
    return scoring.validation_sums(model, patients, study, edges_from_bytes(b"", study), members)


def evaluated(model, patients, study):
    sums = validation_sums(model, patients, study)
    return federated_metrics(sums, study, sites=1, edges_KL=edges_from_bytes(b"", study))


def without(tensors: PatientTensors, patient: int) -> PatientTensors:
    kept = tensors.patient_N != patient
    renumbered = tensors.patient_N[kept]
    return PatientTensors(
        x_NTF=tensors.x_NTF[kept],
        mask_NT=tensors.mask_NT[kept],
        y_N=tensors.y_N[kept],
        patient_N=renumbered - (renumbered > patient).long(),
        patients=tensors.patients - 1,
    )


@pytest.mark.sampled(3)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), patients=st.integers(2, 6))
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_one_patient_changes_the_sums_by_at_most_the_sensitivity(
    task: dict, seed: int, patients: int
) -> None:
    study = small_study(task=task)
    model = build_model(study, 3, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0)
    tensors = cohort(task, patients, seed)
    everyone = np.concatenate(list(validation_sums(model, tensors, study).values()))
    for patient in range(patients):
        others = validation_sums(model, without(tensors, patient), study)
        change = everyone - np.concatenate(list(others.values()))
        assert np.linalg.norm(change) <= metrics_sensitivity(study) * (1 + 1e-6)  # float32 model


@pytest.mark.sampled(1)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), patients=st.integers(2, 6))
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_one_patient_in_groups_changes_the_sums_by_at_most_the_sensitivity(
    task: dict, seed: int, patients: int
) -> None:
    study = small_study(
        task=task,
        variables={"age": AGE},
        evaluation={"per_site": True, "subgroups": {"age": {"cuts": [50, 70]}}},
    )
    model = build_model(study, 3, seed=seed)
    tensors = cohort(task, patients, seed)
    part_N = np.random.default_rng(seed).integers(0, 3, len(tensors.y_N))  # may differ by stay
    everyone = np.ones(len(part_N), dtype=bool)
    stays = [everyone, *(part_N == part for part in range(3)), everyone]
    members = stays + [None] * (len(patient_groups(study)) - len(stays))

    def sums(kept) -> np.ndarray:
        patients = tensors if kept.all() else without(tensors, patient)
        chosen = [None if stays_N is None else stays_N[kept] for stays_N in members]
        return np.concatenate(list(validation_sums(model, patients, study, chosen).values()))

    for patient in range(patients):
        change = sums(everyone) - sums(tensors.patient_N.numpy() != patient)
        bound = metrics_sensitivity(study, final=True)
        assert np.linalg.norm(change) <= bound * (1 + 1e-6)  # float32 model


def test_the_sums_give_the_auroc_and_the_loss_of_all_patients() -> None:
    study = small_study(task=TASKS["binary"], evaluation={"bins": 2000})
    model = build_model(study, 3, seed=1)
    tensors = cohort(TASKS["binary"], 300, 1)
    sums = validation_sums(model, tensors, study)
    metrics = metrics_from_counts(
        sums["scores"].reshape(counts_shape(study))[0], edges_from_bytes(b"", study)[0]
    )
    assert metrics is not None
    stays_P = np.bincount(tensors.patient_N)
    risk_N = predict(model, tensors.x_NTF, tensors.mask_NT)[:, 0]
    exact = roc_auc_score(tensors.y_N.numpy(), risk_N, sample_weight=1 / stays_P[tensors.patient_N])
    assert metrics.auroc == pytest.approx(exact, abs=metrics.auroc_error + 1e-9)
    loss, patients = sums["loss"]
    assert patients == 300
    assert LARGEST_LOSS * loss / patients == pytest.approx(metrics.log_loss, rel=0.2)


def test_the_sums_give_accuracy_and_sensitivity_of_all_patients() -> None:
    task = {"kind": "multiclass", "outputs": 3}
    study = small_study(task=task)
    model = build_model(study, 3, seed=1)
    tensors = cohort(task, 200, 2)
    metrics = evaluated(model, tensors, study)
    weight = 1 / np.bincount(tensors.patient_N)[tensors.patient_N]
    chosen = predict(model, tensors.x_NTF, tensors.mask_NT).argmax(axis=1)
    truth = tensors.y_N.numpy().astype(int)
    assert metrics.accuracy == pytest.approx(accuracy_score(truth, chosen, sample_weight=weight))
    sensitivity = recall_score(truth, chosen, average=None, sample_weight=weight)
    assert metrics.sensitivity == pytest.approx(tuple(sensitivity))
    table = confusion_matrix(truth, chosen, sample_weight=weight)
    assert np.array(metrics.confusion) == pytest.approx(table)


@pytest.mark.parametrize("per_step", [False, True])
def test_the_sums_give_mean_absolute_and_root_mean_squared_error_in_the_targets_unit(
    per_step: bool,
) -> None:
    task = {"kind": "regression", "per_step": per_step, "center": 50.0, "spread": 10.0}
    study = small_study(task=task)
    model = build_model(study, 3, seed=1)
    tensors = cohort(task, 100, 3)
    shape = tuple(tensors.mask_NT.shape) if per_step else (len(tensors.y_N),)
    y = np.random.default_rng(4).normal(50, 10, shape).astype(np.float32)
    y[0] = np.nan
    tensors = replace(tensors, y_N=torch.from_numpy(y))
    metrics = evaluated(model, tensors, study)
    error = np.abs(predict(model, tensors.x_NTF, tensors.mask_NT)[..., 0] - y)
    used = ~np.isnan(y) & (tensors.mask_NT.numpy() if per_step else True)
    patient = tensors.patient_N.numpy()
    if per_step:
        patient = np.broadcast_to(patient[:, None], y.shape)
    means = [error[used & (patient == p)].mean() for p in np.unique(patient[used])]
    assert metrics.errors == pytest.approx((np.mean(means),), rel=1e-5)
    squares = [(error[used & (patient == p)] ** 2).mean() for p in np.unique(patient[used])]
    assert metrics.root_errors == pytest.approx((np.sqrt(np.mean(squares)),), rel=1e-5)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("size", [1e14, 3e38])
def test_weights_and_records_made_to_overflow_give_finite_bounded_sums(task: dict, size: float):
    study = small_study(task=task)
    everyone = cohort(task, 9, 3)
    everyone.x_NTF[0] = np.nan
    everyone.x_NTF[1] = 1e30
    everyone.y_N[2] = 1e20
    everyone.y_N[3] = np.inf
    rows = everyone.patient_N < 8
    without = replace(
        everyone,
        x_NTF=everyone.x_NTF[rows],
        mask_NT=everyone.mask_NT[rows],
        y_N=everyone.y_N[rows],
        patient_N=everyone.patient_N[rows],
        patients=8,
    )
    for seed in range(5):
        model = build_model(study, 3, seed=seed)
        for parameter in model.parameters():
            parameter.data = torch.sign(parameter.data) * size
        both = [validation_sums(model, patients, study) for patients in (everyone, without)]
        for part in both[0]:
            assert np.isfinite(both[0][part]).all()
        moved = np.concatenate([both[0][part] - both[1][part] for part in both[0]])
        assert np.linalg.norm(moved) <= metrics_sensitivity(study, final=False) + 1e-9


def test_no_patient_gives_zeros_of_the_right_length() -> None:
    study = small_study()
    sums = validation_sums(build_model(study, 3, seed=1), None, study)
    assert [(name, part.size, part.any()) for name, part in sums.items()] == [
        ("loss", 2, False),
        ("scores", 64, False),
    ]


def test_survival_from_the_sums_of_three_sites_is_that_of_their_patients_together() -> None:
    task = TASKS["survival"]
    study = small_study(task=task, privacy={"mode": "none"}, evaluation={"bins": 1000})
    model = build_model(study, 3, 5)
    edges_KL = edges_from_bytes(b"", study)
    sites = [cohort(task, 60, seed) for seed in (1, 2, 3)]
    draw = np.random.default_rng(4)
    for site in sites:  # labels as they can be: no event twice, nothing known after a loss
        time_N = draw.integers(0, 5, len(site.y_N)).astype(float)
        event_N = draw.integers(0, 2, len(site.y_N)).astype(float)
        site.y_N[:] = torch.from_numpy(interval_labels(time_N, event_N, study.task, "made up"))
    every = [scoring.validation_sums(model, site, study, edges_KL) for site in sites]
    summed = {name: sum(one[name] for one in every) for name in every[0]}
    found = federated_metrics(summed, study, sites=3, edges_KL=edges_KL)
    risks = [predict(model, site.x_NTF, site.mask_NT) for site in sites]
    label_RK = np.concatenate([site.y_N.numpy() for site in sites]).astype(float)
    weight_R = np.concatenate([scoring.stay_weights(site) for site in sites])
    exact = Survival(np.concatenate(risks), label_RK).values(weight_R)
    assert found.outputs == ()
    assert found.survival.c_index.value == pytest.approx(exact[0], abs=found.survival.error + 1e-9)
    assert found.survival.error < 0.02
    plain = found.to_json(final=True)
    assert plain["survival"]["c_index"]["value"] == found.survival.c_index.value
    assert json.dumps(plain)
    finer_KL = next_edges(found, study)
    assert (finer_KL == finer_KL[0]).all()
    assert (np.diff(finer_KL[0]) > 0).all()
