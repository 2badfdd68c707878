"""A hospital's log under a new identity is a new log, not one that went back."""

from pathlib import Path

from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.events import BudgetCarried, Carried, RosterChanged
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import roster_changes
from consilium.shared.audit.site_record import read_site_record
from consilium.shared.crypto.keys import IdentityKey

COORDINATOR, OLD, NEW = (IdentityKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3))
STUDY, ANOTHER = bytes(32), b"a" * 32


def log(path: Path, key: IdentityKey = COORDINATOR, owner: str = "coordinator") -> AuditLog:
    return AuditLog(path / "audit.jsonl", owner=owner, key=key, version="0.1.0")


def show(anchors: Anchors, key: IdentityKey, number: int) -> dict[str, str]:
    head = AuditHead.sign(key, owner="north", number=number, digest=bytes([number]) * 32)
    return anchors.record({"north": head.to_bytes()}, {"north": key.public}, study_digest=STUDY)


def changed(study: bytes = STUDY) -> RosterChanged:
    return RosterChanged(
        study="tiny", study_digest=study, version=2, roster=bytes(32), site="north",
        before=OLD.public, after=NEW.public, by="coordinator",
    )  # fmt: skip


def test_the_first_heads_of_a_new_log_do_not_diverge(tmp_path: Path) -> None:
    audit = log(tmp_path)
    anchors = Anchors(audit)
    assert not show(anchors, OLD, 57)
    audit.append(changed())
    anchors.forget("north", STUDY)
    assert not show(anchors, NEW, 4)
    assert not show(Anchors(audit), NEW, 5)


def test_without_a_change_of_key_they_do(tmp_path: Path) -> None:
    anchors = Anchors(log(tmp_path))
    show(anchors, OLD, 57)
    assert "stood at entry 57 before" in show(anchors, OLD, 4)["north"]


def test_a_studys_rosters_are_read_from_the_log(tmp_path: Path) -> None:
    audit = log(tmp_path)
    audit.append(changed(), changed(ANOTHER))
    with audit.path.open("ab") as file:
        file.write(b"no entry\n")
    assert roster_changes(audit.path, STUDY) == [changed()]


def test_what_was_carried_over_stands_in_a_sites_record(tmp_path: Path) -> None:
    audit = log(tmp_path, NEW, "north")
    entry = Carried(
        identity=OLD.public, certificate_digest=bytes(32), study="tiny", study_digest=STUDY,
        study_hash=ANOTHER, round=1, study_epsilon=8.0, study_delta=1e-5, charges="[0,80,[]]",
        closed=False,
    )  # fmt: skip
    audit.append(
        BudgetCarried(
            identity=OLD.public,
            number=57,
            certificate_digest=bytes(32),
            releases=1,
            written_off=2.0,
        ),
        entry,
    )
    record = read_site_record(audit.path)
    assert (record.carried, record.written_off, record.former) == ([entry], 2.0, OLD.public)
