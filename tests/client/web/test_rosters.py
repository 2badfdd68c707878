"""Who joins and leaves an approved study, and new keys, are decided on by named persons."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import pytest

from consilium.client.commands.persons import ROLES
from consilium.client.web.pages import site_application
from consilium.shared.audit.events import Acted, RosterAgreed, RosterChanged
from consilium.shared.audit.recent import recent_entries
from consilium.shared.enrolment.fingerprint import fingerprint, to_words
from consilium.shared.enrolment.messages import STUDIES_PATH, StudyList
from consilium.shared.enrolment.recovery import SUCCESSOR_PATH, SuccessorReply
from consilium.shared.errors import UnreachableError
from consilium.shared.web.users import Users
from tests.client.service.test_roster_agreement import BY_HAND, JOINER, NEW, Hospital, Study
from tests.client.web.conftest import PERSONS
from tests.in_process import memory_folder
from tests.server.coordinator.test_recovery import NEW as SUCCESSOR
from tests.server.coordinator.test_recovery import OTHER as BESIDE
from tests.server.coordinator.test_recovery import STUDY, VICTIM, succession
from tests.web_served import PASSWORD, QUICK, Person, served

SITE = BESIDE  # of the victim
PATH = f"/studies/{STUDY.digest.hex()}/hospitals"
POLICY = "[privacy]\nallow_without_privacy = true\n"
TWO = "[studies]\napprovals_needed = 2\n"


class Line:
    """A hospital's connection, as a command opens and closes it."""

    def __init__(self, hospital: Hospital) -> None:
        self.hospital, self.is_cut, self.proves = hospital, False, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def post(self, path: str, body: bytes) -> bytes:
        if self.is_cut:
            raise UnreachableError("the coordinator cannot be reached; try again")
        if path == STUDIES_PATH:
            return StudyList(digests=STUDY.digest).to_bytes()
        if path == SUCCESSOR_PATH:
            if not self.proves:
                return SuccessorReply(succession=None).to_bytes()
            return self.hospital.desk.service.recovery.successor(body)
        return self.hospital.post(path, body)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A hospital that approved a study, what it hears, and where its pages are."""

    study: Study
    line: Line
    address: str

    @property
    def own(self) -> Hospital:
        return self.line.hospital

    def person(self, name: str) -> Person:
        return Person(self.address, name)

    def events(self, *kinds: type) -> list[object]:
        entries = recent_entries(self.own.audit.path, 1000)
        return [one.event for one in reversed(entries) if isinstance(one.event, kinds)]

    def let_join(self) -> str:
        """The joiner is proposed; the digest of the roster that hospitals read."""
        number = self.study.propose(join=[JOINER])
        self.study.hospitals[JOINER].approve()
        return self.read(number)

    def read(self, number: int) -> str:
        text = self.person("Anna").get(PATH).text
        assert f"Roster {number} is proposed" in text
        return text.split("name='roster' value='")[1].split("'")[0]

    def others_agree(self) -> None:
        """Nobody looks but by hand, and all others agree."""
        for name, hospital in self.study.hospitals.items():
            if name not in (SITE, JOINER):
                desk = hospital.rosters
                version = desk.follow(STUDY.digest)
                assert version is not None
                desk.agree(desk.check(hospital.approvals.find(STUDY.digest), version), by="test")


@pytest.fixture
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    with memory_folder() as folder:
        study = Study(folder, BY_HAND)
        own = study.hospitals[SITE]
        (own.folder.path / "policy.toml").write_text(POLICY + getattr(request, "param", ""))
        line = Line(own)
        for module in ("commands.roster_decisions", "service.offers"):
            monkeypatch.setattr(f"consilium.client.{module}.connect", lambda _: line)
        users = Users(own.folder.path, ROLES, command="consilium-site web-user", cost=QUICK)
        for name, role in PERSONS.items():
            users.set(name, role, PASSWORD)
        with served(site_application(own.folder, users=users)) as address:
            yield Page(study=study, line=line, address=address)


def test_what_waits_is_shown_where_studies_are_and_agreed_to_by_a_named_person(page: Page) -> None:
    anna = page.person("Anna")
    text = anna.get(PATH).text
    assert "No others are proposed." in text
    assert "waits for this hospital" not in anna.get("/studies").text
    digest = page.let_join()
    assert "roster 2 waits for this hospital" in anna.get("/studies").text
    assert "this hospital's word is asked for" in anna.get(PATH.removesuffix("/hospitals")).text
    text = anna.get(PATH).text
    assert " ".join(to_words(fingerprint(JOINER, NEW.public))) in text
    assert f"{JOINER} joins, with 7 patients" in text
    done = anna.post(f"{PATH}/agree", roster=digest, sure="yes")
    assert "This hospital agreed to roster 2." in done.text
    assert f"agreed to roster 2, by Anna (steward): {JOINER} to join." in done.text
    assert [(one.version, one.by) for one in page.events(RosterAgreed)] == [(2, "Anna (steward)")]
    assert not page.study.between_rounds(5)
    page.others_agree()
    assert page.study.between_rounds(6)
    now = anna.get(PATH).text  # takes over what is in force
    assert f"<td>{JOINER}</td>" in now
    assert "No others are proposed." in now
    assert "agreed to roster 2" not in now
    assert JOINER in page.own.sites


@pytest.mark.parametrize("page", [TWO], indirect=True)
def test_two_persons_agree_to_the_same_roster(page: Page) -> None:
    digest, anna = page.let_join(), page.person("Anna")
    told = anna.post(f"{PATH}/agree", roster=digest, sure="yes").text
    assert "sent only once 1 more person(s) agree" in told
    assert "agreed; it waits for another person" in told
    assert "has agreed to roster 2" in anna.post(f"{PATH}/agree", roster=digest, sure="yes").text
    assert page.events(RosterAgreed) == []
    assert "This hospital agreed" in page.person("Bert").post(
        f"{PATH}/agree", roster=digest, sure="yes"
    ).text  # fmt: skip
    assert [one.by for one in page.events(RosterAgreed)] == ["Anna (steward), Bert (steward)"]


def test_another_roster_than_was_read_is_not_agreed_to(page: Page) -> None:
    digest, anna = page.let_join(), page.person("Anna")
    page.study.propose(leave=[VICTIM])
    for what in ("agree", "refuse"):
        told = anna.post(f"{PATH}/{what}", roster=digest, sure="yes")
        assert told.status_code == 409
        assert "is not proposed any more; nothing was decided" in told.text
    assert page.events(RosterAgreed, Acted) == []
    assert f"{VICTIM} leaves for good" in anna.get(PATH).text


def test_a_refusal_is_noted_and_sent_to_nobody_and_may_be_thought_over(page: Page) -> None:
    digest, anna = page.let_join(), page.person("Anna")
    told = anna.post(f"{PATH}/refuse", roster=digest).text
    assert "Roster 2 is refused" in told
    assert "Anna (steward): refused" in told
    page.others_agree()
    assert not page.study.between_rounds(5)
    anna.post(f"{PATH}/agree", roster=digest, sure="yes")
    assert page.study.between_rounds(6)
    assert [one.act for one in page.events(Acted)] == ["refuse a roster"]


def test_only_a_steward_decides_and_only_with_the_box_ticked(page: Page) -> None:
    digest = page.let_join()
    for name in ("Clara", "Tom"):
        person = page.person(name)
        assert "Only a steward decides." in person.get(PATH).text
        for what in ("agree", "refuse", "keys"):
            answer = person.post(f"{PATH}/{what}", roster=digest, sure="yes")
            assert answer.status_code == 403
    told = page.person("Anna").post(f"{PATH}/agree", roster=digest)
    assert "was not ticked; nothing was changed" in told.text
    assert page.events(RosterAgreed, Acted) == []


def test_without_the_coordinator_the_hospitals_are_shown_and_nothing_is_decided(
    page: Page,
) -> None:
    digest, anna = page.let_join(), page.person("Anna")
    page.line.is_cut = True
    text = anna.get(PATH).text
    assert "is not known, and nothing can be decided now: the coordinator cannot be" in text
    assert f"<td>{VICTIM}</td>" in text
    assert "waits for this hospital" not in anna.get("/studies").text
    assert anna.post(f"{PATH}/agree", roster=digest, sure="yes").status_code >= 400
    assert page.events(RosterAgreed, Acted) == []


def test_a_study_that_is_not_approved_has_no_hospitals_to_decide_on(page: Page) -> None:
    page.own.approvals.withdraw(STUDY.digest)
    told = page.person("Anna").get(PATH)
    assert told.status_code == 409
    assert "this hospital takes no part in this study" in told.text


@pytest.fixture
def keys(page: Page) -> str:
    """The digest of a new key, as a person reads it: the victim came back on a new machine."""
    page.study.lose()
    page.study.succeed(succession())
    page.study.declare(VICTIM, 7, SUCCESSOR)
    text = page.person("Anna").get(PATH).text
    assert f"{VICTIM} stands under a new key" in text
    assert "the same hospital, as its recovery code proves." in text
    return text.split("name='keys' value='")[1].split("'")[0]


def test_a_new_key_that_is_proved_is_accepted_as_it_was_read(page: Page, keys: str) -> None:
    anna = page.person("Anna")
    told = anna.post(f"{PATH}/keys", keys="0" * 64, sure="yes")
    assert told.status_code == 409
    assert "others than those you read; nothing was accepted" in told.text
    assert page.events(RosterChanged) == []
    done = anna.post(f"{PATH}/keys", keys=keys, sure="yes")
    assert "The study goes on here with the new keys." in done.text
    assert [one.by for one in page.events(RosterChanged)] == ["Anna (steward)"]
    assert "No others are proposed." in anna.get(PATH).text


def test_a_new_key_that_nothing_proves_counts_only_with_vouchers(page: Page, keys: str) -> None:
    anna, page.line.proves = page.person("Anna"), False
    assert "nothing proves that it is the same" in anna.get(PATH).text
    told = anna.post(f"{PATH}/keys", keys=keys, sure="yes")
    assert told.status_code == 409
    assert page.events(RosterChanged) == []
    page.own.folder.vouchers().withdraw(VICTIM, recorded=lambda _: None)
    page.own.vouch(VICTIM, SUCCESSOR)
    done = anna.post(f"{PATH}/keys", keys=keys, sure="yes")
    assert "The study goes on here with the new keys." in done.text
