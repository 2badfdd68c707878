"""The study's model: shapes, determinism, padding, losses, and its books."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.errors import MessageError
from consilium.shared.kernels import through_time
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import load_vector, parameter_count, to_vector
from tests.study_text import small_study

POOLINGS = ("last", "mean", "max", "attention")
TASKS = (("binary", 1), ("multiclass", 3), ("multilabel", 4), ("regression", 2))
FULL = {
    "projection": 4,
    "layer_norm": True,
    "layers": 2,
    "bidirectional": True,
    "hidden": 5,
    "skip": True,
}


def inputs(rows: int = 5, steps: int = 6, features: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, steps, features, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([steps, 1, 3, steps - 1, 2])[:rows]
    return x, torch.arange(steps)[None, :] < lengths[:, None]


def labels(kind: str, outputs: int, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    if kind == "multiclass":
        return torch.randint(outputs, shape, generator=generator)
    if kind == "regression":
        return torch.randn(*shape, outputs, generator=generator)
    return torch.randint(2, (*shape, outputs), generator=generator).float()


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    cell=st.sampled_from(["rnn", "lstm", "gru"]),
    pooling=st.sampled_from([*POOLINGS, "per step"]),
    layers=st.integers(1, 3),
    both=st.booleans(),
    around=st.booleans(),
    hidden=st.integers(1, 9),
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    patient=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    kernel=st.booleans(),
    clip=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
)
def test_clipped_sums_of_the_whole_model_equal_one_sample_at_a_time(
    cell, pooling, layers, both, around, hidden, lengths, patient, dtype, kernel, clip, seed
):
    """The reference runs one stay at a time, in double precision and plain PyTorch.

    Where single precision itself is worse than the tolerance (layer normalisation of two nearly
    equal numbers), a few times the error of plain PyTorch in single precision is allowed.
    """
    settings_of_model = {"cell": cell, "layers": layers, "bidirectional": both, "hidden": hidden}
    if around:
        settings_of_model |= {"projection": 4, "layer_norm": True}
    if pooling != "per step":
        settings_of_model["pooling"] = pooling
    study = small_study(model=settings_of_model, task={"per_step": pooling == "per step"})
    model = build_model(study, 6, seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    rows, steps = len(lengths), max(1, *lengths, 1)
    x = torch.randn(rows, steps, 6, generator=generator, dtype=dtype)
    y = torch.randint(2, (rows, steps) if pooling == "per step" else (rows,), generator=generator)
    mask = torch.arange(steps)[None, :] < torch.tensor(lengths)[:, None]
    patient_N = torch.tensor(patient[:rows])
    serves = through_time.serves

    def one_at_a_time(dtype):
        plain = build_model(study, 6, seed).to(dtype)
        sums = torch.zeros(4, parameter_count(model), dtype=torch.float64)
        with mock.patch.object(through_time, "serves", return_value=False):
            for n in range(rows):
                row = slice(n, n + 1)
                logits = plain(x[row].to(dtype), mask[row])
                loss = plain.loss_per_stay(logits, y[row].to(dtype), mask[row]).sum()
                parts = torch.autograd.grad(loss, list(plain.parameters()))
                sums[patient_N[n]] += torch.cat([part.flatten().double() for part in parts])
        return sums

    expected = one_at_a_time(torch.float64)
    rounding = (one_at_a_time(dtype) - expected).norm(dim=1)
    books = Bookkeeping()
    with mock.patch.object(through_time, "serves", serves if kernel else lambda _: False):
        model.loss_per_stay(model(x, mask, books=books), y.to(dtype), mask).sum().backward()
    sums, norms = books.clipped_sums(model.parameters(), patient_N, 4, clip)
    # Normalising nearly equal values amplifies rounding: PyTorch's own float32 was 4e-5 off, too.
    tolerance = 1e-12 if dtype is torch.float64 else 1e-4 if around else 1e-5
    exact_norms = expected.norm(dim=1)
    allowed = tolerance * exact_norms + 4 * rounding
    assert torch.all((norms.double() - exact_norms).abs() <= allowed + 1e-9)
    clipped = expected * (clip / exact_norms.clamp(min=clip)).unsqueeze(1)
    # Relative to what is added up: sums of opposite gradients may cancel, and within one stay
    # terms of order one may, to 1e-14.
    scale = clipped.norm(dim=1).sum().clamp(min=1e-6)
    flat = torch.cat([part.flatten() for part in sums]).double()
    shrunk = rounding * (clip / exact_norms.clamp(min=clip))
    assert (flat - clipped.sum(0)).norm() <= tolerance * scale + 8 * shrunk.sum() + 1e-14


@pytest.mark.parametrize(("kind", "outputs"), TASKS)
@pytest.mark.parametrize("per_step", [False, True])
def test_every_task_has_logits_scores_and_a_loss_per_stay(kind, outputs, per_step):
    task = {"kind": kind, "outputs": outputs, "per_step": per_step}
    model = build_model(small_study(task=task), 6, seed=1)
    x, mask = inputs()
    logits = model(x, mask)
    shape = (5, 6) if per_step else (5,)
    assert logits.shape == (*shape, outputs)
    scores = model.scores(logits)
    if kind == "multiclass":
        torch.testing.assert_close(scores.sum(-1), torch.ones(shape))
    elif kind != "regression":
        assert torch.all((scores > 0) & (scores < 1))
    y = labels(kind, outputs, shape)
    loss = model.loss_per_stay(logits, y, mask)
    assert loss.shape == (5,)
    assert torch.all(loss > 0)
    if per_step:  # what is predicted at padding does not matter
        spoiled = torch.where(mask[:, :, None], logits, 50.0)
        assert torch.equal(model.loss_per_stay(spoiled, y, mask), loss)


def test_labels_of_one_output_may_be_a_plain_vector():
    model = build_model(small_study(), 6, seed=1)
    x, mask = inputs()
    logits, y = model(x, mask), torch.tensor([0.0, 1, 1, 0, 1])
    plain, column = (model.loss_per_stay(logits, v, mask) for v in (y, y[:, None]))
    assert torch.equal(plain, column)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_does_not_matter(pooling):
    model = build_model(small_study(model={"pooling": pooling, **FULL}), 6, seed=1)
    x, mask = inputs()
    spoiled = torch.where(mask[:, :, None], x, torch.nan)
    longer = torch.cat([spoiled, torch.full((5, 2, 6), torch.nan)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(5, 2, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(model(longer, longer_mask), model(x, mask))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_stay_without_any_valid_step_has_finite_logits_and_gradients(pooling):
    model = build_model(small_study(model={"pooling": pooling, **FULL}), 6, seed=1)
    x, mask = inputs()
    logits = model(x, torch.zeros_like(mask))
    assert torch.isfinite(logits).all()
    assert all(
        torch.isfinite(part).all()
        for part in torch.autograd.grad(logits.sum(), model.parameters(), materialize_grads=True)
    )


@pytest.mark.parametrize("per_step", [False, True])
def test_books_with_a_skip_equal_ordinary_gradients(per_step):
    study = small_study(model={"skip": True}, task={"per_step": per_step})
    model, (x, mask) = build_model(study, 6, seed=1), inputs()
    y = labels("binary", 1, (5, 6) if per_step else (5,))
    parameters = list(model.parameters())
    expected = torch.autograd.grad(model.loss_per_stay(model(x, mask), y, mask).sum(), parameters)
    books = Bookkeeping()
    model.loss_per_stay(model(x, mask, books=books), y, mask).sum().backward()
    sums, _ = books.clipped_sums(parameters, torch.arange(5), 5, 1e6)
    for one, other in zip(sums, expected, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=1e-4, atol=1e-6)


def test_the_skip_starts_at_nothing_and_reads_the_last_valid_step_at_one_length():
    x, mask = inputs()
    plain, model = (build_model(small_study(model={"skip": s}), 6, seed=1) for s in (False, True))
    before = plain(x, mask)
    torch.testing.assert_close(model(x, mask), before)
    with torch.no_grad():
        model.skip.weight.fill_(2.0)
    last = torch.stack([row[valid][-1] for row, valid in zip(x, mask, strict=True)])
    scaled = last * (7**0.5 / last.norm(dim=1, keepdim=True).clamp(min=1))
    torch.testing.assert_close(model(x, mask), before + 2 * scaled.sum(1, keepdim=True))
    assert torch.all(scaled.norm(dim=1) <= 7**0.5 + 1e-6)


def test_the_skip_of_a_per_step_task_reads_every_valid_step():
    study = small_study(model={"skip": True}, task={"per_step": True})
    model, (x, mask) = build_model(study, 6, seed=1), inputs()
    before = model(x, mask)
    with torch.no_grad():
        model.skip.weight.fill_(2.0)
    scaled = x * (7**0.5 / x.norm(dim=2, keepdim=True).clamp(min=1))
    moved = (model(x, mask) - before).squeeze(2)
    torch.testing.assert_close(moved, 2 * scaled.sum(2) * mask)


@pytest.mark.parametrize("per_step", [False, True])
def test_the_skip_reads_which_series_were_never_measured_so_far(per_step):
    study = small_study(
        model={"skip": True},
        task={"per_step": per_step},
        variables={
            "rr": {"unit": "1/min", "low": 0.0, "high": 90.0, "center": 20.0, "spread": 6.0}
        },
    )
    model, mask = build_model(study, 12, seed=1), torch.tensor([[True, True, True, False]])
    x = torch.zeros(1, 4, 12)  # counts of measurements stand in columns 10 and 11
    x[0, :, 10] = torch.tensor([0, 1, 0.9, 0.8])
    before = model(x, mask)
    with torch.no_grad():
        model.skip.weight[0, 12:] = torch.tensor([1.0, 10.0])
    moved = (model(x, mask) - before).flatten().tolist()
    lengths = torch.tensor([2, 2, 1 + 0.9**2]).sqrt()  # the step's count and ones for never
    expected = (14**0.5 * torch.tensor([11, 10, 10]) / lengths).tolist()
    assert moved == pytest.approx([*expected, 0] if per_step else expected[-1:], rel=1e-5)


def test_a_sequence_without_hours_has_no_such_inputs():
    study = small_study(model={"skip": True}, data={"clock": "position"})
    assert build_model(study, 2, seed=1).skip.weight.shape == (1, 2)


def test_the_skip_never_reads_the_number_of_a_code():
    study = small_study(
        model={"skip": True},
        tokens={"names": ["drug"], "vocabulary": ["a", "b", "c"], "width": 2},
    )
    model, (x, mask) = build_model(study, 7, seed=1), inputs(features=7)
    x[..., 6] = torch.tensor([0, 1, 2, 3, 1, 2])
    before = model(x, mask)
    with torch.no_grad():
        model.skip.weight.fill_(2.0)
    last = torch.stack([row[valid][-1, :6] for row, valid in zip(x, mask, strict=True)])
    scaled = last * (7**0.5 / last.norm(dim=1, keepdim=True).clamp(min=1))
    torch.testing.assert_close(model(x, mask), before + 2 * scaled.sum(1, keepdim=True))


def test_a_model_starts_near_the_prevalence_its_study_states():
    model = build_model(small_study(task={"prevalence": 0.1}, model={"skip": True}), 6, seed=1)
    blank = torch.zeros(1, 2, 6), torch.zeros(1, 2, dtype=torch.bool)
    assert model.scores(model(*blank)).item() == pytest.approx(0.1)


def test_attention_weights_are_a_distribution_over_valid_steps():
    model = build_model(small_study(model={"pooling": "attention"}), 6, seed=1)
    x, mask = inputs()
    weights = model.attention_weights(x, mask)
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    assert torch.all(weights[~mask] == 0)
    assert torch.all(weights[mask] > 0)


def test_a_model_without_attention_has_no_attention_weights():
    with pytest.raises(ValueError, match="'last'"):
        build_model(small_study(), 6, seed=1).attention_weights(*inputs())


def test_the_seed_alone_decides_the_weights_and_torchs_global_state_is_left_alone():
    study = small_study(model=FULL)
    before = torch.random.get_rng_state()
    one, same, other = (to_vector(build_model(study, 6, seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_dropout_acts_in_training_only():
    model = build_model(small_study(model={"dropout": 0.5}), 6, seed=1)
    x, mask = inputs()
    draw = [model(x, mask, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    model.eval()
    assert torch.equal(model(x, mask), model(x, mask))


def test_weights_go_to_a_vector_and_back_exactly():
    study = small_study(model=FULL)
    vector = to_vector(build_model(study, 6, seed=5))
    assert vector.dtype == np.float32
    model = build_model(study, 6, seed=6)
    load_vector(model, vector)
    assert np.array_equal(to_vector(model), vector)
    assert vector.size == parameter_count(model)
    names = list(model.state_dict())
    first = model.state_dict()[names[0]].flatten().numpy()
    assert np.array_equal(vector[: first.size], first)


def test_a_vector_of_another_length_or_with_infinities_is_refused():
    model = build_model(small_study(), 6, seed=5)
    vector = to_vector(model)
    with pytest.raises(MessageError, match="does not fit"):
        load_vector(model, vector[:-1])
    vector[3] = np.inf
    with pytest.raises(MessageError, match="not finite"):
        load_vector(model, vector)
