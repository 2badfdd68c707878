"""What a site knows of the others' logs: the newest head of each, within a study, for good."""

from pathlib import Path

import pytest

from consilium.client.hospital.peer_heads import PeerHeads
from consilium.shared.audit.heads import AuditHead
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError

KEY, OTHER = IdentityKey.from_seed(b"k" * 32), IdentityKey.from_seed(b"l" * 32)
ONE, TWO = b"1" * 32, b"2" * 32


def head(number: int, key: IdentityKey = KEY) -> AuditHead:
    return AuditHead.sign(key, owner="north", number=number, digest=bytes(32))


def heads(folder: Path) -> PeerHeads:
    return PeerHeads(folder / "heads.sqlite")


def test_the_newest_head_is_kept_within_a_study_also_after_a_restart(tmp_path) -> None:
    heads(tmp_path).note(ONE, {KEY.public: head(5)})
    heads(tmp_path).note(ONE, {KEY.public: head(4)})
    heads(tmp_path).note(TWO, {KEY.public: head(3), OTHER.public: head(2, OTHER)})
    again = heads(tmp_path)
    assert again.least(ONE) == {KEY.public: 5}
    assert again.least(TWO) == {KEY.public: 3, OTHER.public: 2}
    assert again.newest(KEY.public) == head(5)
    assert again.newest(b"?" * 32) is None
    assert set(map(repr, again.newest_of("north"))) == {repr(head(5))}
    assert [kept.number for kept in again.newest_of("north")] == [2, 5]
    assert again.newest_of("south") == []
    assert (tmp_path / "heads.sqlite").stat().st_mode & 0o777 == 0o600


def test_after_a_release_only_a_newer_head_will_do_however_often_it_is_told(tmp_path) -> None:
    kept = heads(tmp_path)
    kept.note(ONE, {KEY.public: head(5)})
    kept.released(ONE, [KEY.public, OTHER.public])
    kept.released(ONE, [KEY.public])
    assert kept.least(ONE) == {KEY.public: 6}
    kept.note(ONE, {KEY.public: head(5)})
    assert kept.least(ONE) == {KEY.public: 6}
    kept.note(ONE, {KEY.public: head(8)})
    assert kept.least(ONE) == {KEY.public: 8}


def test_a_file_that_cannot_be_used_is_told_in_one_sentence(tmp_path) -> None:
    (tmp_path / "heads.sqlite").write_bytes(b"no database" * 99)
    with pytest.raises(AuditError, match="no round is answered without them"):
        heads(tmp_path)
    with pytest.raises(AuditError, match="cannot be used"):
        heads(tmp_path / "nowhere")
