"""A full disk: reading goes on, other commands end in a sentence, sites are asked to try again."""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consilium.client.cli import app as site
from consilium.client.ledger.store import Ledger
from consilium.server.cli import app as coordinator
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.coordinator.register import Register
from consilium.server.flower.gate import RETRY_AFTER_S, Gate
from consilium.shared.audit.own_log import open_audit
from consilium.shared.enrolment.messages import ENROL_PATH
from consilium.shared.errors import ConsiliumError, PrivacyError, SettingsError
from consilium.shared.files.sqlite_transaction import transaction
from consilium.shared.service.command_line import run_command
from tests.client.ledger.test_store import release


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this account may not mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Fill the disk to its last byte."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, app: Any, *words: str
) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["command", *words])
    with pytest.raises(SystemExit) as ended:
        run_command(app, name="command")
    told = capsys.readouterr()
    return int(ended.value.code or 0), " ".join((told.out + told.err).split())


def test_the_first_error_of_a_transaction_is_the_one_that_is_told(tmp_path: Path) -> None:
    told: list[str] = []

    def unusable(error: sqlite3.Error) -> ConsiliumError:
        told.append(str(error))
        return SettingsError(str(error))

    file = tmp_path / "a.sqlite"
    with transaction(file, wait_s=1, unusable=unusable) as connection:
        connection.execute("CREATE TABLE a (b BLOB)")

    def write() -> None:
        with transaction(file, wait_s=1, unusable=unusable) as connection:
            connection.execute("PRAGMA max_page_count = 2")
            connection.execute("INSERT INTO a VALUES (zeroblob(100000))")

    with pytest.raises(SettingsError, match="database or disk is full"):
        write()
    assert told == ["database or disk is full"]
    with transaction(file, wait_s=1, unusable=unusable) as connection:
        assert connection.execute("SELECT COUNT(*) FROM a").fetchone() == (0,)


def test_with_a_full_disk_what_only_reads_goes_on_and_what_writes_ends_in_one_sentence(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    place = disk / "coordinator"
    made = CoordinatorFolder.make(place, Settings(name="c", host="localhost", port=1), ("a.org",))
    open_audit(made)
    made.register().invite("north", b"s" * 32, expires=4e9)
    filler = fill(disk)
    for command in ("status", "watch"):
        status, told = said(monkeypatch, capsys, coordinator, command, "--folder", str(place))
        assert status == 0, told
    status, told = said(monkeypatch, capsys, coordinator, "invite", "x", "--folder", str(place))
    assert status == 1
    assert "full" in told or "No space" in told
    assert "rollback" not in told
    assert "free" in told
    filler.unlink()
    assert said(monkeypatch, capsys, coordinator, "invite", "x", "--folder", str(place))[0] == 0


def test_a_ledger_on_a_full_disk_charges_nothing_forgets_nothing_and_goes_on(disk: Path) -> None:
    def reserve(number: int) -> None:
        ledger.reserve(release(number), study_epsilon=8.0, study_delta=1e-5)

    ledger = Ledger(disk / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
    reserve(1)
    before = ledger.summary()
    filler = fill(disk)
    with pytest.raises(PrivacyError, match="full"):
        any(map(reserve, range(2, 200)))
    while_full = Ledger(disk / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5).summary()
    assert while_full.total.reserved >= before.total.reserved
    filler.unlink()
    reserve(200)
    assert ledger.summary().total.reserved > while_full.total.reserved


def test_on_a_full_disk_the_gate_asks_sites_to_try_again_and_names_no_path(tmp_path: Path) -> None:
    def unusable(error: Exception) -> Callable[[bytes], bytes]:
        def enrol(_: bytes) -> bytes:
            raise error

        return enrol

    register = Register(tmp_path / "register.sqlite")
    full = sqlite3.OperationalError("database or disk is full")
    taken = SettingsError("another site enrolled with one of these keys")
    taken.__context__, taken.__suppress_context__ = sqlite3.IntegrityError("UNIQUE"), True
    wrapped = register._unusable(full)
    wrapped.__cause__ = full
    cases = {
        wrapped: 507,
        OSError(28, "No space left on device", "/srv/coordinator/x"): 507,
        sqlite3.OperationalError("unable to open database file"): 503,
        SettingsError("site north is enrolled already"): 403,
        taken: 403,
    }
    for error, status in cases.items():
        answer = asyncio.run(_answered(unusable(error)))
        assert answer[0]["status"] == status
        headers = dict(answer[0]["headers"])
        told = json.loads(answer[1]["body"])["error"]
        assert "/srv" not in told
        assert str(tmp_path) not in told
        if status >= 500:
            assert headers[b"retry-after"] == str(RETRY_AFTER_S).encode()
            assert "try again" in told
    with pytest.raises(ValueError, match="defect"):
        asyncio.run(_answered(unusable(ValueError("defect"))))


async def _answered(enrol: Callable[[bytes], bytes]) -> list[dict[str, Any]]:
    class Enrolment:
        pass

    class Audit:
        def append(self, *_: object) -> None:
            pass

    enrolment = Enrolment()
    enrolment.enrol = enrol  # type: ignore[attr-defined]
    nothing: Any = None
    gate = Gate(
        nothing, enrolment=enrolment, keys=nothing, mail=nothing, bundles=nothing, audit=Audit()
    )
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "POST", "path": ENROL_PATH, "headers": []}
    await gate(scope, receive, send)
    return sent


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_standard_output_that_takes_nothing_ends_in_one_sentence(tmp_path: Path) -> None:
    for package, words in {"client": ["--help"], "simulations": ["--help"]}.items():
        with Path("/dev/full").open("w") as nowhere:
            done = subprocess.run(
                [sys.executable, "-m", f"consilium.{package}", *words],
                stdout=nowhere,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                env=os.environ | {"COLUMNS": "200"},
            )
        assert done.returncode == 1
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "No space left on device" in done.stderr
    del tmp_path


def test_a_folder_that_cannot_be_written_ends_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    status, told = said(monkeypatch, capsys, site, "init", "--folder", str(file / "site"))
    assert status == 1
    assert "Traceback" not in told
    assert str(file) in told
