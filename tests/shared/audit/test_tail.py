"""A log is read on from where reading stopped, whatever happened to its files."""

import pytest

from consilium.shared.audit.events import Acted
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.tail import AuditTail
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError


@pytest.fixture
def log(tmp_path):
    key = IdentityKey.from_seed(b"t" * 32)
    return AuditLog(tmp_path / "audit.jsonl", owner="c", key=key, version="0.1.0")


def add(log, *names):
    log.append(*(Acted(by="x", act=name, subject="") for name in names))


def acts(entries):
    return [entry.event.act for entry in entries if isinstance(entry.event, Acted)]


def test_each_entry_is_read_once_through_sealing_and_stops(log):
    tail = AuditTail(log.path)
    add(log, "a", "b")
    assert acts(tail.read()) == ["a", "b"]
    add(log, "c")
    log.seal(by="x")
    add(log, "d")
    log.seal(by="x")
    add(log, "e", "f")
    reading = tail.read()
    assert next(reading).event.act == "c"  # and stops there
    reading.close()
    assert acts(tail.read()) == ["d", "e", "f"]
    assert acts(tail.read()) == []
    assert acts(AuditTail(log.path).read()) == ["a", "b", "c", "d", "e", "f"]


def test_a_torn_line_is_read_once_it_is_whole_and_a_log_put_back_is_read_anew(log):
    tail = AuditTail(log.path)
    add(log, "a")
    whole = log.path.read_bytes()
    add(log, "b")
    torn = log.path.read_bytes()
    log.path.write_bytes(torn[:-5])
    assert acts(tail.read()) == ["a"]
    log.path.write_bytes(torn)
    assert acts(tail.read()) == ["b"]
    log.path.write_bytes(whole)
    assert acts(tail.read()) == ["a"]
    log.path.unlink()
    with pytest.raises(AuditError, match="cannot be read"):
        list(tail.read())
