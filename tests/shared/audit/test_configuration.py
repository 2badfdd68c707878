"""A changed policy leaves a trace in the log, once."""

import hashlib

from consilium.shared.audit.configuration import NO_FILE, note_configuration
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import ConfigurationChanged
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import read_lines
from consilium.shared.crypto.keys import IdentityKey

FILES = ("site.toml", "policy.toml")


def test_each_change_of_a_file_is_recorded_once_also_over_restarts(tmp_path):
    def start() -> tuple[str, ...]:
        key = IdentityKey.from_seed(b"a" * 32)
        log = AuditLog(tmp_path / "audit.jsonl", owner="a", key=key, version="0.1.0")
        return note_configuration(log, tmp_path, FILES)

    assert start() == ()
    (tmp_path / "policy.toml").write_text("one")
    assert start() == ("policy.toml",)
    assert start() == ()
    (tmp_path / "policy.toml").write_text("two")
    (tmp_path / "site.toml").write_text("new")
    assert start() == FILES
    (tmp_path / "policy.toml").unlink()
    assert start() == ("policy.toml",)
    events = [AuditEntry.from_line(line).event for line in read_lines(tmp_path / "audit.jsonl")]
    of_policy = [e for e in events if isinstance(e, ConfigurationChanged) and e.file == FILES[1]]
    one, two = (hashlib.sha256(text).digest() for text in (b"one", b"two"))
    assert [(e.before, e.after) for e in of_policy] == [
        (NO_FILE, one),
        (one, two),
        (two, NO_FILE),
    ]


def test_lines_that_are_no_entries_do_not_stop_it(tmp_path):
    key = IdentityKey.from_seed(b"a" * 32)
    log = AuditLog(tmp_path / "audit.jsonl", owner="a", key=key, version="0.1.0")
    content = log.path.read_bytes()
    log.path.write_bytes(b"noise\n" + content)
    assert note_configuration(log, tmp_path, ()) == ()
