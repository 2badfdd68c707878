"""What a careful operator looks for: who did it, counted strangers, names, years, archives."""

import os
import tarfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consilium.server.cli import app
from consilium.server.coordinator.acts import note_act
from consilium.server.coordinator.certificates import AUTHORITY_DAYS, issue_server_certificate
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.coordinator.register import State
from consilium.server.flower.gate import MOST_COUNTED, RefusalCount
from consilium.server.service.archive import archive_study
from consilium.server.service.overview import names_of, rounds_so_far, waiting_lines
from consilium.server.study.checkpoints import begin
from consilium.shared.audit.events import Acted, AuditEvent, RefusedOften, Sealed
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.own_log import open_audit
from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import AuditError, ConsiliumError, SettingsError
from consilium.shared.service.command_line import command_of
from tests.client.service.test_study_sessions import KEYS, ROSTER, STUDY, TEXT
from tests.deployment.ledgers import events


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    settings = Settings(name="c", host="localhost", port=1)
    made = CoordinatorFolder.make(tmp_path / "coordinator", settings, ("localhost",))
    open_audit(made)
    return made


def run(folder: CoordinatorFolder, *words: str) -> None:
    command_of(app)([*words, "--folder", str(folder.path)], standalone_mode=False)


def recorded(folder: CoordinatorFolder, kind: type[AuditEvent]) -> list[Any]:
    return [event for event in events(folder.path / "audit.jsonl") if isinstance(event, kind)]


def test_every_command_that_changes_something_takes_the_operators_name() -> None:
    commands = command_of(app).commands
    changing = {"invite", "submit", "pause", "resume", "stop", "revoke", "rotate-keys", "export",
                "backup", "archive"}  # fmt: skip
    assert changing <= set(commands)
    options = {name: {o for p in commands[name].params for o in p.opts} for name in commands}
    assert all("--as" in options[name] for name in changing)


def test_who_did_it_stands_in_the_log_before_it_is_done(
    folder: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ops")
    run(folder, "invite", "north", "--as", "Dr. Grün")
    run(folder, "rotate-keys")
    monkeypatch.setenv("CONSILIUM_OPERATOR", "Rot")
    run(folder, "backup", str(tmp_path / "a.tar"))
    run(folder, "audit", "rotate")
    with pytest.raises(SettingsError, match="north is not enrolled"):
        run(folder, "revoke", "north")  # tried, and so it stands there
    acts = [(event.by, event.act, event.subject) for event in recorded(folder, Acted)]
    assert acts == [
        ("Dr. Grün (account ops)", "invite", "north"),
        ("ops", "rotate-keys", ""),
        ("Rot (account ops)", "backup", ""),
        ("Rot (account ops)", "rotate", ""),
        ("Rot (account ops)", "revoke", "north"),
    ]
    assert [event.by for event in recorded(folder, Sealed)] == ["Rot"]
    with pytest.raises(SettingsError, match="--as: a name has at most"):
        note_act(folder, "revoke", "north", by="x\n")


class Log:
    """An audit log that can be full."""

    def __init__(self) -> None:
        self.full, self.held = False, list[RefusedOften]()

    def append(self, event: RefusedOften) -> None:
        if self.full:
            raise AuditError("full")
        self.held.append(event)


def test_a_thousand_strangers_are_one_line_and_none_goes_uncounted() -> None:
    log: Any = Log()
    count = RefusalCount(log, every_s=3600)
    threads = [
        threading.Thread(target=lambda: [count.add("10.0.0.1", "401", "/x: no") for _ in range(99)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2 * MOST_COUNTED):
        count.add(f"10.1.{number}.1", "404", "/y: nothing")
    log.full = True
    count.write()
    log.full = False
    count.add("10.0.0.1", "401", "/x: no")
    count.write()
    count.write()
    [line] = log.held
    assert line.refusals == 4 * 99 + 2 * MOST_COUNTED + 1
    assert line.codes == (f"404 x{2 * MOST_COUNTED}", f"401 x{4 * 99 + 1}")
    assert sum(int(peer.rpartition("x")[2]) for peer in line.peers) == line.refusals
    assert "10.0.0.1 x397" in line.peers


def test_an_authority_that_has_ended_signs_nothing_and_says_so(folder: CoordinatorFolder) -> None:
    late = datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS + 2)
    with pytest.raises(SettingsError, match=r"certificate authority ended .* after 10 years"):
        issue_server_certificate(folder.certificates, ("localhost",), now=late)
    near = late - timedelta(days=30)
    issue_server_certificate(folder.certificates, ("localhost",), now=near)
    assert folder.certificates.expires() > near


def test_studies_of_one_name_are_told_apart_and_each_waiting_site_has_a_line() -> None:
    studies = [{"study": n, "digest": d * 32} for n, d in (("a", "01"), ("a", "02"), ("b", "03"))]
    assert names_of(studies) == {
        "01" * 32: f"a ({'01' * 8})",
        "02" * 32: f"a ({'02' * 8})",
        "03" * 32: "b",
    }
    detail = "waiting for east: not there; north: the policy; ask the hospital [x]; south: no"
    assert waiting_lines(detail, ["east", "north", "south"]) == [
        "waiting for east: not there",
        "north: the policy; ask the hospital [x]",
        "south: no",
    ]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (None, "-"),
        ({"round": 401, "trained": 400}, "400 of 400"),
        ({"round": 401}, "400 of 400"),  # a record of an older build
        ({"round": 1, "trained": 0}, "0 of 400"),
    ],
)
def test_a_finished_study_of_400_rounds_says_400(last: dict[str, int] | None, said: str) -> None:
    assert rounds_so_far({"last_round": last, "rounds": 400}) == said


def test_a_study_that_comes_through_a_pipe_is_offered_as_it_was_read(
    folder: CoordinatorFolder,
) -> None:
    for number, (site, key) in enumerate(KEYS.items()):
        folder.register().enrol(site, identity=key.public, node_key=site.encode(), node_id=number,
                                version="0", now=0.0)  # fmt: skip
    reading, writing = os.pipe()
    try:
        os.write(writing, TEXT.encode())
        os.close(writing)
        run(folder, "submit", f"/dev/fd/{reading}")
    finally:
        os.close(reading)
    assert folder.register().study(STUDY.name).text == TEXT.encode()


def test_an_ended_study_is_archived_whole_and_its_bulk_removed(
    folder: CoordinatorFolder, tmp_path: Path
) -> None:
    register = folder.register()
    register.submit(
        digest=STUDY.digest,
        name=STUDY.name,
        text=TEXT.encode(),
        roster=Roster(ROSTER.members),
        signature=b"",
        now=0.0,
    )
    place = folder.study(STUDY.digest)
    begin(place, STUDY)
    (place / "rounds.jsonl").write_text("{}\n")
    file = tmp_path / "one.tar"
    with pytest.raises(ConsiliumError, match="archive it once it has ended"):
        archive_study(folder, register.study(STUDY.name), file)
    register.note(STUDY.digest, State.FINISHED)
    made = archive_study(folder, register.study(STUDY.name), file)
    assert made.freed > 0
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        assert set(tar.getnames()) == {
            "study.toml", "roster.json", "audit.jsonl", "rounds.jsonl", "checkpoint.safetensors",
        }  # fmt: skip
        assert tar.extractfile("study.toml").read() == TEXT.encode()
    assert not (place / "checkpoint.safetensors").exists()
    assert (place / "rounds.jsonl").exists()
    with pytest.raises(ConsiliumError, match="was archived before"):
        archive_study(folder, register.study(STUDY.name), tmp_path / "two.tar")
    with pytest.raises(ConsiliumError, match="was archived; put the checkpoint"):
        run(folder, "export", STUDY.name, "--out", str(tmp_path / "out"))
    assert isinstance(open_audit(folder), AuditLog)
