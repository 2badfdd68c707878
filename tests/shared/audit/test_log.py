"""The audit log: acknowledged means on disk, whatever dies; nobody else's lines are continued."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import get_type_hints

import pytest

from consilium.shared.audit import events as audit_events
from consilium.shared.audit.check import check_log
from consilium.shared.audit.entry import LARGEST_LINE, AuditEntry
from consilium.shared.audit.events import (
    Approved,
    AuditEvent,
    Healed,
    Opened,
    Refused,
    Released,
    RoundClosed,
    event_from_plain,
    event_to_plain,
)
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import read_lines
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError, AuthenticationError
from tests.in_process import memory_folder
from tests.needs import PATIENCE_S
from tests.shared.audit.rotated_logs import rotate

ROOT = Path(__file__).resolve().parents[3]
KEY = IdentityKey.from_seed(b"a" * 32)
OTHER = IdentityKey.from_seed(b"b" * 32)
MONDAY = datetime(2030, 1, 7, 9, 0, tzinfo=UTC)


def open_log(path: Path, key: IdentityKey = KEY, owner: str = "site-a") -> AuditLog:
    return AuditLog(path, owner=owner, key=key, version="0.1.0", clock=lambda: MONDAY)


def approved(name: str = "study") -> Approved:
    return Approved(study=name, study_digest=bytes(32), approved=True, by="dr")


def check(path: Path, key: IdentityKey = KEY, owner: str = "site-a", **how: object):
    return check_log(path, trusted=key.public, owner=owner, **how)


def test_entries_are_read_back_as_they_were_written(tmp_path):
    path = tmp_path / "audit.jsonl"
    released = Released(
        study_digest=bytes(32),
        study_hash=bytes(32),
        round=3,
        purpose="training",
        message_digest=b"\x01" * 32,
        epsilon=1.25,
        delta=1e-5,
    )
    refused = Refused(peer="coordinator", asked="update", code="PolicyError", sentence="ε too high")
    closed = RoundClosed(
        study_digest=bytes(32),
        study_hash=bytes(32),
        round=3,
        purpose="training",
        survivors=("a", "b"),
        model_digest=bytes(32),
        void=None,
    )
    head = open_log(path).append(released, refused, closed)
    events = [AuditEntry.from_line(line).event for line in read_lines(path)]
    assert events == [Opened(owner="site-a", version="0.1.0"), released, refused, closed]
    report = check(path)
    assert report.finding is None
    assert (report.entries, report.head) == (4, head.digest) == (head.number, report.head)
    assert report.events == {"opened": 1, "released": 1, "refused": 1, "round-closed": 1}


def test_the_file_is_for_its_owner_only_and_plain_json_lines(tmp_path):
    path = tmp_path / "deep" / "audit.jsonl"
    open_log(path).append(approved())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first["event"] == "opened"
    assert second["data"]["study"] == "study"
    assert second["at"] == "2030-01-07T09:00:00+00:00"


def test_a_reopened_log_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "audit.jsonl"
    assert open_log(path).append(approved()).number == 2
    assert open_log(path).append(approved(), approved()).number == 4
    assert open_log(path).head().number == 4
    assert check(path).entries == 4


def test_a_head_is_its_owners_and_nobody_elses(tmp_path):
    head = open_log(tmp_path / "audit.jsonl").append(approved())
    head.verify("site-a", OTHER.public, KEY.public)
    assert AuditHead.from_bytes(head.to_bytes()) == head
    for owner, key in (("site-b", KEY), ("site-a", OTHER)):
        with pytest.raises(AuthenticationError, match="is not signed by its identity"):
            head.verify(owner, key.public)
    with pytest.raises(AuthenticationError):
        head.verify("site-a")


def test_threads_and_processes_write_one_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    with ThreadPoolExecutor(4) as pool:
        heads = list(pool.map(lambda n: log.append(approved(f"thread-{n}")), range(20)))
    assert sorted(head.number for head in heads) == list(range(2, 22))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", TEN, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for _ in range(3)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=PATIENCE_S)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    report = check(path)
    assert (report.entries, report.finding) == (51, None)


def test_a_log_is_checked_while_it_is_written(tmp_path):
    path = tmp_path / "audit.jsonl"
    open_log(path)
    writer = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path], stdout=subprocess.DEVNULL, cwd=ROOT
    )
    deadline, lengths, findings = time.monotonic() + PATIENCE_S, set(), set()
    try:
        while len(lengths) < 5 and time.monotonic() < deadline:
            report = check(path)
            lengths.add(report.entries)
            findings.add(report.finding)
    finally:
        writer.kill()
        writer.wait()
    assert findings == {None}
    assert len(lengths) == 5  # it was written while it was checked


OPENED = """
import sys
from pathlib import Path
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.events import Approved
from consilium.shared.crypto.keys import IdentityKey
key = IdentityKey.from_seed(b"a" * 32)
log = AuditLog(Path(sys.argv[1]), owner="site-a", key=key, version="0.1.0")
"""
TEN = (
    OPENED
    + """
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    log.append(Approved(study="s", study_digest=bytes(32), approved=True, by="dr"))
"""
)
PROGRAM = (
    OPENED
    + """
while True:
    event = Approved(study="s" * 900, study_digest=bytes(32), approved=True, by="dr")
    head = log.append(event, event)
    sys.stdout.write(f"{head.number} {head.digest.hex()}\\n")
    sys.stdout.flush()
"""
)


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9_at_any_moment():
    with memory_folder() as folder:
        path, acknowledged = folder / "audit.jsonl", 0
        for turn in range(6):
            writer = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, cwd=ROOT
            )
            first = writer.stdout.readline()
            for _ in range(4 * turn):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            lines = [first, *writer.stdout.read().split(b"\n")]
            writer.wait()
            writer.stdout.close()
            whole = [line for line in lines if len(line.strip().partition(b" ")[2]) == 64]
            number, digest = whole[-1].split()
            assert int(number) > acknowledged
            acknowledged = int(number)
            open_log(path)  # heals
            report = check(path)
            assert report.finding is None
            assert report.entries >= acknowledged
            held = AuditHead.sign(
                KEY, owner="site-a", number=acknowledged, digest=bytes.fromhex(digest.decode())
            )
            assert check(path, anchors=[held]).anchors == 1


def test_a_write_that_is_cut_off_at_any_byte_is_healed_and_the_heal_recorded(tmp_path):
    path = tmp_path / "audit.jsonl"
    with memory_folder() as folder:
        path = folder / "audit.jsonl"
        open_log(path).append(approved("kept"))
        before = path.read_bytes()
        open_log(path).append(approved("lost"))
        line = path.read_bytes()[len(before) :]
        for cut in range(1, len(line), 7):
            path.write_bytes(before + line[:cut])
            report = check(path)
            assert str(report.finding).startswith("line 3: torn: ")
            open_log(path)
            report = check(path)
            assert (report.finding, report.entries, report.healed) == (None, 3, (3,))
            event = AuditEntry.from_line(path.read_bytes()[len(before) :]).event
            assert event == Healed(
                removed_bytes=cut, removed_digest=hashlib.sha256(line[:cut]).digest()
            )


def test_a_last_line_that_lacks_only_its_line_break_is_completed(tmp_path):
    path = tmp_path / "audit.jsonl"
    open_log(path).append(approved())
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    open_log(path)
    assert path.read_bytes() == content


def test_zeros_that_a_power_cut_left_behind_the_last_line_are_healed(tmp_path):
    path = tmp_path / "audit.jsonl"
    open_log(path).append(approved())
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert open_log(path).append(approved()).number == 4
    assert check(path).healed == (3,)
    path.write_bytes(path.read_bytes() + bytes(3 * LARGEST_LINE))
    with pytest.raises(AuditError, match="without a line break, which no entry has"):
        open_log(path)


def test_a_crash_in_the_first_line_begins_the_log_anew(tmp_path):
    path = tmp_path / "audit.jsonl"
    open_log(path)
    path.write_bytes(path.read_bytes()[:50])
    assert open_log(path).head().number == 1
    assert check(path).finding is None


def test_a_healing_that_is_cut_off_itself_is_healed_again(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    open_log(path)
    path.write_bytes(path.read_bytes() + b"x" * 2000)
    monkeypatch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error")))
    with pytest.raises(AuditError, match="I/O error"):
        open_log(path)
    monkeypatch.undo()
    open_log(path)
    report = check(path)
    assert (report.finding, report.healed) == (None, (2, 3))


def test_a_full_disk_refuses_the_entry_and_leaves_the_log_whole(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    content = path.read_bytes()
    real = os.pwrite

    def half(file, data, offset):
        if offset > len(content):
            raise OSError(28, "No space left on device")
        return real(file, bytes(data[:100]), offset)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(AuditError, match=r"No space left on device.*nothing may happen unrecorded"):
        log.append(approved())
    monkeypatch.undo()
    assert path.read_bytes() == content
    assert log.append(approved()).number == 2


def test_a_log_cut_or_emptied_under_a_running_process_is_not_continued(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    log.append(approved())
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    with pytest.raises(AuditError, match="ends at entry 1, and entry 2 was written"):
        log.append(approved())
    path.write_bytes(b"")
    with pytest.raises(AuditError, match="it is empty"):
        log.head()
    path.unlink()
    with pytest.raises(AuditError, match="No such file"):
        log.append(approved())


def test_a_log_that_does_not_verify_at_its_end_or_is_anothers_is_not_continued(tmp_path):
    path = tmp_path / "audit.jsonl"
    open_log(path).append(approved())
    content = path.read_bytes()
    with pytest.raises(AuditError, match="signed by another key"):
        open_log(path, key=OTHER)
    with pytest.raises(AuditError, match="does not begin as the log of site-b"):
        open_log(path, owner="site-b")
    path.write_bytes(content.replace(b'"by":"dr"', b'"by":"xx"'))
    with pytest.raises(AuditError, match="signature of its last line does not verify"):
        open_log(path)
    path.write_bytes(content[: content.index(b"\n") + 1] + b"{}\n")
    with pytest.raises(AuditError, match="its last line is not an entry"):
        open_log(path)


def test_a_rotated_key_continues_the_log_and_the_old_one_no_longer_does(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    log.append(approved())
    rotate(log, KEY, OTHER)
    log = open_log(path, key=OTHER)
    log.head().verify("site-a", OTHER.public)
    log.append(approved())
    assert open_log(path, key=OTHER).append(approved()).number == 5
    with pytest.raises(AuditError, match="another key"):
        open_log(path, key=KEY)
    for trusted in (KEY, OTHER):  # whom one pinned at the beginning, or whom one knows today
        assert check(path, key=trusted).finding is None


def test_a_crash_between_a_rotation_and_the_next_line_leaves_both_keys_able_to_tell(tmp_path):
    path = tmp_path / "audit.jsonl"
    rotate(open_log(path), KEY, OTHER)
    assert open_log(path, key=OTHER).head().number == 2
    assert check(path, key=OTHER).finding is None


def test_an_entry_that_is_too_long_or_of_a_wrong_type_is_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    names = tuple(f"{number:0>64}" for number in range(1000))
    for make in (
        lambda: approved("s" * 1001),
        lambda: Approved(study="s", study_digest="00", approved=True, by="dr"),
        lambda: Healed(removed_bytes=-1, removed_digest=b""),
        lambda: Healed(removed_bytes=True, removed_digest=b""),
        lambda: Opened(owner=None, version=""),
    ):
        with pytest.raises(AuditError, match=r"audit event .*within its bound"):
            make()
    survivors = RoundClosed(
        study_digest=bytes(32),
        study_hash=bytes(32),
        round=1,
        purpose="training",
        survivors=names,
        model_digest=bytes(32),
        void=None,
    )
    assert log.append(survivors).number == 2  # a thousand sites of the longest names fit
    before = path.read_bytes()
    assert len(before) < LARGEST_LINE
    escaped = RoundClosed(**{**vars(survivors), "survivors": ("\N{GRINNING FACE}" * 64,) * 1000})
    with pytest.raises(AuditError, match="above the bound of 131072; record a digest instead"):
        log.append(escaped)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_said_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AuditError, match=r"cannot be written .*nothing may happen unrecorded"):
        open_log(tmp_path / "file" / "audit.jsonl")


@pytest.mark.parametrize("kind", sorted(audit_events._KINDS))
def test_every_kind_of_event_survives_the_log(kind):
    event = example(audit_events._KINDS[kind])
    assert event_from_plain(kind, event_to_plain(event)) == event
    plain = event_to_plain(event)
    with pytest.raises(AuditError, match="has other fields"):
        event_from_plain(kind, plain | {"more": 1})
    name = next(iter(plain))
    with pytest.raises(AuditError):
        event_from_plain(kind, plain | {name: {"not": "plain"}})


def example(kind: type[AuditEvent]) -> AuditEvent:
    values = {"int": 7, "str": "text", "bytes": b"\x00\xff", "bool": False, "float": 0.5}
    hints = get_type_hints(kind)
    fields = {
        name: values.get(
            getattr(hint, "__name__", ""), ("a", "b") if "tuple" in str(hint) else None
        )
        for name, hint in hints.items()
        if name != "kind"
    }
    return kind(**fields)


def test_a_kind_that_this_version_does_not_know_is_said_so():
    with pytest.raises(AuditError, match="'from-the-future' is not known to this version"):
        event_from_plain("from-the-future", {})
