"""Local training: its noise, what it leaves alone, what it equals in Opacus and as published."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer

from consilium.client.round.predictions import predict
from consilium.client.round.training import train_locally, train_own
from consilium.client.round.training_set import TrainingSet
from consilium.shared.model.network import RecurrentModel, build_model
from consilium.shared.model.weight_vector import load_vector, to_vector
from tests.client.round.made_up_patients import FEATURES, patients, stream
from tests.study_text import small_study


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


def test_patients_whose_features_are_not_finite_count_as_zero():
    data = patients(5)
    data.x_NTF[:, 0, 0] = torch.inf
    found = trained(data, 1.0, 1, training={"sampling_rate": 1.0})
    assert np.isfinite(found).all()


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
