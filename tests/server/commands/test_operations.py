"""What an operator types: status, audit verify and head, backup, restore."""

import json
import time

import pytest
from typer.testing import CliRunner

from consilium.server.cli import app
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.coordinator.round_records import last_record
from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.events import Refused
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.own_log import open_audit
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError, SettingsError

SITE = IdentityKey.from_seed(b"s" * 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> CoordinatorFolder:
    path = tmp_path_factory.mktemp("operator") / "coordinator"
    settings = Settings(name="c", host="localhost", port=9092, listen="127.0.0.1")
    folder = CoordinatorFolder.make(path, settings, ("localhost",))
    folder.register().invite("north", b"secret", expires=time.time() + 3600)
    folder.register().enrol(
        "north", identity=SITE.public, node_key=b"k", node_id=1, version="0.1.0", now=time.time()
    )
    folder.register().invite("east", b"secret", expires=time.time() + 3600)
    folder.register().enrol(
        "east", identity=bytes(32), node_key=b"l", node_id=2, version="0.1.0", now=time.time()
    )
    log = open_audit(folder)
    log.append(Refused(peer="10.0.0.1", asked="enrol", code="401", sentence="no such token"))
    site = AuditLog(path.parent / "north.jsonl", owner="north", key=SITE, version="0.1.0")
    anchors = Anchors(site)
    identities = {"north": SITE.public, "coordinator": folder.identity().public}
    anchors.record({"coordinator": log.head().to_bytes()}, identities, study_digest=bytes(32))
    Anchors(log).record({"north": site.head().to_bytes()}, identities, study_digest=bytes(32))
    return folder


def run(*words: str, folder: object) -> str:
    result = CliRunner().invoke(app, [*words, "--folder", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    return " ".join(result.output.split())


def lines_of(made: CoordinatorFolder) -> int:
    """Entries of the audit log, in which other tests here may have acted."""
    return (made.path / "audit.jsonl").read_text(encoding="utf-8").count("\n")


def test_status_tells_of_sites_and_the_log(made):
    told = json.loads(CliRunner().invoke(
        app, ["status", "--json", "--folder", str(made.path)]
    ).output)  # fmt: skip
    assert [site["site"] for site in told["sites"]] == ["east", "north"]
    assert told["audit"]["last_refusal"]["sentence"] == "no such token"
    assert told["audit"]["site_entries"] == {"north": 2}
    text = run("status", folder=made.path)
    assert "2 enrolled, 0 revoked" in text
    assert f"audit log {lines_of(made)} entries" in text


def test_verify_checks_a_sites_copy_too(made):
    assert f"{lines_of(made)} lines verify." in run("audit", "verify", folder=made.path)
    copy = str(made.path.parent / "north.jsonl")
    told = run("audit", "verify", "--peer", copy, "--site", "north", folder=made.path)
    assert told.count("1 of them confirmed by the other side") == 2
    with pytest.raises(SettingsError, match="never enrolled; known: east, north"):
        run("audit", "verify", "--peer", copy, folder=made.path)
    with pytest.raises(AuditError, match="line 1: wrong signer"):
        run("audit", "verify", "--peer", copy, "--site", "east", folder=made.path)


def test_the_last_head_seen_of_a_site_is_given_as_one_line(made):
    told = AuditHead.from_bytes(bytes.fromhex(run("audit", "head", "north", folder=made.path)))
    told.verify("north", SITE.public)
    assert told.number == 2
    with pytest.raises(SettingsError, match="it has sent no update"):
        run("audit", "head", "east", folder=made.path)


def test_a_coordinator_comes_back_with_its_sites(made, tmp_path):
    archive = tmp_path / "c.tar"
    assert "audit log up to entry 4" in run("backup", str(archive), folder=made.path)
    told = run("restore", str(archive), folder=tmp_path / "back")
    assert "Revocations, invitations and studies since then are forgotten" in told
    back = CoordinatorFolder.open(tmp_path / "back")
    assert [member.name for member in back.register().members()] == ["east", "north"]
    assert back.certificates.expires() == made.certificates.expires()
    run("audit", "verify", folder=back.path)


def test_the_last_whole_record_is_found_behind_a_torn_line(tmp_path):
    file = tmp_path / "rounds.jsonl"
    assert last_record(file) is None
    file.write_text('{"round": 1}\n{"round": 2}\n{"rou')
    assert last_record(file) == {"round": 2}
    file.write_text("[1]\n")
    assert last_record(file) is None
    file.write_text("\x00")
    assert last_record(file) is None
