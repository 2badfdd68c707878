"""The coordinator takes a site's declared size once, and only the site's own."""

from pathlib import Path

import pytest

from consilium.server.coordinator.enrolment import EnrolmentService, submit
from consilium.server.coordinator.register import Member, Register
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.messages import SizeDeclaration, StudyOffer, StudyRequest
from consilium.shared.errors import AuthenticationError, SettingsError, StudyError
from consilium.shared.study.definition import parse_study
from tests.rosters import sized_roster
from tests.study_text import TEXT

STUDY = parse_study(TEXT)
COORDINATOR = IdentityKey.from_seed(b"c" * 32)
KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in STUDY.sites}


class Desk:
    """A coordinator's register and service with three enrolled sites and a submitted study."""

    def __init__(self, folder: Path) -> None:
        self.register = Register(folder / "register.sqlite")
        audit = AuditLog(folder / "audit.jsonl", owner="c", key=COORDINATOR, version="0.1.0")
        for number, (site, key) in enumerate(KEYS.items()):
            self.register.enrol(
                site,
                identity=key.public,
                node_key=site.encode(),
                node_id=number,
                version="0.1.0",
                now=0.0,
            )
        self.service = EnrolmentService(
            register=self.register,
            identity=COORDINATOR,
            audit=audit,
            nodes=lambda site, key: 0,
        )
        submit(self.register, COORDINATOR, audit, STUDY, TEXT.encode())

    def member(self, site: str) -> Member:
        return next(m for m in self.register.members() if m.name == site)

    def declare(
        self, site: str, patients: int, *, by: str | None = None, digest: bytes = STUDY.digest
    ) -> None:
        signed = Declaration.signed(
            patients, study_digest=STUDY.digest, site=site, sign=KEYS[by or site].sign
        )
        message = SizeDeclaration(digest=digest, declared=signed.to_bytes())
        assert self.service.declare(self.member(site), message.to_bytes()) == b""


def test_the_roster_is_final_once_every_site_has_declared_its_size(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for missing, (site, patients) in zip(
        (("a", "b", "c"), ("b", "c"), ("c",)),
        {"a": 300, "b": 20, "c": 1000}.items(),
        strict=True,
    ):
        known = desk.register.study("small")
        assert known.undeclared == missing
        assert known.roster.declared == ()
        desk.declare(site, patients)
    found = desk.register.study("small")
    assert found.undeclared == ()
    assert found.roster == sized_roster(KEYS, STUDY.digest, a=300, b=20, c=1000)


def test_sites_are_shown_what_the_others_declared(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.declare("b", 20)
    request = StudyRequest(digest=STUDY.digest).to_bytes()
    offer = StudyOffer.from_bytes(desk.service.show_study(desk.member("a"), request))
    offer.check(COORDINATOR.public)
    assert offer.sizes == {"b": 20}


def test_a_size_is_declared_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.declare("b", 20)
    desk.declare("b", 20)
    with pytest.raises(SettingsError, match=r"site b declared 20 patients .* does not change"):
        desk.declare("b", 30)
    assert desk.register.study("small").declared["b"].patients == 20


def test_nobody_declares_for_another_or_beyond_the_studys_bound(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    with pytest.raises(AuthenticationError, match="the declared size of site b"):
        desk.declare("b", 20, by="a")
    with pytest.raises(StudyError, match="100001 patients, above"):
        desk.declare("b", 100_001)
    with pytest.raises(SettingsError, match="no study 0000000000000000 is open to site b"):
        desk.declare("b", 20, digest=bytes(32))
    assert desk.register.study("small").declared == {}


def test_a_study_submitted_before_sizes_were_declared_waits_for_them(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    with desk.register.transaction() as connection:
        connection.execute("DROP TABLE declarations")
    assert Register(tmp_path / "register.sqlite").study("small").undeclared == ("a", "b", "c")
