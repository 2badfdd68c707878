"""The server's step against the published algorithms, written out one coordinate at a time."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.server.study.aggregation import SPAN, apply, start
from consilium.shared.study.definition import Study
from consilium.shared.study.rounds import Aggregation
from tests.study_text import small_study

UPDATES = [[0.5, -1.0], [0.25, 2.0], [-1.0, 0.0]]


def run(how: Aggregation) -> list[float]:
    state = start(np.array([1.0, 2.0], dtype=np.float32))
    for update in UPDATES:
        state = apply(state, np.array(update), how)
    return state.weights_D.tolist()


def reference(how: Aggregation) -> list[float]:
    result = []
    for coordinate in range(2):
        w, m, v = [1.0, 2.0][coordinate], 0.0, 0.0
        for step, update in enumerate(UPDATES, start=1):
            g = update[coordinate]
            if how.strategy == "fedavg":
                move = g
            elif how.strategy == "fedavgm":
                m = how.momentum * m + g
                move = m
            else:
                m = how.momentum * m + (1 - how.momentum) * g
                if how.strategy == "fedadam":
                    v = how.second_moment * v + (1 - how.second_moment) * g * g
                elif how.strategy == "fedadagrad":
                    v = v + g * g
                else:
                    sign = (v > g * g) - (v < g * g)
                    v = v - (1 - how.second_moment) * g * g * sign
                m_hat = m / (1 - how.momentum**step)
                decays = how.strategy != "fedadagrad"
                v_hat = v / (1 - how.second_moment**step) if decays else v
                move = m_hat / (v_hat**0.5 + how.adaptivity)
            w = w + how.server_learning_rate * move
        result.append(w)
    return result


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"])
def test_each_strategy_equals_its_algorithm(strategy: str) -> None:
    how = Aggregation(strategy=strategy, server_learning_rate=0.3, momentum=0.8)
    assert run(how) == pytest.approx(reference(how), rel=1e-6)


def test_without_averaging_the_model_is_the_current_weights() -> None:
    state = apply(start(np.zeros(2, np.float32)), np.array([1.0, 2.0]), Aggregation())
    assert np.array_equal(state.model_weights, state.weights_D)


@given(decay=st.floats(0.0, 0.99))
def test_the_moving_average_lies_between_the_weights_it_averages(decay: float) -> None:
    how = Aggregation(average_decay=decay)
    state = start(np.zeros(1, np.float32))
    for _ in range(5):
        state = apply(state, np.array([1.0]), how)
    assert 0 <= state.model_weights[0] <= state.weights_D[0] == 5.0


def test_the_state_before_is_not_changed() -> None:
    before = start(np.zeros(2, np.float32))
    apply(before, np.ones(2), Aggregation(strategy="fedadam"))
    assert not before.weights_D.any()
    assert not before.momentum_D.any()
    assert before.steps == 0


def whole(
    weights_D: np.ndarray, updates: list[np.ndarray], how: Aggregation
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and average by whole vectors, every one of them kept whatever the strategy."""
    average_D, m, v = (
        weights_D.astype(np.float64),
        np.zeros(weights_D.size),
        np.zeros(weights_D.size),
    )
    for step, update in enumerate(updates, start=1):
        move = update
        if how.strategy == "fedavgm":
            move = m = how.momentum * m + update
        elif how.strategy != "fedavg":
            m = how.momentum * m + (1 - how.momentum) * update
            square = update**2
            if how.strategy == "fedyogi":
                v = v - (1 - how.second_moment) * square * np.sign(v - square)
            else:
                v = how.second_moment * v + (1 - how.second_moment) * square
            m_hat, v_hat = m / (1 - how.momentum**step), v / (1 - how.second_moment**step)
            move = m_hat / (np.sqrt(v_hat) + how.adaptivity)
        weights_D = (weights_D + how.server_learning_rate * move).astype(np.float32)
        warm = min(how.average_decay, step / (step + 10))
        average_D = warm * average_D + (1 - warm) * weights_D
    return weights_D, average_D.astype(np.float32)


@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam", "fedyogi"])
def test_spans_give_the_same_bits_as_whole_vectors(strategy: str, decay: float) -> None:
    how = Aggregation(strategy=strategy, server_learning_rate=0.3, average_decay=decay)
    rng = np.random.default_rng(3)
    size = 2 * SPAN + 17
    weights_D = rng.normal(size=size).astype(np.float32)
    updates = [rng.normal(size=size) for _ in range(3)]
    state = start(weights_D)
    for update in updates:
        into_D = np.empty(size, np.float32)
        state = apply(state, update, how, into_D=into_D)
        assert state.weights_D is into_D
    expected_D, average_D = whole(weights_D, updates, how)
    assert state.weights_D.tobytes() == expected_D.tobytes()
    assert state.model_weights.tobytes() == average_D.tobytes()


def test_plain_averaging_keeps_the_weights_alone() -> None:
    state = apply(start(np.zeros(5, np.float32)), np.ones(5), Aggregation())
    assert state.average_D.size == state.momentum_D.size == state.second_moment_D.size == 0


def test_a_step_of_plain_averaging_takes_a_few_spans_whatever_the_size() -> None:
    state, mean_D = start(np.zeros(1 << 22, np.float32)), np.ones(1 << 22)
    into_D = np.empty(1 << 22, np.float32)
    tracemalloc.start()
    try:
        apply(state, mean_D, Aggregation(), into_D=into_D)
        assert tracemalloc.get_traced_memory()[1] < 8 * 8 * SPAN
    finally:
        tracemalloc.stop()
    assert (into_D == 1).all()


def test_the_average_reaches_its_decay_in_the_last_round_and_earlier_where_it_did_before() -> None:
    """Over 250 rounds .99 was .9615 (schema 1), whose results stay as they are."""

    def last_weight(study: Study) -> float:
        state = start(np.zeros(1, np.float32))
        for number in range(study.rounds):
            step = np.full(1, float(number + 1 == study.rounds))
            state = apply(state, step, study.aggregation, ramp=study.average_ramp)
        return float(state.average_D[0])

    for rounds, decay, schema, expected in (
        (250, 0.99, 2, 0.01),
        (250, 0.99, 1, 10 / 260),
        (20, 0.9, 2, 0.1),
        (120, 0.9, 2, 0.1),
        (120, 0.9, 1, 0.1),
    ):
        content = small_study(rounds=rounds, aggregation={"average_decay": decay})
        study = Study.model_validate(content.model_dump(by_alias=True) | {"schema": schema})
        assert last_weight(study) == pytest.approx(expected)
        assert study.average_ramp <= 10.0
