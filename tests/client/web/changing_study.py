"""A hospital in a study that runs, whose coordinator proposes other sites, and its pages."""

from dataclasses import dataclass
from typing import Self

from consilium.shared.audit.recent import recent_entries
from consilium.shared.enrolment.messages import STUDIES_PATH, StudyList
from consilium.shared.enrolment.recovery import SUCCESSOR_PATH, SuccessorReply
from consilium.shared.errors import UnreachableError
from tests.client.service.test_roster_agreement import JOINER, Hospital, Study
from tests.server.coordinator.test_recovery import OTHER as BESIDE
from tests.server.coordinator.test_recovery import STUDY
from tests.web_served import Person

SITE = BESIDE  # of the victim
PATH = f"/studies/{STUDY.digest.hex()}/hospitals"


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
