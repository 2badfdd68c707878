"""The rule of one standard error: the study's own settings stay unless others are surely better."""

import pytest

from consilium.simulations.experiments.choosing import Score, choose, gain


def score(*by_fold: float, parameters: int = 10, rounds: int = 5) -> Score:
    return Score(by_fold=by_fold, parameters=parameters, rounds=rounds)


def test_the_studys_own_settings_stay_where_the_best_is_better_by_less_than_its_error() -> None:
    own, best = score(0.80, 0.82, 0.84), score(0.81, 0.83, 0.85)
    assert best.standard_error == pytest.approx(0.02 / 3**0.5)
    assert choose([own, best], higher_is_better=True) == 0
    assert choose([own, score(0.84, 0.85, 0.86)], higher_is_better=True) == 1


def test_of_settings_as_good_as_the_best_the_smallest_is_taken() -> None:
    own = score(0.5, 0.5, 0.5)
    best, small = score(0.80, 0.84, 0.82), score(0.81, 0.82, 0.82, parameters=4)
    far = score(0.7, 0.7, 0.7, parameters=1)
    assert choose([own, best, small, far], higher_is_better=True) == 2
    quick = score(0.81, 0.82, 0.82, parameters=4, rounds=2)
    assert choose([own, best, small, far, quick], higher_is_better=True) == 4


def test_where_lower_is_better_everything_turns_round() -> None:
    own, best = score(5.0, 5.1, 5.2), score(3.0, 3.1, 3.2)
    assert choose([own, best], higher_is_better=False) == 1
    assert choose([own, best], higher_is_better=True) == 0
    mean, error = gain(best, own, higher_is_better=False)
    assert mean == pytest.approx(2.0)
    assert error == pytest.approx(0.0, abs=1e-12)
