"""What a site's log says of its releases; heads of a log at any entry, and the newest of a peer."""

from pathlib import Path

import pytest

from consilium.shared.audit.entry import line_digest
from consilium.shared.audit.events import Approved, Charged, OwnPartGivenUp, Released
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import newest_heads, read_lines
from consilium.shared.audit.site_record import read_site_record
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError

KEY, PEER = IdentityKey.from_seed(b"a" * 32), IdentityKey.from_seed(b"p" * 32)
RUN, OTHER = b"r" * 32, b"o" * 32


def log_at(path: Path) -> AuditLog:
    return AuditLog(path, owner="a", key=KEY, version="0.1.0")


def released(round: int, run: bytes = RUN) -> Released:
    return Released(
        study_digest=bytes(32),
        study_hash=run,
        round=round,
        purpose="training",
        message_digest=bytes(32),
        epsilon=1.0,
        delta=1e-5,
    )


def charged(round: int, own_part: bytes = b"", run: bytes = RUN) -> Charged:
    return Charged(
        study="s",
        study_digest=bytes(32),
        study_hash=run,
        round=round,
        study_epsilon=8.0,
        study_delta=1e-5,
        charges="[]",
        own_part=own_part,
    )


def test_a_release_has_the_cost_recorded_on_the_line_before_and_no_other(tmp_path):
    log = log_at(tmp_path / "audit.jsonl")
    log.append(charged(1), released(1), released(2), charged(3), released(4))
    log.append(charged(1, run=OTHER), released(1))
    record = read_site_record(log.path, [3, 99])
    assert [(one.number, one.charged) for one in record.releases] == [
        (3, charged(1)), (4, None), (6, None), (8, None)
    ]  # fmt: skip
    assert record.rounds == {RUN: 4}
    lines = list(read_lines(log.path))
    assert (record.entries, record.digests) == (8, {3: line_digest(lines[2])})
    assert record.own_parts == {}


def test_the_own_part_is_that_of_the_last_release_until_it_is_given_up(tmp_path):
    log = log_at(tmp_path / "audit.jsonl")
    log.append(charged(1, b"one"), released(1), charged(2, b"two"), released(2))
    log.append(charged(3, b"never released"))
    assert read_site_record(log.path).own_parts == {RUN: charged(2, b"two")}
    log.append(OwnPartGivenUp(study_digest=bytes(32), study_hash=RUN, own_part=b"two"))
    assert read_site_record(log.path).own_parts == {}
    with log.path.open("ab") as file:
        file.write(b"noise\n")
    assert read_site_record(log.path).entries == 7


def test_the_head_at_an_entry_is_the_one_the_log_had_then(tmp_path):
    log = log_at(tmp_path / "audit.jsonl")
    heads = [log.append(released(round)) for round in range(1, 5)]
    for head in heads:
        assert log.head_at(head.number) == head
    assert log.head_at(heads[-1].number + 1) is None
    assert log.head_at(1).number == 1
    assert log.head_at(0) is None


def test_the_newest_head_of_a_peer_is_the_newest_that_it_signed(tmp_path):
    log = log_at(tmp_path / "audit.jsonl")
    heads = [AuditHead.sign(PEER, owner="p", number=n, digest=bytes([n]) * 32) for n in (3, 9, 5)]
    forged = AuditHead.sign(KEY, owner="p", number=12, digest=bytes(32))
    strange = AuditHead.sign(PEER, owner="q", number=7, digest=bytes(32))
    for head in [*heads, forged, strange]:
        log.append(head.as_event(RUN))
    log.append(Approved(study="s", study_digest=bytes(32), approved=True, by="dr"))
    with log.path.open("ab") as file:
        file.write(b"noise\n")
    assert newest_heads(log.path, {"p": PEER.public, "n": KEY.public}) == {"p": heads[1]}
    assert newest_heads(log.path, {"p": bytes(32)}) == {}
    with pytest.raises(AuditError, match="cannot be read"):
        newest_heads(tmp_path / "none.jsonl", {})
