"""A log that is sealed goes on as one: checked, anchored, read, backed up, whatever is killed."""

import os
from pathlib import Path

import pytest

from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.check import Reason, check_log
from consilium.shared.audit.events import Revoked
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import newest_heads, read_lines
from consilium.shared.audit.segments import segments
from consilium.shared.audit.summary import summarise
from consilium.shared.backup.create import back_up
from consilium.shared.backup.restore import restore
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError

KEY, PEER = IdentityKey.from_seed(b"k" * 32), IdentityKey.from_seed(b"p" * 32)


def log_in(folder: Path, owner: str = "north", key: IdentityKey = KEY) -> AuditLog:
    folder.mkdir(exist_ok=True)
    return AuditLog(folder / "audit.jsonl", owner=owner, key=key, version="0.1.0")


def grow(log: AuditLog, count: int) -> None:
    for number in range(count):
        log.append(Revoked(site="south", reason=f"reason {number}"))


def report(log: AuditLog):
    return check_log(log.path, trusted=KEY.public, owner="north")


def test_sealed_segments_and_the_file_that_is_written_are_one_log(tmp_path: Path) -> None:
    log, other = log_in(tmp_path / "a"), log_in(tmp_path / "a")
    for _ in range(3):
        grow(log, 2)
        sealed = log.seal(by="dr")
        assert sealed.stat().st_mode & 0o777 == 0o400
        grow(other, 1)  # another writer goes on in the new file
    assert [path.name[6:10] for path in segments(log.path)] == ["0001", "0002", "0003"]
    found = report(log)
    assert (found.finding, found.entries) == (None, 1 + 3 * 4)
    assert summarise(log.path).entries == found.entries
    numbers = range(1, found.entries + 1)
    assert [log.head_at(number).number for number in numbers] == list(numbers)
    assert log.head_at(found.entries + 1) is None
    assert log_in(tmp_path / "a").head() == log.head()  # it opens as the same log


def test_the_other_sides_anchors_reach_through_segments(tmp_path: Path) -> None:
    log, peer = log_in(tmp_path / "a"), log_in(tmp_path / "b", "coordinator", PEER)
    anchors = Anchors(peer)
    for _ in range(3):
        grow(log, 1)
        head = {"north": log.head().to_bytes()}
        assert not anchors.record(head, {"north": KEY.public}, study_digest=bytes(32))
        log.seal(by="dr")
        peer.seal(by="op")
    heads = newest_heads(peer.path, {"north": KEY.public})
    assert heads["north"].number == 6
    assert check_log(peer.path, trusted=PEER.public, owner="coordinator").finding is None
    anchored = check_log(log.path, trusted=KEY.public, owner="north", anchors=heads.values())
    assert (anchored.finding, anchored.anchors) == (None, 1)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_segment_that_is_missing_or_changed_is_found(tmp_path: Path, lost: int) -> None:
    log = log_in(tmp_path / "a")
    for _ in range(2):
        grow(log, 2)
        log.seal(by="dr")
    segment = segments(log.path)[lost]
    content = segment.read_bytes()
    segment.unlink()
    assert report(log).finding.reason is Reason.REMOVED
    segment.write_bytes(content.replace(b"reason 1", b"reason 2"))
    assert report(log).finding.reason is Reason.ALTERED


def test_a_crash_amidst_sealing_leaves_one_log_and_the_next_seal_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_in(tmp_path / "a")
    grow(log, 3)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as here:
        here.setattr("consilium.shared.audit.log.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            log.seal(by="dr")
    assert os.path.samefile(tmp_path / "a" / "audit-0001.jsonl", log.path)  # noqa: PTH121
    assert segments(log.path) == []
    assert len(list(read_lines(log.path))) == 4
    grow(log, 1)
    log.seal(by="dr")
    assert (report(log).finding, report(log).entries) == (None, 6)


def test_a_full_disk_seals_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_in(tmp_path / "a")
    grow(log, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as here:
        here.setattr("consilium.shared.audit.log.write_atomically", full)
        with pytest.raises(AuditError, match="No space left on device"):
            log.seal(by="dr")
    assert list(tmp_path.glob("a/audit-*")) == []
    grow(log, 1)
    assert (report(log).finding, report(log).entries) == (None, 3)


def test_the_written_file_emptied_beside_its_segments_is_not_begun_anew(tmp_path: Path) -> None:
    log = log_in(tmp_path / "a")
    log.seal(by="dr")
    log.path.write_bytes(b"")
    with pytest.raises(AuditError, match="its sealed segments are there, and it is empty"):
        log_in(tmp_path / "a")


def test_a_backup_has_the_segments_and_is_restored_as_one_log(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    log = log_in(folder)
    (folder / "identity.pem").write_bytes(KEY.to_pem())
    grow(log, 2)
    log.seal(by="dr")
    grow(log, 1)
    made = back_up(folder, tmp_path / "a.tar", kind="site", owner="north", version="0.1.0")
    assert made.entries == 5
    restore(tmp_path / "a.tar", tmp_path / "b", kind="site", version="0.1.0", newest=[log.head()])
    restored = log_in(tmp_path / "b")
    assert (report(restored).finding, report(restored).entries) == (None, 6)
