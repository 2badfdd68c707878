"""What a careful hospital looks for: ledger, names, rights of files, its card, clock, support."""

import errno
import io
import json
import logging
import os
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from consilium.client.cli import app
from consilium.client.commands import recovery
from consilium.client.hospital.folder import LOG_NAME, SiteFolder
from consilium.client.ledger.store import Ledger
from consilium.client.round.answer import Answer
from consilium.client.service.connection import Connection
from consilium.client.service.last_refusal import write_last_refusal
from consilium.client.service.support import support_bundle, to_text
from consilium.client.service.systemd_unit import write_unit
from consilium.server.coordinator.certificates import CertificateFiles, make_authority
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuthenticationError, DataError, SettingsError
from consilium.shared.export.signed_model import write_signed_model
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.secure_sum.messages import Action, Refusal
from consilium.shared.service.command_line import command_of
from consilium.shared.service.log_file import KEPT, LogFileHandler, templates
from tests.signed_models import some_trained
from tests.study_text import small_study

MARK = "Kennmarke4711"


def run(*words: str) -> None:
    command_of(app)([*words], standalone_mode=False)


def test_the_ledger_is_found_without_a_file_and_has_the_policys_bounds(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    site = SiteFolder.make(tmp_path / "site")
    with pytest.raises(SettingsError, match="made with the site's first round"):
        run("ledger", "--folder", str(site.path))
    (site.path / "policy.toml").write_text("[privacy]\nlifetime_epsilon = 9.0\n")
    Ledger(site.path / "ledger.sqlite", lifetime_epsilon=9.0, delta=1e-5)
    for words in (["--folder", str(site.path)], [str(site.path / "ledger.sqlite")]):
        run("ledger", "--json", *words)
        assert json.loads(capsys.readouterr().out)["total"]["bound"] == 9.0
    run("ledger", "--json", "--folder", str(site.path), "--lifetime-epsilon", "3")
    assert json.loads(capsys.readouterr().out)["total"]["bound"] == 3.0


@pytest.mark.parametrize("name", ["../x", "", "North", "a_b", "x" * 65, "a\nb", 'a"b'])
def test_a_name_that_no_coordinator_could_invite_makes_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="must be 1 to 64 lower-case letters"):
        run("init", "--site", name, "--folder", str(tmp_path / "site"))
    assert not (tmp_path / "site").exists()


class Full(io.StringIO):
    """A standard output whose disk takes nothing more."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_recovery_code_that_could_not_be_shown_is_none_and_another_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    with monkeypatch.context() as here:
        here.setattr(recovery.console, "_file", Full())
        with pytest.raises(OSError, match="No space left"):
            run("init", "--folder", str(site))
    assert SiteFolder.open(site).recovery_keys() is None
    capsys.readouterr()
    run("init", "--folder", str(site))
    assert "Recovery code, shown only now" in capsys.readouterr().out
    assert SiteFolder.open(site).recovery_keys() is not None
    run("init", "--folder", str(site))
    assert "Recovery code" not in capsys.readouterr().out


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o027, 0o640)])
def test_results_have_the_rights_that_the_umask_leaves(
    tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "result", b"x")
        write_atomically(tmp_path / "secret", b"x", mode=0o600)
        write_signed_model(tmp_path / "model", some_trained(small_study()), IdentityKey.generate(),
                           simulated=True, rounds=1, epsilon=None)  # fmt: skip
    finally:
        os.umask(before)
    assert (tmp_path / "result").stat().st_mode & 0o777 == mode
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755 & ~mask


def test_the_sites_unit_shows_the_card_that_a_policy_may_allow_and_no_other_device(
    tmp_path: Path,
) -> None:
    unit = write_unit(tmp_path, user="consilium").read_text()
    assert "PrivateDevices" not in re.sub(r"^#.*$", "", unit, flags=re.M)
    assert "DevicePolicy=closed" in unit
    assert "DeviceAllow=char-nvidia rw" in unit


class Coordinator:
    """Accepts requests signed within five minutes of its own clock, two hours behind the site's."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        now = datetime.now(UTC) - timedelta(hours=2)
        signed = datetime.fromisoformat(request.headers["flwr-timestamp"])
        self.asked.append(request.url.path)
        right = abs((now - signed).total_seconds()) < 300
        headers = {"date": format_datetime(now, usegmt=True)}
        return httpx.Response(
            200 if right else 401, headers=headers, stream=httpx.ByteStream(b"ok")
        )


def line_to(transport: Any, tmp_path: Path) -> Connection:
    files = CertificateFiles.under(tmp_path)
    make_authority(files, name="c")
    key = SiteFolder.make(tmp_path / "site").node_key()
    line = Connection("a.org", 1, files.authority_der(), key)
    line._http = httpx.Client(
        transport=httpx.MockTransport(transport), base_url="https://a.org:1", timeout=5
    )
    return line


def test_a_clock_two_hours_off_is_learnt_from_the_refusal_and_the_request_signed_again(
    tmp_path: Path,
) -> None:
    coordinator = Coordinator()
    line = line_to(coordinator, tmp_path)
    assert line.post("/studies", b"") == b"ok"
    assert coordinator.asked == ["/studies"] * 2
    assert line.post("/studies", b"") == b"ok"
    assert len(coordinator.asked) == 3  # from now on it is right at once
    assert abs(line.clock_ahead_s - 7200) < 5


def test_a_site_that_is_not_accepted_asks_once_and_says_so(tmp_path: Path) -> None:
    asked = []

    def never(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(401, stream=httpx.ByteStream(b"revoked"))

    with pytest.raises(AuthenticationError) as caught:
        line_to(never, tmp_path).post("/studies", b"")
    assert len(asked) == 1
    assert caught.value.case == "not-accepted"


def test_the_log_file_is_private_bounded_and_hands_on_only_what_stands_in_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilium.shared.service.log_file.LARGEST_BYTES", 2000)
    handler = LogFileHandler(tmp_path, LOG_NAME)
    log, other = logging.getLogger("consilium.client.test"), logging.getLogger("flwr.test")
    log.addHandler(handler)
    other.addHandler(handler)
    try:
        other.warning("of a library: " + MARK)
        for _ in range(40):
            log.warning("%s refused %s: %s", "a", "update", DataError(f"{MARK}: unknown unit"))
        try:
            raise ValueError(MARK)
        except ValueError:
            log.exception("failed on %s", MARK)
    finally:
        log.removeHandler(handler)
        other.removeHandler(handler)
        handler.close()
    files = list((tmp_path / "logs").iterdir())
    assert 1 < len(files) <= 1 + KEPT
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    kept = templates(tmp_path, LOG_NAME, 100)
    assert kept[-1]["template"] == "failed on %s"
    assert kept[-1]["exception"]["kind"] == "ValueError"
    assert kept[-2]["kinds"] == ["DataError"]
    assert MARK not in json.dumps(kept)


def test_the_support_bundle_is_shown_private_and_has_codes_and_no_path_setting_or_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    site = SiteFolder.make(tmp_path / MARK)
    (site.path / "site.toml").write_text(
        f'site = "north"\n[data]\nsource = "tables"\n[data.stays]\nfile = "{MARK}.csv"\n'
        f'patient = "{MARK}"\n[[data.events]]\nfile = "{MARK}.csv"\n'
    )
    refusal = Refusal(site="north", code="UnableError", sentence="x")
    answer = Answer(body=b"", refusal=refusal, reason=f"{MARK}.csv: unit {MARK} is unknown")
    write_last_refusal(site.path, Action.CHANNEL, answer)
    bundle = support_bundle(site)
    text = to_text(bundle)
    assert json.loads(text) == bundle
    assert MARK not in text
    assert str(tmp_path) not in text
    assert bundle["last_refusal"]["code"] == "UnableError"
    failed = {test["test"]: test.get("code") for test in bundle["preflight"] if not test["ok"]}
    assert failed["enrolment"] == "SettingsError"
    file = tmp_path / "support.json"
    run("support", str(file), "--yes", "--folder", str(site.path))
    shown = capsys.readouterr().out
    assert '"code": "UnableError"' in shown
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsError, match="nothing is overwritten"):
        run("support", str(file), "--yes", "--folder", str(site.path))
