"""A site writes its measurements to a file, seldom, and works on if it cannot."""

import logging

from consilium.client.ledger.store import Ledger
from consilium.client.round.answer import Answer
from consilium.client.service.measurements import FILE_NAME, Measurements
from consilium.shared.secure_sum.messages import Action, Refusal


class Prepared:
    """Answers with what it is given."""

    site = "north"

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)

    def handle(self, action: Action, body: bytes) -> Answer:
        return self._answers.pop(0)


REFUSAL = Refusal(site="north", code="PolicyError", sentence="no")
REFUSED = Answer(body=REFUSAL.to_bytes(), refusal=REFUSAL)
TAKEN = Answer(body=b"whatever was asked for")


def test_messages_are_counted_by_action_and_outcome_and_written_at_most_every_ten_seconds(tmp_path):
    now = [1000.0]
    ledger = Ledger(tmp_path / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
    prepared = Prepared(TAKEN, REFUSED, TAKEN, TAKEN)
    told_left: list[float] = []
    measurements = Measurements(
        prepared, tmp_path, ledger, tell=told_left.append, clock=lambda: now[0]
    )
    file = tmp_path / FILE_NAME
    first = file.read_text()
    assert 'consilium_site_epsilon_left{site="north"} 16' in first
    assert "last_message" not in first
    measurements.handle(Action.UPDATE, b"")
    assert file.read_text() == first
    measurements.handle(Action.UPDATE, b"")
    measurements.handle(Action.UPDATE, b"")
    now[0] += 10.5
    measurements.handle(Action.UNMASK, b"")
    told = file.read_text()
    line = 'consilium_site_messages_total{site="north",action="%s",outcome="%s"} %d'
    assert line % ("update", "ok", 2) in told
    assert line % ("update", "PolicyError", 1) in told
    assert line % ("unmask", "ok", 1) in told
    assert file.stat().st_mode & 0o077 == 0
    assert measurements.site == "north"
    assert told_left == [16.0, 16.0]


def test_a_file_that_cannot_be_written_stops_no_answer(tmp_path, caplog):
    ledger = Ledger(tmp_path / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
    (tmp_path / FILE_NAME).mkdir()
    with caplog.at_level(logging.WARNING):
        measurements = Measurements(Prepared(TAKEN), tmp_path, ledger)
    assert "could not be written" in caplog.text
    assert measurements.handle(Action.KEYS, b"") is TAKEN
