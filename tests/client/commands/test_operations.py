"""What an operator of a site types: status, audit verify, backup, restore."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consilium.client.cli import app
from consilium.client.hospital.folder import SiteFolder
from consilium.client.ledger.audit_check import disagreements
from consilium.client.ledger.store import Ledger, Release
from consilium.client.secure_sum.journal import RoundJournal
from consilium.client.service.health import is_held
from consilium.client.service.status import site_status
from consilium.shared.audit.events import Approved, Refused
from consilium.shared.errors import AuditError, SettingsError
from consilium.shared.privacy.accounting import PrivacyEvent
from tests.client.site_folders import RUN, coordinator_log, enrolled, exchange, log_of, released

RELEASE = Release(
    study_digest=bytes(32),
    study_hash=RUN,
    study_name="study",
    round=1,
    purpose="training",
    events=(PrivacyEvent(sampling_rate=0.1, noise_multiplier=2.0, steps=10),),
    shards=(0, 80),
)


def ledger_of(folder: SiteFolder) -> Ledger:
    return Ledger(folder.path / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)


def run(*words: str, folder: Path) -> str:
    """Run a command to its end; its own errors are raised."""
    result = CliRunner().invoke(app, [*words, "--folder", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    return " ".join(result.output.split())


def test_a_new_site_says_what_is_missing_and_a_broken_policy_is_told(tmp_path):
    folder = SiteFolder.make(tmp_path / "site")
    told = run("status", folder=folder.path)
    assert "site not named yet" in told
    assert "coordinator not enrolled" in told
    (folder.path / "policy.toml").write_text("[privacy]\nepsilon = 1.0\n")
    assert "is not a known key" in run("status", folder=folder.path)


def test_the_status_of_a_working_site_shows_budget_releases_refusals_and_the_log(tmp_path):
    folder = enrolled(tmp_path / "site")
    log = log_of(folder)
    book = ledger_of(folder)
    book.reserve(RELEASE, study_epsilon=8.0, study_delta=1e-5)
    book.confirm(RELEASE)
    log.append(
        released(1, 0.5),
        Refused(peer="coordinator", asked="update", code="PolicyError", sentence="it is noon"),
    )
    status = json.loads(CliRunner().invoke(
        app, ["status", "--json", "--folder", str(folder.path)]
    ).output)  # fmt: skip
    assert status["site"] == "north"
    assert status["coordinator"] == "coordinator.example.org:9092"
    assert (status["running"], status["policy"], status["approved"]) == (False, "ok", [])
    assert status["budget"]["lifetime"]["spent"] > 0
    assert status["budget"]["studies"][0]["study"] == "study"
    assert (status["last_release"]["round"], status["last_release"]["epsilon"]) == (1, 0.5)
    assert status["last_refusal"]["sentence"] == "it is noon"
    assert (status["audit"]["entries"], status["audit"]["divergences"]) == (3, 0)
    told = run("status", folder=folder.path)
    assert "last release" in told
    assert "it is noon" in told


def test_a_site_is_running_while_a_process_holds_its_folder(tmp_path):
    folder = enrolled(tmp_path / "site")
    with folder.hold():
        assert site_status(folder)["running"] is True
        with pytest.raises(SettingsError, match="answers for this site; stop it first"):
            run("restore", str(tmp_path / "x.tar"), folder=folder.path)
    assert site_status(folder)["running"] is False
    assert is_held(tmp_path / "no such file") is False


def test_an_unreadable_log_is_told_and_does_not_hide_the_rest(tmp_path):
    folder = enrolled(tmp_path / "site")
    (folder.path / "audit.jsonl").unlink()
    assert site_status(folder)["audit"] is None
    (folder.path / "audit.jsonl").mkdir()
    assert "cannot be read" in site_status(folder)["audit"]["error"]
    assert "cannot be read" in run("status", folder=folder.path)


def test_verify_confirms_both_logs_against_each_other(tmp_path):
    folder = enrolled(tmp_path / "site")
    peer = coordinator_log(tmp_path / "copy.jsonl")
    exchange(log_of(folder), peer)
    assert "3 lines verify." in run("audit", "verify", folder=folder.path)
    told = run("audit", "verify", "--peer", str(peer.path), folder=folder.path)
    assert told.count("1 of them confirmed by the other side") == 2
    out = CliRunner().invoke(app, ["audit", "verify", "--json", "--folder", str(folder.path)])
    assert json.loads(out.output)[0]["finding"] is None


def test_verify_names_the_line_that_was_cut_or_altered(tmp_path):
    folder = enrolled(tmp_path / "site")
    peer = coordinator_log(tmp_path / "copy.jsonl")
    exchange(log_of(folder), peer)
    log = folder.path / "audit.jsonl"
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    run("audit", "verify", folder=folder.path)
    with pytest.raises(AuditError, match=r"line 3: truncated: .* recorded entry 3"):
        run("audit", "verify", "--peer", str(peer.path), folder=folder.path)
    log.write_bytes(whole.replace(b'"round":1', b'"round":2'))
    with pytest.raises(AuditError, match="line 3: altered: its signature does not verify"):
        run("audit", "verify", folder=folder.path)


def test_verify_finds_a_ledger_that_does_not_belong_to_the_log(tmp_path):
    folder = enrolled(tmp_path / "site")
    book, log = ledger_of(folder), log_of(folder)
    RoundJournal(folder.path / "journal.sqlite").raise_to(RUN, 4)
    book.reserve(RELEASE, study_epsilon=8.0, study_delta=1e-5)
    assert disagreements(book, log.path) == []  # a crash before the release: nothing left
    book.confirm(RELEASE)
    with pytest.raises(AuditError, match=r"has round 1 of run .* as released, and the audit log"):
        run("audit", "verify", folder=folder.path)
    log.append(released(1))
    assert "every release in the ledger stands in the log" in run(
        "audit", "verify", folder=folder.path
    )
    log.append(released(2), released(3), released(4, None))
    with pytest.raises(AuditError, match=r"was never charged for.* \(1 more\)"):
        run("audit", "verify", folder=folder.path)
    with log.path.open("ab") as file:
        file.write(b"noise\n")
    assert len(disagreements(book, log.path)) == 2


def test_a_site_comes_back_from_a_backup_if_the_coordinator_saw_nothing_later(tmp_path):
    folder = enrolled(tmp_path / "site")
    log = log_of(folder)
    head = log.append(Approved(study="s", study_digest=bytes(32), approved=True, by="dr"))
    archive = tmp_path / "site.tar"
    assert "audit log up to entry 2" in run("backup", str(archive), folder=folder.path)
    back = tmp_path / "back"
    with pytest.raises(AuditError, match="ask the operator for 'consilium-coordinator audit head"):
        run("restore", str(archive), folder=back)
    with pytest.raises(SettingsError, match="is not an audit head"):
        run("restore", str(archive), "--head", "ab", folder=back)
    later = log.append(released(1)).to_bytes().hex()
    with pytest.raises(AuditError, match="forget budget that was spent since"):
        run("restore", str(archive), "--head", later, folder=back)
    told = run("restore", str(archive), "--head", head.to_bytes().hex(), folder=back)
    assert "nobody has shown a later one" in told
    run("audit", "verify", folder=back)
    assert SiteFolder.open(back).identity().public == folder.identity().public


def test_a_lost_journal_is_recovered_and_a_state_written_off_by_command(tmp_path):
    folder = enrolled(tmp_path / "site")
    exchange(log_of(folder), coordinator_log(tmp_path / "copy.jsonl"))
    (folder.path / "journal.sqlite").unlink()
    with pytest.raises(AuditError, match="run 'consilium-site recover'"):
        run("audit", "verify", folder=folder.path)
    assert "0 releases charged again, 1 runs claimed again" in run("recover", folder=folder.path)
    run("audit", "verify", folder=folder.path)
    assert CliRunner().invoke(app, ["write-off", "--folder", str(folder.path)]).exit_code == 1
    identity = folder.identity().public
    told = run("write-off", "--yes", folder=folder.path)
    assert "epsilon 16 counts as spent" in told
    assert "revoke and invite this site" in told
    assert SiteFolder.open(folder.path).identity().public != identity
    assert folder.ledger(folder.policy()).summary().total.left == 0.0


def test_an_older_backup_is_restored_closed(tmp_path):
    folder = enrolled(tmp_path / "site")
    log = log_of(folder)
    run("backup", str(tmp_path / "site.tar"), folder=folder.path)
    later = log.append(released(1)).to_bytes().hex()
    back = tmp_path / "back"
    archive = str(tmp_path / "site.tar")
    with pytest.raises(AuditError, match="give --write-off"):
        run("restore", archive, "--head", later, "--head", later, folder=back)
    assert "closed. Next: raise" in run("restore", archive, "--write-off", folder=back)
    closed = SiteFolder.open(back)
    assert closed.ledger(closed.policy()).summary().total.left == 0.0


def test_another_hospital_tells_how_far_a_log_had_come(tmp_path):
    folder, other = enrolled(tmp_path / "site"), enrolled(tmp_path / "other", site="south")
    with pytest.raises(SettingsError, match="no audit head of site south was shown"):
        run("audit", "head", "south", folder=folder.path)
    head = log_of(other).append(released(1))
    folder.heads().note(RUN, {other.identity().public: head})
    out = CliRunner().invoke(app, ["audit", "head", "south", "--folder", str(folder.path)])
    assert out.output.strip() == head.to_bytes().hex()


def test_an_approval_is_not_withdrawn_where_the_log_is_missing(tmp_path):
    folder = enrolled(tmp_path / "site")
    ledger_of(folder)
    (folder.path / "audit.jsonl").unlink()
    with pytest.raises(AuditError, match="is missing, and this site was used"):
        run("withdraw", "study", folder=folder.path)
    assert not (folder.path / "audit.jsonl").exists()


def test_a_release_whose_cost_an_older_version_did_not_record_is_not_charged_again(tmp_path):
    folder = enrolled(tmp_path / "site")
    log_of(folder).append(released(1))
    with pytest.raises(AuditError, match="does not say what its release cost"):
        run("recover", folder=folder.path)
    book = ledger_of(folder)
    book.reserve(RELEASE, study_epsilon=8.0, study_delta=1e-5)
    book.confirm(RELEASE)
    assert "0 releases charged again, 1 runs claimed again" in run("recover", folder=folder.path)
