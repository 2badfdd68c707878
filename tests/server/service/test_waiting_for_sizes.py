"""A study's process waits until every site has declared its size: only then the roster is final."""

from pathlib import Path

import pytest

from consilium.server.coordinator.enrolment import submit
from consilium.server.coordinator.register import Register, State, Wanted
from consilium.server.service import study_process
from consilium.server.service.study_process import StudyProcess
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.study.definition import parse_study
from tests.rosters import declared
from tests.study_text import TEXT

STUDY = parse_study(TEXT)
COORDINATOR = IdentityKey.from_seed(b"c" * 32)
KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in STUDY.sites}
SIGNED = declared(KEYS, STUDY.digest)


class NoSites:
    """Sites that are asked nothing."""

    def ask(self, *_: object, **__: object) -> None:
        raise AssertionError("a site was asked before every size was declared")


@pytest.fixture
def register(tmp_path: Path) -> Register:
    found = Register(tmp_path / "register.sqlite")
    for number, (site, key) in enumerate(KEYS.items()):
        found.enrol(
            site,
            identity=key.public,
            node_key=site.encode(),
            node_id=number,
            version="0.1.0",
            now=0.0,
        )
    return found


def test_no_site_is_asked_before_every_size_is_declared(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl", owner="c", key=COORDINATOR, version="0.1.0")
    submit(register, COORDINATOR, audit, STUDY, TEXT.encode())
    told: list[str] = []

    def while_it_waits(_: float) -> None:
        study = register.study("small")
        assert study.state is State.WAITING
        told.append(study.detail)
        if len(told) == 1:
            register.declare(STUDY.digest, "a", SIGNED["a"])
        elif len(told) == 2:
            register.want(STUDY.digest, Wanted.STOP)

    monkeypatch.setattr(study_process.time, "sleep", while_it_waits)
    process = StudyProcess(register, register.study("small"), tmp_path, audit)
    process.run(NoSites(), patience_s=0.0)
    assert told == [
        f"waiting for the declared size of {missing}: its hospital has not approved yet"
        for missing in ("a, b, c", "b, c")
    ]
    assert register.study("small").state is State.STOPPED


def test_it_goes_on_once_the_last_size_is_declared(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl", owner="c", key=COORDINATOR, version="0.1.0")
    submit(register, COORDINATOR, audit, STUDY, TEXT.encode())
    register.declare(STUDY.digest, "a", SIGNED["a"])
    register.declare(STUDY.digest, "b", SIGNED["b"])
    monkeypatch.setattr(
        study_process.time,
        "sleep",
        lambda _: register.declare(STUDY.digest, "c", SIGNED["c"]),
    )
    process = StudyProcess(register, register.study("small"), tmp_path, audit)
    with pytest.raises(AssertionError, match="a site was asked"):
        process.run(NoSites(), patience_s=0.0)
