"""A site writes its measurements to a file, seldom, and works on if it cannot."""

import logging

from consilium.client.ledger.store import Ledger
from consilium.client.service.measurements import FILE_NAME, Meter
from consilium.shared.secure_sum.messages import Action, Refusal


class Replies:
    """Answers with what it is given."""

    site = "north"

    def __init__(self, *replies: bytes) -> None:
        self._replies = list(replies)

    def handle(self, action: Action, body: bytes) -> bytes:
        return self._replies.pop(0)


REFUSED = Refusal(site="north", code="PolicyError", sentence="no").to_bytes()
OTHER = Refusal(site="north", code="x", sentence="y").to_bytes().replace(b"refusal", b"updates")


def test_messages_are_counted_by_action_and_outcome_and_written_at_most_every_ten_seconds(tmp_path):
    now = [1000.0]
    ledger = Ledger(tmp_path / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
    replies = Replies(OTHER, REFUSED, bytes(2 << 20), OTHER)
    told_left: list[float] = []
    meter = Meter(replies, tmp_path, ledger, tell=told_left.append, clock=lambda: now[0])
    file = tmp_path / FILE_NAME
    first = file.read_text()
    assert 'consilium_site_epsilon_left{site="north"} 16' in first
    assert "last_message" not in first
    meter.handle(Action.UPDATE, b"")
    assert file.read_text() == first
    meter.handle(Action.UPDATE, b"")
    meter.handle(Action.UPDATE, b"")
    now[0] += 10.5
    meter.handle(Action.UNMASK, b"")
    told = file.read_text()
    line = 'consilium_site_messages_total{site="north",action="%s",outcome="%s"} %d'
    assert line % ("update", "ok", 2) in told
    assert line % ("update", "PolicyError", 1) in told
    assert line % ("unmask", "ok", 1) in told
    assert file.stat().st_mode & 0o077 == 0
    assert meter.site == "north"
    assert told_left == [16.0, 16.0]


def test_a_file_that_cannot_be_written_stops_no_answer(tmp_path, caplog):
    ledger = Ledger(tmp_path / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
    (tmp_path / FILE_NAME).mkdir()
    with caplog.at_level(logging.WARNING):
        meter = Meter(Replies(OTHER), tmp_path, ledger)
    assert "could not be written" in caplog.text
    assert meter.handle(Action.KEYS, b"") == OTHER
