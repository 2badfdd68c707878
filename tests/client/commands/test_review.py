"""What a hospital is told that stays with it, and what of that is sent along."""

import pytest

from consilium.client.commands.review import review_lines
from tests.study_text import small_study


def told(**tables: dict[str, object]) -> str:
    return "\n".join(review_lines(small_study(**tables)))


def test_a_study_that_shares_everything_says_nothing_of_own_parts() -> None:
    assert "Yours alone" not in told()
    assert "control variate" not in told()


def test_parts_that_stay_are_named_and_evaluation_judges_the_model_with_them() -> None:
    said = told(personalisation={"parts": ["head", "inputs"]})
    assert "Yours alone: the model's head (its maps to the outputs) and the mean" in said
    assert "evaluation judges the model as you use it" in said


@pytest.mark.parametrize("mode", ["site", "none"])
def test_a_second_model_is_called_what_it_is_where_privacy_does_not_cover_it(mode: str) -> None:
    said = told(personalisation={"ditto": {"pull": 0.1}}, privacy={"mode": mode})
    assert ("trained without noise, so it may remember your patients" in said) == (mode == "site")
    assert ("Evaluation judges the global model" in said) == (mode == "site")


def test_control_variates_are_said_to_be_sent() -> None:
    said = told(training={"control_variates": True})
    assert "Your mean gradient (a control variate) is in the same sum" in said
