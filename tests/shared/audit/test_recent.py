"""The latest entries of a log, for pages."""

from pathlib import Path

from consilium.shared.audit.events import Revoked
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.recent import recent_entries
from consilium.shared.crypto.keys import IdentityKey


def test_the_latest_entries_come_first_and_what_is_no_entry_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    assert recent_entries(file, 5) == []
    key = IdentityKey.from_seed(bytes(32))
    log = AuditLog(file, owner="coordinator", key=key, version="0")
    for site in ("a", "b", "c"):
        log.append(Revoked(site=site, reason=""))
    with file.open("ab") as end:
        end.write(b"torn")
    assert [one.number for one in recent_entries(file, 2)] == [4, 3]
    assert [one.number for one in recent_entries(file, 9)] == [4, 3, 2, 1]
