"""Local training: sampling, clipping, noise, and what it equals in Opacus."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from scipy import stats

import consilium.client.round.training
from consilium.client.round.training import (
    TrainingSet,
    clipped_gradient_sum,
    predict,
    predict_with_loss,
    sample_patients,
    train_locally,
    train_own,
)
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import PrivacyError
from consilium.shared.model.network import RecurrentModel, build_model
from consilium.shared.model.weight_vector import load_vector, to_vector
from tests.study_text import small_study

FEATURES = 4


def stream(number: int) -> Keystream:
    return Keystream(number.to_bytes(32, "little"))


def patients(count: int, *, stays: int = 1, steps: int = 6, seed: int = 0) -> TrainingSet:
    generator = torch.Generator().manual_seed(seed)
    rows = count * stays
    x = torch.randn(rows, steps, FEATURES, generator=generator)
    lengths = torch.randint(1, steps + 1, (rows, 1), generator=generator)
    order = torch.randperm(rows, generator=generator)
    return TrainingSet(
        x_NTF=x,
        mask_NT=torch.arange(steps)[None, :] < lengths,
        y=(x[:, 0, 0] > 0).float(),
        patient_N=torch.arange(rows)[order] % count,
        patients=count,
    )


def one_patient_less(data: TrainingSet) -> TrainingSet:
    """The same patients without the last one."""
    keep = data.patient_N < data.patients - 1
    return TrainingSet(
        x_NTF=data.x_NTF[keep],
        mask_NT=data.mask_NT[keep],
        y=data.y[keep],
        patient_N=data.patient_N[keep],
        patients=data.patients - 1,
    )


def trained(data: TrainingSet, noise: float | None, number: int, **tables: object) -> np.ndarray:
    study = small_study(**tables)
    model = build_model(study, FEATURES, seed=1)
    train_locally(model, data, study, noise_multiplier=noise, source=stream(number))
    return to_vector(model)


def test_without_privacy_the_result_depends_on_the_source_alone():
    data = patients(30)
    tables = {"model": {"dropout": 0.3}}
    assert np.array_equal(trained(data, None, 1, **tables), trained(data, None, 1, **tables))
    assert not np.array_equal(trained(data, None, 1, **tables), trained(data, None, 2, **tables))


@pytest.mark.parametrize("noise", [None, 1.0])
def test_fedprox_without_a_pull_is_fedavg_bit_for_bit_and_with_one_stays_nearer(noise):
    data, start = patients(30), to_vector(build_model(small_study(), FEATURES, seed=1))
    free = trained(data, noise, 1)
    assert np.array_equal(trained(data, noise, 1, training={"proximal": 0.0}), free)
    away = [
        np.linalg.norm(trained(data, noise, 1, training={"proximal": mu}) - start)
        for mu in (0.5, 2.0)
    ]
    assert away[1] < away[0] < np.linalg.norm(free - start)


def test_parallel_threads_do_not_disturb_one_another():
    data = patients(30)
    alone = [trained(data, 1.0, n) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda n: trained(data, 1.0, n), range(4)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_torchs_global_state_is_left_alone():
    before = torch.random.get_rng_state()
    trained(patients(10), 1.0, 1, model={"dropout": 0.3})
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_without_privacy_learns():
    data = patients(200)
    study = small_study(
        training={"optimizer": "adam", "learning_rate": 0.02, "local_steps": 60},
        model={"pooling": "mean"},
    )
    model = build_model(study, FEATURES, seed=1)
    first = train_locally(
        build_model(study, FEATURES, seed=1),
        data,
        small_study(training={"learning_rate": 1e-9}),
        noise_multiplier=None,
        source=stream(1),
    )
    train_locally(model, data, study, noise_multiplier=None, source=stream(1))
    scores = predict(model, data.x_NTF, data.mask_NT)[:, 0]
    assert first.mean_loss > 0.6
    assert np.mean((scores > 0.5) == (data.y.numpy() > 0.5)) > 0.85


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
    monkeypatch.setattr(consilium.client.round.training, "PIECE_NUMBERS", 8_000)
    parted = clipped_gradient_sum(model, data, study, source=stream(1))
    np.testing.assert_allclose(parted, whole, rtol=1e-4, atol=1e-6)


def test_noise_has_the_deviation_it_claims():
    noise, clip, steps = 2.0, 0.5, 40
    training = {"sampling_rate": 0.5, "local_steps": steps, "learning_rate": 1.0}
    tables = {"training": training, "privacy": {"clip_norm": clip}}
    data = patients(8)
    start = to_vector(build_model(small_study(), FEATURES, seed=1))
    moved = trained(data, noise, 1, **tables) - start
    # Eight patients' gradients of at most `clip` each are small beside this noise.
    expected = noise * clip / (0.5 * 8) * np.sqrt(steps)
    assert moved.std() == pytest.approx(expected, rel=0.05)
    assert abs(moved.mean()) < 4 * expected / np.sqrt(moved.size)


def test_an_empty_sample_is_legal_and_still_noised():
    tables = {"training": {"sampling_rate": 1e-9, "local_steps": 2}}
    start = to_vector(build_model(small_study(), FEATURES, seed=1))
    assert np.array_equal(trained(patients(5), None, 1, **tables), start)
    assert not np.array_equal(trained(patients(5), 1.0, 1, **tables), start)
    study = small_study(**tables)
    result = train_locally(
        build_model(study, FEATURES, seed=1),
        patients(5),
        study,
        noise_multiplier=1.0,
        source=stream(1),
    )
    assert result.sampled == (0, 0)
    assert np.isnan(result.mean_loss)


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


def test_non_finite_features_stop_the_training():
    data = patients(5)
    data.x_NTF[:, 0, 0] = torch.inf
    with pytest.raises(PrivacyError, match="not finite"):
        trained(data, 1.0, 1, training={"sampling_rate": 1.0})


@pytest.mark.filterwarnings("ignore:Full backward hook")  # Opacus's, as its inputs need no gradient
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_step_equals_opacuss_step_on_the_same_model(cell):
    """Opacus's own hooks, clipping and scaling on torch.nn's layers, without its noise."""
    training = {"sampling_rate": 1.0, "local_steps": 1, "learning_rate": 0.5}
    tables = {"training": training, "privacy": {"clip_norm": 0.05}, "model": {"cell": cell}}
    data = patients(12)
    data.mask_NT.fill_(True)
    ours = trained(data, 1e-12, 1, **tables)

    model = build_model(small_study(**tables), FEATURES, seed=1)
    recurrent = {"rnn": "DPRNN", "lstm": "DPLSTM", "gru": "DPGRU"}[cell]
    reference = OpacusModel(model, recurrent)
    wrapped = GradSampleModule(reference, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=0.5),
        noise_multiplier=0.0,
        max_grad_norm=0.05,
        expected_batch_size=12,
    )
    logits = wrapped(data.x_NTF)
    torch.nn.functional.binary_cross_entropy_with_logits(
        logits[:, 0], data.y, reduction="sum"
    ).backward()
    optimizer.step()
    state = reference.state_dict()
    theirs = np.concatenate([state[name].flatten().numpy() for name in model.state_dict()])
    # Opacus divides by norm + 1e-6.
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)


class OpacusModel(torch.nn.Module):
    """The same network from Opacus's layers, with the model's weights."""

    def __init__(self, model: RecurrentModel, layer: str) -> None:
        super().__init__()
        from opacus import layers

        self.recurrent = getattr(layers, layer)(FEATURES, 32, batch_first=True)
        self.head = torch.nn.Linear(32, 1)
        self.recurrent.load_state_dict(model.recurrent.state_dict())
        self.head.load_state_dict(model.head.state_dict())

    def forward(self, x_NTF: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(x_NTF)[0][:, -1])


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


def test_dittos_steps_are_its_published_ones():
    """v <- v - eta (gradient of the mean loss + lambda (v - w)), written out, all patients."""
    ditto = {"pull": 0.7, "steps": 3, "learning_rate": 0.2}
    study = small_study(training={"sampling_rate": 1.0}, personalisation={"ditto": ditto})
    data = patients(12)
    model = build_model(study, FEATURES, seed=1)
    global_D = to_vector(build_model(study, FEATURES, seed=2))
    v = torch.from_numpy(to_vector(model))
    reference = build_model(study, FEATURES, seed=1)
    for _ in range(3):
        load_vector(reference, v.numpy())
        loss = reference.loss_per_stay(
            reference(data.x_NTF, data.mask_NT), data.y, data.mask_NT
        ).mean()
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        gradient = torch.cat([g.flatten() for g in gradients])
        v = v - 0.2 * (gradient + 0.7 * (v - torch.from_numpy(global_D)))
    train_own(model, data, study, global_D=global_D, source=stream(1))
    np.testing.assert_allclose(to_vector(model), v.numpy(), rtol=1e-4, atol=1e-6)


def test_ditto_without_a_pull_is_local_training_and_with_one_comes_nearer_the_global_model():
    data = patients(30)
    ditto = {"steps": 10, "learning_rate": 0.2}
    same = {"local_steps": 10, "learning_rate": 0.2}
    own = {}
    globals_D = [to_vector(build_model(small_study(), FEATURES, seed=seed)) for seed in (2, 3)]
    for pull in (0.0, 0.5, 4.0):
        study = small_study(personalisation={"ditto": {**ditto, "pull": pull}})
        for number, global_D in enumerate(globals_D):
            model = build_model(study, FEATURES, seed=1)
            train_own(model, data, study, global_D=global_D, source=stream(1))
            own[pull, number] = to_vector(model)
    alone = trained(data, None, 1, training=same)
    assert np.array_equal(own[0.0, 0], alone)
    assert np.array_equal(own[0.0, 1], alone)
    away = [np.linalg.norm(own[pull, 0] - globals_D[0]) for pull in (0.0, 0.5, 4.0)]
    assert away[2] < away[1] < away[0]
