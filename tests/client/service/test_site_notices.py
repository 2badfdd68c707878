"""What a hospital's people are told of, from its folder and what a coordinator answers."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from consilium.client.hospital.decision_notes import DecisionNote, DecisionNotes
from consilium.client.hospital.folder import Enrolment, SiteFolder
from consilium.client.service.notices import AnswersByLine, SiteLookout, sender_of
from consilium.client.service.pinned_connection import approvals_of
from consilium.client.service.status import site_status
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.messages import (
    PROGRESS_PATH,
    STUDIES_PATH,
    StudyProgress,
    StudyRequest,
)
from consilium.shared.errors import AuthenticationError, ProtocolError
from consilium.shared.notices.outbox import Outbox
from tests.client.web.made_up import COORDINATOR, OTHERS, Coordinator
from tests.deployment.federation import tiny_study
from tests.notice_servers import certificates
from tests.shared.notices.made_up import mail, settings

MARK = "Kennmarke4711"
TEXT = tiny_study().replace('"Tiny"', f'"{MARK}"')
DAY_S = 86_400.0


class Answers(Coordinator):
    """The made-up coordinator, which also says how far studies are."""

    def __init__(self):
        super().__init__()
        self.state, self.voids, self.old, self.accepts = "running", (), False, True
        self.expired_at = ""  # the path at which its certificate is found to have expired
        self.ends = datetime.now(UTC) + timedelta(days=300)
        self.clock_ahead_s = 0.0
        self.asked = 0

    def certificate_ends(self):
        return self.ends

    def post(self, path, body):
        self.asked += 1
        if not self.accepts:
            raise AuthenticationError("the node key is not enrolled", case="not-accepted")
        if path == self.expired_at:
            raise AuthenticationError("certificate has expired", case="certificate")
        if path == PROGRESS_PATH and self.reachable:
            StudyRequest.from_bytes(body)
            if self.old:
                raise ProtocolError("refused: there is nothing here")
            voids = b"".join(number.to_bytes(4, "big") for number in self.voids)
            return StudyProgress(state=self.state, voids=voids).to_bytes()
        return super().post(path, body)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("tls") / "files").authority_der()


@pytest.fixture
def folder(tmp_path, authority):
    made = SiteFolder.make(tmp_path / "north", site="north")
    pinned = Enrolment(
        site="north", node_id=bytes(8), host="c.example.org", port=9092,
        coordinator=COORDINATOR.public, authority=authority,
    )  # fmt: skip
    made.pin(pinned)
    return made


class Watching:
    def __init__(self, folder, **more):
        self.folder, self.free, self.now = folder, 8 << 30, datetime.now(UTC).timestamp()
        self.answers = Answers()
        self.settings = settings(mail=mail(25), **more)
        self.outbox = Outbox(folder.path / "notices.sqlite", sender_of(folder))
        self.begin()

    def begin(self):
        line = AnswersByLine(self.folder, self.answers)
        self.lookout = SiteLookout(self.folder, self.settings, line, free=lambda _: self.free)

    def offer(self, text=TEXT):
        keys = OTHERS | {"north": self.folder.identity()}
        return self.answers.offer(text, keys)

    def approve(self, study):
        declared = Declaration.signed(
            9, study_digest=study.digest, site="north", sign=self.folder.identity().sign
        )
        approvals_of(self.folder).approve(self.answers.offers[study.digest], declared)

    def look(self):
        found = self.lookout.look(self.outbox.marks(), self.now)
        self.outbox.note(found.events, found.marks)
        self.outbox.form(["a"], quiet_s=0, now=self.now)
        told = []
        while (one := self.outbox.begin(["a"], first_pause_s=1, now=self.now)) is not None:
            self.outbox.delivered(one, said="", now=self.now)
            assert MARK not in json.dumps(vars(one.notice))
            assert str(self.folder.path) not in json.dumps(vars(one.notice))
            told.append(one.notice.subject.removeprefix("Consilium, site north: "))
        return told


@pytest.fixture
def watching(folder):
    return Watching(folder)


OFFERED, WAITS = "study tiny is offered to this hospital", "study tiny waits for an approval"


def test_an_offer_is_told_once_and_then_daily_until_somebody_decides(watching):
    study = watching.offer()
    told = []
    for _ in range(2 * 4 + 1):
        told += watching.look()
        watching.now += DAY_S / 4
        watching.begin()
    assert told == [OFFERED, WAITS, WAITS]
    note = DecisionNote(state="refused", by=("a",), at="2026-11-25T10:00:00+00:00", reason=MARK)
    DecisionNotes(watching.folder.path / "approvals").write(study.digest, note)
    watching.now += 2 * DAY_S
    assert watching.look() == []


def test_a_study_that_one_person_approved_waits_for_another(watching):
    study = watching.offer()
    watching.look()
    at = datetime.fromtimestamp(watching.now, UTC).isoformat()
    note = DecisionNote(state="waiting", by=(MARK,), at=at, patients=40)
    DecisionNotes(watching.folder.path / "approvals").write(study.digest, note)
    assert watching.look() == ["study tiny waits for another person's approval"]
    assert watching.look() == []


def test_void_rounds_and_the_end_of_an_approved_study_are_told_once(watching):
    study = watching.offer()
    watching.look()
    watching.approve(study)
    watching.answers.voids = (3,)
    assert watching.look() == ["study tiny: round 3 is void"]
    watching.begin()
    watching.answers.voids = (3, 4, 6)
    assert watching.look() == ["study tiny: 2 rounds are void"]
    watching.answers.state, watching.answers.offers = "finished", {}
    watching.begin()
    assert watching.look() == ["study tiny has finished"]
    asked = watching.answers.asked
    assert watching.look() == []
    assert watching.answers.asked == asked + 1  # the list; an ended study is not asked about


def test_what_was_before_notices_were_switched_on_is_not_told(watching):
    study = watching.offer()
    watching.approve(study)
    watching.answers.voids = (3,)
    assert watching.look() == []
    watching.answers.voids = (3, 5)
    watching.answers.state = "stopped"
    assert watching.look() == ["study tiny: round 5 is void", "study tiny was stopped"]


def test_the_coordinator_is_unreachable_once_for_each_time(watching):
    watching.look()
    told = []
    watching.answers.reachable = False
    for _ in range(14):
        watching.now += 300
        told += watching.look()
    assert told == ["the coordinator cannot be reached"]
    watching.answers.reachable = True
    assert watching.look() == []
    watching.answers.reachable = False
    watching.begin()
    for _ in range(7):
        watching.now += 300
        told += watching.look()
    assert told == ["the coordinator cannot be reached"] * 2


def test_a_site_that_is_not_accepted_asks_each_five_minutes(watching):
    watching.look()
    watching.answers.accepts = False
    before = watching.answers.asked
    for _ in range(30):
        watching.now += 60
        watching.look()
    assert watching.answers.asked - before == 6


@pytest.mark.parametrize("path", [STUDIES_PATH, PROGRESS_PATH])
def test_a_certificate_that_was_renewed_is_taken_at_the_next_look(watching, path):
    study = watching.offer()
    watching.look()
    watching.approve(study)
    watching.answers.expired_at = path
    watching.look()
    watching.answers.expired_at, watching.answers.voids = "", (3,)
    watching.now += 1
    assert watching.look() == ["study tiny: round 3 is void"]


def test_a_coordinator_that_tells_no_progress_is_asked_once(watching, caplog):
    study = watching.offer()
    watching.approve(study)
    watching.answers.old = True
    asked = []
    for _ in range(3):
        before = watching.answers.asked
        assert watching.look() == []
        asked.append(watching.answers.asked - before)
    assert asked == [3, 1, 1]  # list, offer, progress; then the list alone


def test_a_false_offer_is_not_told_and_asked_for_once(watching):
    other = IdentityKey.from_seed(b"x" * 32)
    study = watching.offer()
    offer = watching.answers.offers[study.digest]
    false = offer.__class__(**vars(offer) | {"signature": other.sign(b"")})
    watching.answers.offers[study.digest] = false
    before = watching.answers.asked
    assert watching.look() == []
    assert watching.look() == []
    assert watching.answers.asked - before == 3


def test_a_flood_of_offers_is_read_bit_by_bit_and_forgotten_when_it_is_gone(watching):
    for number in range(25):
        watching.offer(TEXT.replace("seed = 7", f"seed = {number + 10}"))
    assert len(watching.look()) == 20
    assert len(watching.look()) == 5
    watching.answers.offers = {}
    watching.look()
    assert not [mark for mark in watching.outbox.marks() if mark.startswith("offer")]


def test_a_damaged_note_of_a_decision_hides_nothing(watching):
    study = watching.offer()
    note = watching.folder.path / "approvals" / f"{study.digest.hex()}.decision"
    note.write_text("{")
    assert watching.look() == [OFFERED]


def test_disk_and_certificates_are_told(watching):
    watching.look()
    watching.free = 1 << 20
    watching.answers.ends = datetime.fromtimestamp(watching.now, UTC) + timedelta(days=20)
    ends = f"{watching.answers.ends:%Y-%m-%d}"
    assert watching.look() == [
        "the disk is nearly full",
        f"the coordinator's certificate ends on {ends}",
    ]
    watching.begin()
    assert watching.look() == []
    watching.now += 3640 * DAY_S
    watching.answers.ends = None
    assert any("authority ends on" in told for told in watching.look())


def test_a_wrong_clock_does_not_end_a_certificate(watching):
    watching.now += 400 * DAY_S
    watching.answers.clock_ahead_s = 400 * DAY_S
    assert watching.look() == []


def test_status_counts_the_notices(watching):
    assert site_status(watching.folder)["notices"]["sent"] == 0
    watching.offer()
    watching.look()
    assert site_status(watching.folder)["notices"] == {
        "sent": 1, "waiting": 0, "given_up": 0, "failed_attempts": 0, "lost": 0,
        "last_failure": None,
    }  # fmt: skip
