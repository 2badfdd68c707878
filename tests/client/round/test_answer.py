"""An error becomes a refusal in one place, is logged once, and tells nothing of a record."""

import logging

import pytest

from consilium.client.round.answer import Answer, answer_or_refuse, silently
from consilium.client.round.told import TOLD
from consilium.shared.errors import (
    AuditError,
    BudgetError,
    ConsiliumError,
    DataError,
    EncodingError,
    MessageError,
    PolicyError,
    PrivacyError,
    SettingsError,
    UnableError,
)
from consilium.shared.secure_sum.messages import Action, Refusal


def test_what_was_computed_leaves_as_it_is() -> None:
    answer = answer_or_refuse("a", Action.KEYS, lambda: b"keys")
    assert (answer.body, answer.refusal) == (b"keys", None)


@pytest.mark.parametrize("error", [PolicyError("first\nsecond"), MessageError("first\nsecond")])
def test_what_is_wrong_with_a_message_or_not_allowed_is_told_by_a_code_and_its_sentence(
    caplog: pytest.LogCaptureFixture, error: ConsiliumError
) -> None:
    answer, (record,) = refused(error, caplog)
    assert answer.refusal == Refusal.from_bytes(answer.body)
    assert answer.refusal.code == type(error).__name__
    assert answer.refusal.sentence == TOLD[answer.refusal.code]
    assert answer.reason == "first\nsecond"
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "a refused update: first\nsecond"


def test_a_budget_that_is_used_up_is_told_without_its_figures(caplog) -> None:
    answer, (record,) = refused(BudgetError("epsilon 9 would exceed 8"), caplog)
    assert (answer.refusal.code, answer.refusal.sentence) == ("BudgetError", TOLD["BudgetError"])
    assert "epsilon 9 would exceed 8" in record.getMessage()


RECORDS = [
    DataError("17 patients are below minimum_patients 20"),
    PrivacyError("a gradient norm is not finite"),
    EncodingError("part update has a value that is not finite"),
    PolicyError("fewer patients than allowed"),
    SettingsError("/srv/records: cannot be read"),
    AuditError("disk full"),
    MemoryError("shape (4711, 48)"),
    RuntimeError("can't allocate memory: you tried to allocate 4711 bytes"),
    ValueError("patient 4711"),
    UnableError(),
]


@pytest.mark.parametrize("error", RECORDS, ids=lambda error: type(error).__name__)
def test_every_error_met_with_the_records_is_the_same_bytes_and_has_its_reason_in_the_log(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def work() -> bytes:
        with silently():
            raise error

    with caplog.at_level(logging.DEBUG):
        answer = answer_or_refuse("a", Action.UPDATE, work)
    assert answer.body == Refusal.of("a", UnableError()).to_bytes()
    (record,) = caplog.records
    if "4711" not in str(error):
        assert str(error) in record.getMessage()
    elif isinstance(error, ValueError):
        assert record.exc_info[1] is error
    else:  # an allocator's text tells the shape of an array
        assert "needs more memory" in record.getMessage()
        assert "4711" not in caplog.text


@pytest.mark.parametrize("error", RECORDS[4:], ids=lambda error: type(error).__name__)
def test_an_error_elsewhere_that_is_not_about_the_message_is_the_same_bytes_too(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    answer, _ = refused(error, caplog)
    assert answer.body == Refusal.of("a", UnableError()).to_bytes()


def refused(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> tuple[Answer, list[logging.LogRecord]]:
    def work() -> bytes:
        raise error

    with caplog.at_level(logging.DEBUG):
        return answer_or_refuse("a", Action.UPDATE, work), caplog.records


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_the_order_to_end_is_no_refusal(stop: type[BaseException]) -> None:
    def work() -> bytes:
        raise stop

    with pytest.raises(stop):
        answer_or_refuse("a", Action.UPDATE, work)
