"""GRU-D: the paper's equations, and clipped gradients exactly as one patient at a time."""

import math
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from consilium.shared.errors import StudyError
from consilium.shared.kernels import through_time
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.gru_d import GRUD, LONGEST
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import parameter_count
from consilium.shared.study.definition import parse_study
from consilium.shared.study.input_names import feature_names
from tests.study_text import TEXT, small_study

VARIABLE = {"unit": "1/min", "low": 0.0, "high": 300.0, "center": 80.0, "spread": 20.0}


def channels(rows: int, steps: int, series: int, seed: int, width: int) -> torch.Tensor:
    """Values, measured and recency channels as features have them, then others, in double."""
    generator = torch.Generator().manual_seed(seed)
    measured = torch.rand(rows, steps, series, generator=generator) < 0.4
    step_T = torch.arange(steps)[None, :, None]
    last = torch.where(measured, step_T, -1).cummax(1).values
    drawn = torch.randn(rows, steps, series, generator=generator)
    value = torch.where(last >= 0, drawn.gather(1, last.clamp(min=0)), 0.0)
    recency = torch.where(last >= 0, torch.exp(-(step_T - last) / 12.0), 0.0)
    others = torch.randn(rows, steps, width - 3 * series, generator=generator)
    return torch.cat([value, measured.float(), recency, others], dim=2).double()


def by_the_paper(layer: GRUD, x_NTI: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
    """Equations 8 to 13, one step and one row at a time, for ordinary gradients."""
    outputs, size, series = [], layer.hidden, layer.series
    for x_TI, mask_T in zip(x_NTI, mask_NT, strict=True):
        state, states = torch.zeros(size, dtype=x_NTI.dtype), []
        for x_D, counts in zip(x_TI, mask_T, strict=True):
            if counts:
                value, measured, recency = x_D[: 3 * series].chunk(3)
                age = torch.where(recency > 0, -torch.log(recency), LONGEST).clamp(max=LONGEST)
                fade = torch.exp(
                    -torch.relu(layer.input_decay.weight * age + layer.input_decay.bias)
                )
                shown = measured * value + (1 - measured) * fade * value
                decay = layer.hidden_decay
                before = state * torch.exp(-torch.relu(decay.weight @ age + decay.bias))
                seen = torch.cat([shown, x_D[series:]])
                ours = functional.linear(seen, layer.weight_ih_l0, layer.bias_ih_l0).chunk(3)
                own = functional.linear(before, layer.weight_hh_l0, layer.bias_hh_l0).chunk(3)
                reset, update = torch.sigmoid(ours[0] + own[0]), torch.sigmoid(ours[1] + own[1])
                candidate = torch.tanh(ours[2] + reset * own[2])
                state = (1 - update) * candidate + update * before
            states.append(state)
        outputs.append(torch.stack(states))
    return torch.stack(outputs)


@settings(max_examples=30, deadline=None)
@given(
    series=st.integers(1, 4),
    hidden=st.integers(1, 6),
    more=st.integers(0, 3),
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any),
    seed=st.integers(0, 1000),
)
def test_states_and_gradients_are_those_of_the_papers_equations(
    series: int, hidden: int, more: int, lengths: list[int], seed: int
) -> None:
    steps, width = max(1, *lengths), 3 * series + more
    generator = torch.Generator().manual_seed(seed)
    layer = GRUD(width, hidden, series=series, generator=generator).double()
    with torch.no_grad():
        for parameter in layer.parameters():  # decays of both signs: some are cut off at 0
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    told, others = channels(len(lengths), steps, series, seed, width).tensor_split([3 * series], 2)
    others.requires_grad_()  # what stands behind the channels may be learned: vectors of codes
    x = torch.cat([told, others], dim=2)
    mask = torch.arange(steps)[None, :] < torch.tensor(lengths)[:, None]
    weight = torch.randn(len(lengths), steps, hidden, generator=generator, dtype=torch.float64)
    wanted = [*layer.parameters(), *([others] if more else [])]
    expected = by_the_paper(layer, x, mask)
    found = layer(x, mask)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad((found * weight).sum(), wanted),
        torch.autograd.grad((expected * weight).sum(), wanted, allow_unused=True),
        strict=True,
    ):
        theirs = torch.zeros_like(mine) if theirs is None else theirs
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    variables=st.integers(1, 3),
    hidden=st.integers(1, 6),
    skip=st.booleans(),
    pooling=st.sampled_from(["last", "mean", "attention"]),
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    patient=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    clip=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
)
def test_clipped_sums_equal_one_sample_at_a_time(
    variables: int,
    hidden: int,
    skip: bool,
    pooling: str,
    lengths: list[int],
    patient: list[int],
    clip: float,
    seed: int,
) -> None:
    """The reference runs one stay at a time without books; the kernel may serve the other cells."""
    study = small_study(
        model={"cell": "gru-d", "hidden": hidden, "skip": skip, "pooling": pooling},
        variables={f"v{number}": VARIABLE for number in range(variables - 1)},
    )
    width = len(feature_names(study))
    model = build_model(study, width, seed).double()
    steps, rows = max(1, *lengths), len(lengths)
    x = channels(rows, steps, variables, seed, width)
    mask = torch.arange(steps)[None, :] < torch.tensor(lengths)[:, None]
    y = torch.randint(2, (rows,), generator=torch.Generator().manual_seed(seed)).double()
    expected = torch.zeros(4, parameter_count(model), dtype=torch.float64)
    for n in range(rows):
        row = slice(n, n + 1)
        loss = model.loss_per_stay(model(x[row], mask[row]), y[row], mask[row]).sum()
        parts = torch.autograd.grad(loss, list(model.parameters()))
        expected[patient[n]] += torch.cat([part.flatten() for part in parts])
    books = Bookkeeping()
    model.loss_per_stay(model(x, mask, books=books), y, mask).sum().backward()
    sums, norms = books.clipped_sums(model.parameters(), torch.tensor(patient[:rows]), 4, clip)
    exact = expected.norm(dim=1)
    torch.testing.assert_close(norms, exact, rtol=1e-9, atol=1e-12)
    clipped = (expected * (clip / exact.clamp(min=clip)).unsqueeze(1)).sum(0)
    flat = torch.cat([part.flatten() for part in sums])
    torch.testing.assert_close(flat, clipped, rtol=1e-9, atol=1e-12)


def test_the_kernel_is_not_asked_for_what_it_cannot_do() -> None:
    layer = GRUD(3, 4, series=1, generator=torch.Generator().manual_seed(1))
    with mock.patch.object(through_time, "serves", side_effect=AssertionError):
        assert layer(channels(2, 5, 1, 1, 3).float()).shape == (2, 5, 4)


def test_a_value_fades_towards_the_mean_and_a_fresh_one_does_not() -> None:
    layer = GRUD(3, 2, series=1, generator=torch.Generator().manual_seed(1))
    age = torch.tensor([0.0, 1.0, 2.0]).reshape(1, 3, 1)
    left = layer.input_decay(age).flatten().tolist()
    assert left == pytest.approx([1.0, math.exp(-0.1), math.exp(-0.2)])


@pytest.mark.parametrize(
    "more",
    [
        "[model]\ncell = 'gru-d'\nlayers = 2\n",
        "[model]\ncell = 'gru-d'\nbidirectional = true\n",
        "[model]\ncell = 'gru-d'\nprojection = 8\n",
    ],
)
def test_what_decay_does_not_go_with_is_refused(more: str) -> None:
    with pytest.raises(StudyError, match='or cell = "gru"'):
        parse_study(TEXT + more)


def test_a_study_without_hours_or_series_cannot_decay() -> None:
    static = TEXT + "role = 'static'\n[model]\ncell = 'gru-d'\n"
    places = TEXT.replace('label = "y"', 'label = "y"\nclock = "position"')
    for text in (static, places + "[model]\ncell = 'gru-d'\n"):
        with pytest.raises(StudyError, match="no hours or no variable of role"):
            parse_study(text)
