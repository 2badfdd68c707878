"""The server's step against the published algorithms, written out one coordinate at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.aggregation import apply, start
from shared.study import Aggregation

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
