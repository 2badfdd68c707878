"""Branches: what each reads, what each learns by, and each patient's gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.round.gradients import (
    Sample,
    clipped_gradient_sum,
    clipped_sums_together,
    gradient_sum,
)
from consilium.client.round.training_set import TrainingSet
from consilium.shared.figures.recalibration import Recalibration, with_recalibration
from consilium.shared.kernels.build import load_kernel
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.study_model import study_model
from consilium.shared.model.summary import COUNT_SCALE, RunningSummary
from consilium.shared.model.weight_vector import load_vector, to_vector
from consilium.shared.study.definition import Study
from tests.branch_studies import BRANCHES, CLOCKS_AND_STEPS, TASKS, study_of_branches
from tests.client.round.made_up_patients import stream
from tests.shared.export.test_onnx_graph import inputs

LENGTHS = [5, 1, 3, 6, 2, 6]


def rows(study: Study, seed: int = 0, lengths: list[int] = LENGTHS) -> tuple[torch.Tensor, ...]:
    """Inputs, masks and labels of made-up stays; padding holds zeros."""
    x_NTF, mask_NT = inputs(study, lengths, seed)
    generator, task = torch.Generator().manual_seed(seed), study.task
    shape = mask_NT.shape if task.per_step else mask_NT.shape[:1]
    if task.kind in ("multilabel", "regression") and task.outputs > 1:
        shape = (*shape, task.outputs)
    most = 3 if task.kind == "multiclass" else 2
    y = torch.randint(0, most, shape, generator=generator).float()
    return torch.nan_to_num(x_NTF), mask_NT, y


def shaken(study: Study, seed: int = 0) -> torch.nn.Module:
    """The study's model with no weight at zero."""
    model, generator = study_model(study), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def naive(t: list[int], z: list[float]) -> list[float]:
    """A series' statistics from its measurements, by NumPy's own functions."""
    if not z:
        return [0.0] * 6
    rise = np.polyfit(t, z, 1)[0] * (t[-1] - t[0]) if len(z) > 1 else 0.0
    return [np.mean(z), np.std(z), rise, min(z), max(z), np.log1p(len(z)) / COUNT_SCALE]


@settings(max_examples=60, deadline=None)
@given(
    measured=st.lists(st.none() | st.integers(-320, 320), min_size=1, max_size=12),
    static=st.integers(-64, 64),
)
def test_a_running_summary_is_that_of_all_measurements_so_far(measured, static):
    now, last = RunningSummary.start(1, 1, 1), 0.0
    for number, value in enumerate(measured):
        last = last if value is None else value / 64
        row = torch.tensor([[last, float(value is not None), 9.0, static / 64]])
        now = now.after(row, number)
        so_far = [(t, z / 64) for t, z in enumerate(measured[: number + 1]) if z is not None]
        mean, spread, rise, low, high, count = naive([t for t, _ in so_far], [z for _, z in so_far])
        expected = [mean, spread, rise, low, high, last, count, static / 64]
        assert now.read()[0].tolist() == pytest.approx(expected, abs=1e-9)


def test_a_step_that_does_not_count_changes_no_summary():
    row, strange = torch.tensor([[1.0, 1.0, 0.5]]), torch.full((1, 3), torch.nan)
    one = RunningSummary.start(1, 1, 1).after(row, 0)
    assert torch.equal(one.after(strange, 1, torch.tensor([False])).read(), one.read())


@CLOCKS_AND_STEPS
@pytest.mark.parametrize("name", BRANCHES)
def test_what_stands_at_padding_is_never_looked_at_and_no_step_reads_later_ones(
    name, clock, per_step
):
    study = study_of_branches(name, clock=clock, task={"per_step": per_step})
    model = shaken(study).eval()
    x_NTF, mask_NT, _ = rows(study)
    with torch.no_grad():
        whole = model(x_NTF, mask_NT)
        strange = model(torch.where(mask_NT[..., None], x_NTF, torch.nan), mask_NT)
        kept = mask_NT if per_step else slice(None)
        assert torch.equal(whole[kept], strange[kept])
        for row, length in enumerate(LENGTHS):
            alone = model(x_NTF[row : row + 1, :length], mask_NT[row : row + 1, :length])
            found = whole[row, :length] if per_step else whole[row]
            torch.testing.assert_close(alone[0], found, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", BRANCHES)
def test_parameters_come_in_the_order_of_the_flat_vector_and_weights_go_there_and_back(name):
    study = study_of_branches(name)
    model = study_model(study)
    assert [key for key, _ in model.named_parameters()] == list(model.state_dict())
    vector = np.arange(to_vector(model).size, dtype=np.float32)
    load_vector(model, vector)
    assert np.array_equal(to_vector(model), vector)


def test_the_prediction_is_the_mean_of_branches_and_the_loss_the_sum_of_theirs():
    study = study_of_branches("all")
    model = shaken(study).eval()
    x_NTF, mask_NT, y = rows(study)
    each = [
        network(x_NTF[..., places], mask_NT)
        for network, places in zip(model.networks, model.places, strict=True)
    ]
    mean = (each[0] + (each[1] + each[2]) / 2 + each[3] + each[4]) / 4
    torch.testing.assert_close(model(x_NTF, mask_NT), mean)
    losses = sum(network.loss_per_stay(e, y, mask_NT) for network, e in zip(model.networks, each,
                                                                          strict=True))  # fmt: skip
    torch.testing.assert_close(model.training_loss(x_NTF, mask_NT, y), losses)


def test_members_begin_apart_and_every_branch_begins_at_the_prevalence():
    study = study_of_branches("all", task={"prevalence": 0.25})
    model = study_model(study).eval()
    one, other = model.networks[1:3]
    assert not torch.equal(one.hidden[0].weight, other.hidden[0].weight)
    for network in model.networks:
        assert network.head.bias.item() == pytest.approx(np.log(1 / 3))


def test_a_branch_reads_its_group_alone():
    study = study_of_branches("convolution of some")  # codes of "drug", and "bp"
    model = shaken(study).eval()
    x_NTF, mask_NT, _ = rows(study)
    changed = x_NTF.clone()
    read = model.places[0]
    other = [place for place in range(x_NTF.shape[2]) if place not in read]
    changed[..., other] = 7.0
    assert torch.equal(model(x_NTF, mask_NT), model(changed, mask_NT))
    changed[..., read[0]] = 7.0
    assert not torch.equal(model(x_NTF, mask_NT), model(changed, mask_NT))


@pytest.mark.parametrize("clip", [0.05, 5.0])
@pytest.mark.parametrize("task", [TASKS[0], TASKS[2] | {"per_step": True}])
@pytest.mark.parametrize("name", BRANCHES)
def test_the_clipped_sum_is_that_of_one_patient_at_a_time(name, task, clip):
    study = study_of_branches(
        name, task=task, privacy={"clip_norm": clip}, training={"sampling_rate": 1.0}
    )
    model = shaken(study)
    x_NTF, mask_NT, y = rows(study)
    patient_N = torch.tensor([0, 1, 2, 0, 1, 3])
    order = torch.argsort(patient_N, stable=True)
    data = TrainingSet(
        x_NTF=x_NTF[order], mask_NT=mask_NT[order], y=y[order], patient_N=patient_N[order],
        patients=4,
    )  # fmt: skip
    expected = np.zeros(to_vector(model).size)
    for patient in range(4):
        own = data.patient_N == patient
        loss = model.training_loss(data.x_NTF[own], data.mask_NT[own], data.y[own]).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        gradient = torch.cat([g.flatten() for g in gradients]).double().numpy()
        expected += gradient * min(1.0, clip / np.linalg.norm(gradient))
    found = clipped_gradient_sum(model, data, study, source=stream(1))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("name", BRANCHES)
def test_sites_that_compute_together_get_what_each_gets_alone(name):
    study = study_of_branches(name)
    model = shaken(study).train()
    samples = []
    for seed, lengths in enumerate([[5, 6, 1], [6], [2, 6, 3, 4]]):
        x_NTF, mask_NT, y = rows(study, seed, lengths)
        patient_N = torch.arange(len(lengths))
        data = TrainingSet(
            x_NTF=x_NTF, mask_NT=mask_NT, y=y, patient_N=patient_N, patients=len(lengths)
        )
        samples.append(Sample(data=data, chosen=np.arange(len(lengths))))
    together = clipped_sums_together(model, samples, 0.05)
    for sample, (sum_D, loss_N) in zip(samples, together, strict=True):
        alone_D, alone_N = gradient_sum(model, sample.data, sample.chosen, 0.05, stream(1))
        if load_kernel()[0] is not None:
            assert torch.equal(sum_D, alone_D)
        torch.testing.assert_close(sum_D, alone_D, rtol=1e-6, atol=1e-8)
        assert loss_N == pytest.approx(alone_N, rel=1e-6)


def test_dropout_of_every_kind_is_drawn_in_training_from_the_given_stream_alone():
    study = study_of_branches("all")
    content = study.model_dump(by_alias=True)
    for branch in content["model"]["branches"][1:]:
        branch["dropout"] = 0.5
    study = Study.model_validate(content)
    model = shaken(study)
    x_NTF, mask_NT, y = rows(study)
    assert model.dropout == 0.5

    def loss(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return model.training_loss(x_NTF, mask_NT, y, generator=generator)

    assert torch.equal(loss(1), loss(1))
    assert not torch.equal(loss(1), loss(2))
    model.eval()
    assert torch.equal(loss(1), loss(2))


@pytest.mark.parametrize(("parts", "own"), [(["head"], {"head", "skip"}), (["norm"], {"norm"})])
def test_a_part_that_stays_at_the_site_is_that_part_of_every_branch(parts, own):
    study = study_of_branches("recurrent", personalisation={"parts": parts})
    model = study_model(study)
    shared_D = shared_weights(study, to_vector(model).size)
    sizes = [(name, value.numel()) for name, value in model.state_dict().items()]
    expected = [not own & set(name.split(".")) for name, size in sizes for _ in range(size)]
    assert shared_D.tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_recalibrated_weights_give_the_recalibrated_log_odds():
    study = study_of_branches("all")
    model = shaken(study).eval()
    x_NTF, mask_NT, _ = rows(study)
    changed = with_recalibration(model, [Recalibration(slope=1.5, intercept=-0.25)])
    with torch.no_grad():
        torch.testing.assert_close(
            changed(x_NTF, mask_NT), 1.5 * model(x_NTF, mask_NT) - 0.25, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("name", BRANCHES)
def test_a_stays_numbers_are_the_same_bits_whoever_is_beside_it(name):
    study = study_of_branches(name)
    model = shaken(study).eval()
    x_NTF, mask_NT, _ = rows(study, lengths=[*range(1, 7)] * 5)
    with torch.no_grad():
        whole = model(x_NTF, mask_NT)
        for less in (1, 2, 5, 13):
            assert torch.equal(whole[less:], model(x_NTF[less:], mask_NT[less:]))
