"""The coordinator's part in a recovery: what it keeps, to whom it shows it, what it changes."""

import os
from pathlib import Path

import pytest

from consilium.server.coordinator.enrolment import EnrolmentService, dismiss, submit
from consilium.server.coordinator.register import Member, Register
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import roster_changes
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.messages import SizeDeclaration, StudyOffer, StudyRequest
from consilium.shared.enrolment.recovery import (
    BudgetCertificate,
    RecoveryClaim,
    RecoveryCode,
    RecoveryGrant,
    Succession,
    SuccessorReply,
    SuccessorRequest,
)
from consilium.shared.errors import AuthenticationError, SettingsError, StudyError
from consilium.shared.study.definition import parse_study
from tests.study_text import TEXT as THREE

TEXT = THREE.replace('sites = ["a", "b", "c"]', 'sites = ["a", "b", "c", "d", "e"]')
STUDY = parse_study(TEXT)
VICTIM, OTHER = sorted(STUDY.sites)[:2]
COORDINATOR = IdentityKey.from_seed(b"c" * 32)
KEYS = {site: IdentityKey.from_seed(site.encode()[:32].ljust(32, b"-")) for site in STUDY.sites}
NEW, COLLUDER = IdentityKey.from_seed(b"n" * 32), IdentityKey.from_seed(b"m" * 32)
CODE, OTHER_CODE = RecoveryCode(b"p" * 32), RecoveryCode(b"q" * 32)
SECRET = b"i" * 32


class Desk:
    """A coordinator with a study whose sites have all declared seven patients."""

    def __init__(self, folder: Path) -> None:
        self.register = Register(folder / "register.sqlite")
        self.log = folder / "audit.jsonl"
        self.audit = AuditLog(self.log, owner="coordinator", key=COORDINATOR, version="0.1.0")
        for site, key in KEYS.items():
            self.enrol(site, key)
        self.service = EnrolmentService(
            register=self.register, identity=COORDINATOR, audit=self.audit, nodes=lambda *_: 0
        )
        submit(self.register, COORDINATOR, self.audit, STUDY, TEXT.encode())
        for site, key in KEYS.items():
            self.declare(site, 7, key)

    def enrol(self, site: str, key: IdentityKey) -> None:
        self.register.enrol(
            site, identity=key.public, node_key=key.public, node_id=1, version="0.1.0", now=0.0
        )

    def member(self, site: str) -> Member:
        return next(m for m in self.register.members() if m.name == site)

    def declare(self, site: str, patients: int, key: IdentityKey) -> None:
        signed = Declaration.signed(patients, study_digest=STUDY.digest, site=site, sign=key.sign)
        message = SizeDeclaration(digest=STUDY.digest, declared=signed.to_bytes())
        self.service.declare(self.member(site), message.to_bytes())

    def bind(self, site: str, key: IdentityKey, code: RecoveryCode) -> None:
        binding = code.endorse(key.public).bind(site, key)
        self.service.recovery.bind(self.member(site), binding.to_bytes())

    def lose(self, key: IdentityKey = NEW) -> None:
        """The victim's machine is lost; a new one enrols under this key."""
        self.bind(VICTIM, KEYS[VICTIM], CODE)
        self.register.revoke(VICTIM, now=1.0)
        self.enrol(VICTIM, key)

    def succeed(self, succession: Succession) -> None:
        self.service.recovery.succeed(self.member(VICTIM), succession.to_bytes())

    def roster(self) -> dict[str, bytes]:
        return dict(self.register.study(STUDY.digest.hex()).roster.members)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def head(number: int) -> bytes:
    key = KEYS[VICTIM]
    return AuditHead.sign(key, owner=VICTIM, number=number, digest=bytes(32)).to_bytes()


def succession(new: IdentityKey = NEW, code: RecoveryCode = CODE) -> Succession:
    binding = CODE.endorse(KEYS[VICTIM].public).bind(VICTIM, KEYS[VICTIM])
    return Succession.make(code, binding, head(5), new)


def certificate(number: int) -> bytes:
    return BudgetCertificate.make(
        VICTIM, KEYS[VICTIM], head(number), b"", seal=CODE.sealing.public, entropy=os.urandom
    ).to_bytes()


def test_a_study_goes_on_with_the_hospitals_new_key_once_it_declared_its_size(desk: Desk) -> None:
    desk.lose()
    desk.succeed(succession())
    assert desk.roster()[VICTIM] == KEYS[VICTIM].public  # until its hospital approved again
    shown = desk.service.show_study(
        desk.member(VICTIM), StudyRequest(digest=STUDY.digest).to_bytes()
    )
    _, offered = StudyOffer.from_bytes(shown).check(COORDINATOR.public)
    assert dict(offered.members)[VICTIM] == NEW.public
    desk.declare(VICTIM, 7, NEW)
    assert desk.roster()[VICTIM] == NEW.public
    now = desk.register.study(STUDY.digest.hex())
    assert (now.version, now.undeclared) == (2, ())
    shown = desk.service.show_study(
        desk.member(OTHER), StudyRequest(digest=STUDY.digest).to_bytes()
    )
    StudyOffer.from_bytes(shown).check(COORDINATOR.public)
    (change,) = roster_changes(desk.log, STUDY.digest)
    assert (change.version, change.before, change.after) == (2, KEYS[VICTIM].public, NEW.public)
    asked = SuccessorRequest(identity=KEYS[VICTIM].public).to_bytes()
    reply = SuccessorReply.from_bytes(desk.service.recovery.successor(asked))
    assert reply.succession == succession()


def test_a_new_key_without_the_code_is_in_no_study(desk: Desk) -> None:
    desk.lose(COLLUDER)
    with pytest.raises(SettingsError, match="no study"):
        desk.service.show_study(desk.member(VICTIM), StudyRequest(digest=STUDY.digest).to_bytes())
    with pytest.raises(AuthenticationError, match="not signed with its recovery code"):
        desk.succeed(succession(COLLUDER, OTHER_CODE))
    with pytest.raises(AuthenticationError, match="for another site or identity"):
        desk.succeed(succession(NEW))


def test_a_hospital_has_one_successor(desk: Desk) -> None:
    desk.lose()
    desk.succeed(succession())
    desk.succeed(succession())  # the answer was lost
    desk.register.revoke(VICTIM, now=2.0)
    desk.enrol(VICTIM, COLLUDER)
    with pytest.raises(SettingsError, match="came back under another key before"):
        desk.succeed(succession(COLLUDER))


def test_the_declared_size_stays_that_of_the_hospital(desk: Desk) -> None:
    desk.lose()
    desk.succeed(succession())
    with pytest.raises(SettingsError, match="--patients 7"):
        desk.declare(VICTIM, 9000, NEW)
    assert desk.roster()[VICTIM] == KEYS[VICTIM].public


def test_a_claim_needs_an_invitation_and_the_code(desk: Desk) -> None:
    desk.lose()
    desk.register.revoke(VICTIM, now=2.0)
    desk.register.invite(VICTIM, SECRET, expires=100.0)

    def claim(code: RecoveryCode, secret: bytes = SECRET) -> RecoveryGrant:
        asked = RecoveryClaim.make(code, secret, VICTIM, b"node key")
        return RecoveryGrant.from_bytes(desk.service.recovery.claim(asked.to_bytes(), now=50.0))

    assert claim(CODE).binding.identity == KEYS[VICTIM].public
    with pytest.raises(AuthenticationError, match="never enrolled with this recovery code"):
        claim(OTHER_CODE)
    with pytest.raises(AuthenticationError, match="invitation"):
        claim(CODE, bytes(32))


def test_an_older_certificate_does_not_take_the_place_of_a_newer_one(desk: Desk) -> None:
    for number in (3, 9, 4):
        desk.service.recovery.keep(desk.member(VICTIM), certificate(number))
    kept = desk.register.certificate(KEYS[VICTIM].public)
    assert kept is not None
    assert BudgetCertificate.from_bytes(kept).number == 9
    with pytest.raises(AuthenticationError):
        desk.service.recovery.keep(desk.member(OTHER), certificate(10))


def test_a_code_stays(desk: Desk) -> None:
    desk.bind(VICTIM, KEYS[VICTIM], CODE)
    desk.bind(VICTIM, KEYS[VICTIM], CODE)
    with pytest.raises(SettingsError, match="another recovery code"):
        desk.bind(VICTIM, KEYS[VICTIM], OTHER_CODE)
    with pytest.raises(AuthenticationError):
        desk.service.recovery.bind(
            desk.member(OTHER), CODE.endorse(NEW.public).bind(OTHER, NEW).to_bytes()
        )


def test_a_site_leaves_for_good_while_enough_stay(desk: Desk) -> None:
    leaving = sorted(STUDY.sites)
    study = desk.register.study(STUDY.digest.hex())
    spare = len(STUDY.sites) - STUDY.minimum_sites
    for number, site in enumerate(leaving[:spare]):
        assert dismiss(desk.register, desk.audit, study, site) == number + 2
        study = desk.register.study(STUDY.digest.hex())
    assert study.gone == frozenset(leaving[:spare])
    with pytest.raises(StudyError, match="are needed"):
        dismiss(desk.register, desk.audit, study, leaving[spare])
