"""A site that approved a study: what its session cannot do is refused, logged and recorded once."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from consilium.client.hospital.approvals import Approval, Approvals
from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.state import SiteState
from consilium.client.ledger.store import Ledger
from consilium.client.records.cohort import Cohort, read_cohort
from consilium.client.round.answer import Answer
from consilium.client.round.session import Session
from consilium.client.round.told import TOLD
from consilium.client.secure_sum.journal import RoundJournal
from consilium.client.service.measurements import FILE_NAME, Measurements
from consilium.client.service.study_sessions import StudySessions
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import Refused
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import read_lines
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.messages import StudyOffer, offer_statement
from consilium.shared.errors import AuditError, DataError, PolicyError, UnableError
from consilium.shared.rounds.contents import sum_parameters
from consilium.shared.secure_sum.messages import (
    Action,
    ChannelKey,
    ChannelRequest,
    KeysRequest,
    declared_sizes,
)
from consilium.shared.study.definition import parse_study
from consilium.simulations.cohorts.hospitals import synthetic_hospital
from tests.rosters import sized_roster

TEXT = """
name = "one"
title = "One"
rounds = 2
sites = ["a", "b", "c"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
"""
STUDY = parse_study(TEXT)
COORDINATOR = IdentityKey.from_seed(b"c" * 32)
KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in STUDY.sites}
ROSTER = sized_roster(dict(sorted(KEYS.items())), STUDY.digest)
UNABLE = str(UnableError())
NOT_APPROVED = "PolicyError.not-approved"


def channel_request() -> bytes:
    parameters = sum_parameters(STUDY, ROSTER, bytes(16), site="a")
    return ChannelRequest(
        study_digest=STUDY.digest,
        run_id=bytes(16),
        study_hash=parameters.study_hash,
        declared=declared_sizes(ROSTER),
    ).to_bytes()


@dataclass
class Site:
    """A site's sessions and measurements in a folder, as its process puts them together."""

    folder: Path
    failing: list[Exception] = field(default_factory=list)
    strangers: list[PolicyError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.approvals = Approvals(self.folder, COORDINATOR.public, ("a", KEYS["a"].public))
        audit = AuditLog(self.folder / "audit.jsonl", owner="a", key=KEYS["a"], version="0.1.0")
        ledger = Ledger(self.folder / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
        self.state = SiteState(
            identity=KEYS["a"],
            ledger=ledger,
            journal=RoundJournal(self.folder / "journal.sqlite"),
            split_key=bytes(32),
            personal=PersonalStore(self.folder / "personal"),
        )
        self.opened = 0
        sessions = StudySessions("a", self.approvals, self._check, self._open_session, audit)
        self.measurements = Measurements(sessions, self.folder, ledger)

    def approve(self) -> None:
        text = TEXT.encode()
        signature = COORDINATOR.sign(offer_statement(text, ROSTER))
        offer = StudyOffer(text=text, roster=dict(ROSTER.members), declared={}, signature=signature)
        self.approvals.approve(offer, ROSTER.declared[0])

    def ask(self, action: Action, body: bytes) -> Answer:
        return self.measurements.handle(action, body)

    def recorded(self) -> list[tuple[str, str, str]]:
        events = (AuditEntry.from_line(line).event for line in read_lines(self._log))
        return [(e.asked, e.code, e.sentence) for e in events if isinstance(e, Refused)]

    def counted(self) -> dict[tuple[str, str], int]:
        self.measurements.write()
        found: Counter[tuple[str, str]] = Counter()
        for line in (self.folder / FILE_NAME).read_text().splitlines():
            if line.startswith("consilium_site_messages_total{"):
                labels, count = line.removeprefix("consilium_site_messages_total{").split("} ")
                told = dict(label.split("=") for label in labels.split(","))
                found[told["action"].strip('"'), told["outcome"].strip('"')] += int(float(count))
        return dict(found)

    @property
    def _log(self) -> Path:
        return self.folder / "audit.jsonl"

    def _check(self, approval: Approval) -> None:
        assert approval.roster.members == ROSTER.members
        if self.strangers:
            raise self.strangers[0]

    def _open_session(self, approval: Approval) -> Session:
        self.opened += 1
        return Session(
            site="a",
            study=approval.study,
            roster=approval.roster,
            sizes=self.approvals.known_sizes(approval),
            read=self._read,
            policy=Policy(),
            state=self.state,
        )

    def _read(self) -> Cohort:
        if self.failing:
            raise self.failing[0]
        return read_cohort(synthetic_hospital(0, STUDY), STUDY, site="a", split_key=bytes(32))


def test_an_approved_study_is_answered_by_one_session_and_counted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.approve()
    for _ in range(2):
        answer = site.ask(Action.CHANNEL, channel_request())
        assert ChannelKey.from_bytes(answer.body).site == "a"
    assert site.opened == 1
    assert site.counted() == {("channel", "ok"): 2}
    assert site.recorded() == []


def test_a_defect_in_a_session_is_refused_without_detail_logged_once_and_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path, [ValueError("could not convert 'patient 4711' to float")])
    site.approve()
    with caplog.at_level(logging.DEBUG):
        answer = site.ask(Action.CHANNEL, channel_request())
    assert (answer.refusal.code, answer.refusal.sentence) == ("UnableError", UNABLE)
    assert b"4711" not in answer.body
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in told] == ["a failed on channel"]
    assert told[0].exc_info[1] is site.failing[0]
    assert site.counted() == {("channel", "UnableError"): 1}
    assert site.recorded() == [("channel", "UnableError", UNABLE)]


def test_a_sessions_refusal_is_logged_once_and_recorded_once_while_it_stays_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path, [DataError("the file is damaged")])
    site.approve()
    with caplog.at_level(logging.WARNING):
        site.ask(Action.CHANNEL, channel_request())
    assert caplog.messages == ["a refused channel: the file is damaged"]
    site.ask(Action.CHANNEL, channel_request())
    refused = ("channel", "UnableError", UNABLE)
    assert site.recorded() == [refused]
    site.failing.clear()
    assert site.ask(Action.CHANNEL, channel_request()).refusal is None
    site.failing.append(DataError("the file is damaged"))
    again = Site(tmp_path, site.failing)
    again.ask(Action.CHANNEL, channel_request())
    assert again.recorded() == [refused, refused]  # another process begins anew
    assert site.counted() == {("channel", "UnableError"): 2, ("channel", "ok"): 1}


def test_the_same_refusal_after_an_answer_is_recorded_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.approve()
    early = KeysRequest(study_hash=bytes(32), round=1, channel_keys=()).to_bytes()
    for action, body in (
        (Action.KEYS, early),
        (Action.KEYS, early),
        (Action.CHANNEL, channel_request()),
        (Action.KEYS, early),
    ):
        site.ask(action, body)
    code = "ProtocolError.no-open-run"
    assert site.recorded() == [("keys", code, TOLD[code])] * 2


def test_a_study_that_nobody_approved_or_that_was_withdrawn_opens_no_session(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    answer = site.ask(Action.CHANNEL, channel_request())
    assert "has not approved study" in answer.reason
    assert site.opened == 0
    site.approve()
    assert site.ask(Action.CHANNEL, channel_request()).refusal is None
    site.approvals.withdraw(STUDY.digest)
    assert site.ask(Action.CHANNEL, channel_request()).refusal.code == NOT_APPROVED
    assert [code for _, code, _ in site.recorded()] == [NOT_APPROVED, NOT_APPROVED]


def test_a_roster_that_is_trusted_no_longer_is_refused_from_the_next_message_on(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, strangers=[PolicyError("b is unknown")])
    site.approve()
    assert site.ask(Action.CHANNEL, channel_request()).reason == "b is unknown"
    assert site.opened == 0
    stranger = site.strangers.pop()
    assert site.ask(Action.CHANNEL, channel_request()).refusal is None
    site.strangers.append(stranger)
    run = sum_parameters(STUDY, ROSTER, bytes(16), site="a").study_hash
    asked = KeysRequest(study_hash=run, round=1, channel_keys=()).to_bytes()
    assert site.ask(Action.KEYS, asked).reason == "b is unknown"
    site.strangers.clear()
    assert site.ask(Action.CHANNEL, channel_request()).refusal is None
    assert site.opened == 1  # no round in progress is lost by a voucher that comes


@pytest.mark.parametrize("body", [b"", b"\xff" * 100, bytes(1000)])
def test_rubbish_is_refused_recorded_and_counted(tmp_path: Path, body: bytes) -> None:
    site = Site(tmp_path)
    assert site.ask(Action.UPDATE, body).refusal.code == "MessageError"
    assert site.counted() == {("update", "MessageError"): 1}
    assert len(site.recorded()) == 1


def test_a_refusal_that_cannot_be_recorded_is_still_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise AuditError("the disk is full")

    site = Site(tmp_path)
    monkeypatch.setattr(AuditLog, "append", fail)
    assert site.ask(Action.CHANNEL, channel_request()).refusal.code == NOT_APPROVED
    assert "a refusal could not be recorded: the disk is full" in caplog.text
