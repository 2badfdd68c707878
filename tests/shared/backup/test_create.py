"""A backup is whole and private; a restore never forgets what was spent."""

import io
import json
import sqlite3
import stat
import tarfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consilium.shared.audit.check import check_log
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import Approved, Restored
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import read_lines
from consilium.shared.backup.create import MANIFEST, back_up
from consilium.shared.backup.restore import restore
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError, SettingsError

KEY = IdentityKey.from_seed(b"a" * 32)
NOW = datetime(2030, 1, 7, tzinfo=UTC)


def approved(log: AuditLog) -> AuditHead:
    return log.append(Approved(study="s", study_digest=bytes(32), approved=True, by="dr"))


def make_state(folder: Path) -> AuditLog:
    """A folder as a site's: keys, settings, an approval, a ledger in use, a log."""
    (folder / "approvals").mkdir(parents=True)
    (folder / "logs").mkdir()
    (folder / "identity.pem").write_bytes(KEY.to_pem())
    (folder / "policy.toml").write_text("# policy")
    (folder / "approvals" / "ab.offer").write_bytes(b"\x00\x01")
    (folder / "lock").touch()
    (folder / "logs" / "today.log").write_text("chatter")
    (folder / "link.pem").symlink_to("/etc/passwd")
    ledger = sqlite3.connect(folder / "ledger.sqlite")
    ledger.execute("PRAGMA journal_mode=WAL")
    ledger.execute("CREATE TABLE releases (round INTEGER)")
    ledger.executemany("INSERT INTO releases VALUES (?)", [(n,) for n in range(5)])
    ledger.commit()  # stays in the write-ahead log: no checkpoint, the connection stays open
    log = AuditLog(folder / "audit.jsonl", owner="a", key=KEY, version="0.1.0")
    approved(log)
    make_state.open = ledger
    return log


def save(folder: Path, archive: Path) -> object:
    return back_up(folder, archive, kind="site", owner="a", version="0.1.0", now=NOW)


def put_back(archive: Path, folder: Path, newest: AuditHead | None) -> object:
    heads = [] if newest is None else [newest]
    return restore(archive, folder, kind="site", version="0.1.0", newest=heads)


def content(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_what_was_backed_up_comes_back_and_the_log_says_so(tmp_path):
    log = make_state(tmp_path / "site")
    manifest = save(tmp_path / "site", tmp_path / "backup.tar")
    head = log.head()
    assert (manifest.entries, manifest.head) == (head.number, head.digest.hex())
    assert put_back(tmp_path / "backup.tar", tmp_path / "new", head) == manifest
    assert set(content(tmp_path / "new")) == {
        "identity.pem",
        "policy.toml",
        "approvals/ab.offer",
        "ledger.sqlite",
        "audit.jsonl",
    }
    rows = sqlite3.connect(tmp_path / "new" / "ledger.sqlite").execute("SELECT * FROM releases")
    assert rows.fetchall() == [(n,) for n in range(5)]
    report = check_log(
        tmp_path / "new" / "audit.jsonl", trusted=KEY.public, owner="a", anchors=[head]
    )
    assert (report.finding, report.entries) == (None, head.number + 1)
    *_, last = read_lines(tmp_path / "new" / "audit.jsonl")
    assert isinstance(AuditEntry.from_line(last).event, Restored)


def test_archive_and_restored_files_are_for_their_owner_only(tmp_path):
    log = make_state(tmp_path / "site")
    save(tmp_path / "site", tmp_path / "backup.tar")
    assert stat.S_IMODE((tmp_path / "backup.tar").stat().st_mode) == 0o600
    put_back(tmp_path / "backup.tar", tmp_path / "new", log.head())
    for path in (tmp_path / "new").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_ledger_older_than_what_the_coordinator_has_seen_is_refused(tmp_path):
    log = make_state(tmp_path / "site")
    save(tmp_path / "site", tmp_path / "backup.tar")
    later = approved(log)
    with pytest.raises(
        AuditError, match=r"ends at entry 2 .* seen entry 3; the ledger in it would"
    ):
        put_back(tmp_path / "backup.tar", tmp_path / "new", later)
    assert not (tmp_path / "new").exists()


def test_a_site_is_not_restored_without_the_coordinators_word(tmp_path):
    make_state(tmp_path / "site")
    save(tmp_path / "site", tmp_path / "backup.tar")
    with pytest.raises(
        AuditError, match=r"ask the operator for 'consilium-coordinator audit head a'"
    ):
        put_back(tmp_path / "backup.tar", tmp_path / "new", None)


def test_a_head_of_another_site_or_of_another_past_is_no_evidence(tmp_path):
    make_state(tmp_path / "site")
    save(tmp_path / "site", tmp_path / "backup.tar")
    other = IdentityKey.from_seed(b"b" * 32)
    strange = AuditHead.sign(other, owner="a", number=1, digest=bytes(32))
    with pytest.raises(AuditError, match="is not signed by its identity"):
        put_back(tmp_path / "backup.tar", tmp_path / "new", strange)
    forked = AuditHead.sign(KEY, owner="a", number=2, digest=bytes(32))
    with pytest.raises(AuditError, match="line 2: foreign head"):
        put_back(tmp_path / "backup.tar", tmp_path / "new", forked)


def test_a_folder_in_use_is_never_overwritten(tmp_path):
    log = make_state(tmp_path / "site")
    save(tmp_path / "site", tmp_path / "backup.tar")
    before = content(tmp_path / "site")
    with pytest.raises(SettingsError, match="is not empty; its state may be newer"):
        put_back(tmp_path / "backup.tar", tmp_path / "site", log.head())
    assert content(tmp_path / "site") == before
    (tmp_path / "empty").mkdir()
    put_back(tmp_path / "backup.tar", tmp_path / "empty", log.head())
    with pytest.raises(SettingsError, match="exists; choose another name"):
        save(tmp_path / "site", tmp_path / "backup.tar")


def test_a_coordinators_state_needs_no_head_and_is_not_taken_for_a_sites(tmp_path):
    make_state(tmp_path / "c")
    archive = tmp_path / "backup.tar"
    back_up(tmp_path / "c", archive, kind="coordinator", owner="a", version="0.1.0")
    with pytest.raises(SettingsError, match="holds a coordinator's state, not a site's"):
        put_back(archive, tmp_path / "new", None)
    restore(archive, tmp_path / "new", kind="coordinator", version="0.1.0", newest=())
    assert (tmp_path / "new" / "identity.pem").exists()


def test_any_damage_to_the_archive_is_seen_before_anything_is_put_back(tmp_path):
    log = make_state(tmp_path / "site")
    save(tmp_path / "site", tmp_path / "backup.tar")
    whole = (tmp_path / "backup.tar").read_bytes()
    with tarfile.open(tmp_path / "backup.tar") as tar:
        places = [m.offset_data + m.size // 2 for m in tar if m.size]
    damaged = tmp_path / "damaged.tar"
    for place in places:
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SettingsError, match="is damaged, cut off, or not a backup"):
            put_back(damaged, tmp_path / "new", log.head())
    for size in (0, 100, len(whole) // 2):
        damaged.write_bytes(whole[:size])
        with pytest.raises(SettingsError):
            put_back(damaged, tmp_path / "new", log.head())
    with pytest.raises(SettingsError, match="cannot be read"):
        put_back(tmp_path / "missing.tar", tmp_path / "new", log.head())
    assert not (tmp_path / "new").exists()
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def rewritten(archive: Path, target: Path, manifest: dict, more: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old:
            if member.name != MANIFEST:
                new.addfile(member, old.extractfile(member))
        for member in more:
            new.addfile(member, io.BytesIO(b"x" * member.size))
        text = json.dumps(manifest).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(text)
        new.addfile(info, io.BytesIO(text))
    return target


def test_an_archive_that_would_write_outside_the_folder_is_refused(tmp_path):
    log = make_state(tmp_path / "site")
    save(tmp_path / "site", tmp_path / "backup.tar")
    with tarfile.open(tmp_path / "backup.tar") as tar:
        manifest = json.loads(tar.extractfile(MANIFEST).read())
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    link = tarfile.TarInfo("policy2.toml")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for name, member in (
        ("../evil", tarfile.TarInfo("../evil")),
        ("/evil", tarfile.TarInfo("/evil")),
        ("policy2.toml", link),
        (None, tarfile.TarInfo("unlisted")),
    ):
        if member is not link:
            member.size = 1
        listed = {**manifest["files"], **({name: digest} if name else {})}
        target = rewritten(
            tmp_path / "backup.tar", tmp_path / "x.tar", {**manifest, "files": listed}, [member]
        )
        with pytest.raises(SettingsError, match="is damaged, cut off, or not a backup"):
            put_back(target, tmp_path / "new", log.head())
    for change in ({"format": 2}, {"files": {"": digest}}, {"more": 1}):
        target = rewritten(tmp_path / "backup.tar", tmp_path / "x.tar", {**manifest, **change}, [])
        with pytest.raises(SettingsError, match="is damaged, cut off, or not a backup"):
            put_back(target, tmp_path / "new", log.head())
    listed = {**manifest["files"], "missing.toml": digest}
    target = rewritten(
        tmp_path / "backup.tar", tmp_path / "x.tar", {**manifest, "files": listed}, []
    )
    with pytest.raises(SettingsError, match=r"missing\.toml is missing"):
        put_back(target, tmp_path / "new", log.head())


def test_a_damaged_database_or_log_in_a_backup_is_not_put_back(tmp_path):
    log = make_state(tmp_path / "site")
    (tmp_path / "site" / "other.sqlite").write_bytes(b"")
    make_state.open.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    make_state.open.close()
    ledger = tmp_path / "site" / "ledger.sqlite"
    damaged = bytearray(ledger.read_bytes())
    damaged[4096 + 3] = 0xFF
    damaged[4096 + 5 : 4096 + 7] = b"\xff\xff"
    ledger.write_bytes(damaged)
    save(tmp_path / "site", tmp_path / "backup.tar")
    with pytest.raises(SettingsError, match=r"ledger\.sqlite is damaged"):
        put_back(tmp_path / "backup.tar", tmp_path / "new", log.head())
    ledger.unlink()
    text = log.path.read_bytes()
    log.path.write_bytes(text.replace(b'"by":"dr"', b'"by":"xx"'))
    save(tmp_path / "site", tmp_path / "second.tar")
    first = AuditHead.sign(KEY, owner="a", number=1, digest=bytes(32))
    with pytest.raises(AuditError, match="does not verify"):
        put_back(tmp_path / "second.tar", tmp_path / "new", first)


def test_a_backup_taken_while_a_site_works_knows_at_least_what_its_log_says(tmp_path):
    log = make_state(tmp_path / "site")
    stop = threading.Event()

    def work() -> None:
        ledger = sqlite3.connect(tmp_path / "site" / "ledger.sqlite", timeout=30)
        count = 0
        while not stop.is_set():
            ledger.execute("INSERT INTO releases VALUES (?)", (100 + count,))
            ledger.commit()
            approved(log)
            count += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(5):
            manifest = save(tmp_path / "site", tmp_path / f"{number}.tar")
            with tarfile.open(tmp_path / f"{number}.tar") as tar:
                tar.extract("ledger.sqlite", tmp_path / str(number), filter="data")
            copied = sqlite3.connect(tmp_path / str(number) / "ledger.sqlite")
            (charged,) = copied.execute(
                "SELECT count(*) FROM releases WHERE round >= 100"
            ).fetchone()
            assert charged - (manifest.entries - 2) in (0, 1)  # reserved first, then recorded
    finally:
        stop.set()
        worker.join()


def test_what_may_forget_is_put_back_only_once_it_has_been_closed(tmp_path):
    log = make_state(tmp_path / "site")
    save(tmp_path / "site", tmp_path / "backup.tar")
    approved(log)
    how = {"kind": "site", "version": "0.1.0", "newest": [log.head()]}

    def fails(_: Path) -> None:
        raise SettingsError("cannot be closed")

    with pytest.raises(SettingsError, match="cannot be closed"):
        restore(tmp_path / "backup.tar", tmp_path / "new", **how, close=fails)
    assert not (tmp_path / "new").exists()
    restore(
        tmp_path / "backup.tar",
        tmp_path / "new",
        **how,
        close=lambda place: (place / "policy.toml").write_text("# closed"),
    )
    assert (tmp_path / "new" / "policy.toml").read_text() == "# closed"


def test_places_that_cannot_be_used_are_one_sentence(tmp_path):
    make_state(tmp_path / "site")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="could not be made"):
        save(tmp_path / "site", tmp_path / "file" / "backup.tar")
