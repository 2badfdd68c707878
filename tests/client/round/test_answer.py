"""An error becomes a refusal in one place, is logged once, and a defect tells no detail."""

import logging

import pytest

from consilium.client.round.answer import answer_or_refuse
from consilium.shared.errors import BudgetError
from consilium.shared.secure_sum.messages import Action, Refusal


def test_what_was_computed_leaves_as_it_is() -> None:
    answer = answer_or_refuse("a", Action.KEYS, lambda: b"keys")
    assert (answer.body, answer.refusal) == (b"keys", None)


def test_an_error_of_ours_is_the_refusal_that_leaves_and_one_warning(caplog) -> None:
    def work() -> bytes:
        raise BudgetError("epsilon 9 would exceed 8\nlower it")

    with caplog.at_level(logging.DEBUG):
        answer = answer_or_refuse("a", Action.UPDATE, work)
    assert answer.refusal == Refusal.from_bytes(answer.body)
    assert answer.refusal.code == "BudgetError"
    assert answer.refusal.sentence == "epsilon 9 would exceed 8 lower it"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "a refused update: epsilon 9 would exceed 8\nlower it"


def test_a_defect_is_refused_without_detail_and_logged_once(caplog) -> None:
    def work() -> bytes:
        raise ValueError("patient 4711")

    with caplog.at_level(logging.DEBUG):
        answer = answer_or_refuse("a", Action.UPDATE, work)
    assert answer.refusal == Refusal.from_bytes(answer.body)
    assert answer.refusal.code == "Defect"
    assert answer.refusal.sentence == "the site met an unforeseen error; see the site's log"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "a failed on update"
    assert record.exc_info[0] is ValueError


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_the_order_to_end_is_no_refusal(stop: type[BaseException]) -> None:
    def work() -> bytes:
        raise stop

    with pytest.raises(stop):
        answer_or_refuse("a", Action.UPDATE, work)
