"""Operating a real federation: logs that confirm each other, health, backup, refusals."""

import json
import urllib.request
from pathlib import Path

import pytest

from consilium.client.ledger.store import Ledger
from tests.deployment.federation import SITES, Federation, free_port, tiny_study, write_records
from tests.deployment.ledgers import check_books

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, patients=60, seed=1)
    return folder


def last_json_line(text: str) -> dict:
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def test_a_finished_study_leaves_own_heads_logs_that_agree_and_a_backup_that_restores(
    records, tmp_path
):
    federation, port = Federation(root=tmp_path / "f", records=records), free_port()
    federation.prepare(
        tiny_study(rounds=4, mode="site") + '\n[personalisation]\nparts = ["head"]\n'
    )
    try:
        federation.start("coordinator", "--monitor-port", str(port))
        for site in SITES:
            federation.start(site)
        federation.finish()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as reply:
            assert json.load(reply)["status"] == "ok"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
            told = reply.read().decode()
        assert 'consilium_study_state{study="tiny",state="finished"} 1' in told
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as reply:
            page = reply.read().decode()
        assert "4 of 4 training rounds" in page
        assert page.count("<td class='good'>present</td>") == len(SITES)
        assert last_json_line(federation.said("north"))["level"] in ("info", "warning")
        metrics = (federation.site("north") / "metrics.prom").read_text()
        assert 'consilium_site_epsilon_spent{site="north"}' in metrics
        federation.hospital("east", "backup", str(tmp_path / "east.tar"))
    finally:
        federation.close()
    kept = {site: list((federation.site(site) / "personal").iterdir()) for site in SITES}
    assert all(file.stat().st_mode & 0o777 == 0o600 for (file,) in kept.values())
    parts = {site: file.read_bytes() for site, (file,) in kept.items()}
    assert len(set(parts.values())) == len(SITES)
    check_books(federation)  # of all sites; one of them sees the same by the commands
    log = str(federation.coordinator / "audit.jsonl")
    told = federation.hospital("east", "audit", "verify", "--peer", log)
    assert "every release in the ledger stands in the log" in " ".join(told.split())
    assert told.count("confirmed by the other side") == 2
    own = str(federation.site("east") / "audit.jsonl")
    federation.operator("audit", "verify", "--peer", own, "--site", "east")
    status = json.loads(federation.hospital("east", "status", "--json"))
    assert status["last_release"]["epsilon"] == pytest.approx(8.0, rel=0.01)
    for site in SITES:
        ledger = Ledger(federation.site(site) / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
        assert ledger.summary().total.spent == pytest.approx(8.0, rel=0.01)
    head = federation.operator("audit", "head", "east").strip()
    federation.site("east").rename(tmp_path / "lost")
    federation.hospital("east", "restore", str(tmp_path / "east.tar"), "--head", head)
    assert kept["east"][0].read_bytes() == parts["east"]
    federation.hospital("east", "audit", "verify", "--peer", log)
    budget = json.loads(federation.hospital("east", "status", "--json"))["budget"]
    assert budget["studies"][0]["spent"] == pytest.approx(8.0, rel=0.01)


def budgets(federation):
    return {site["site"]: site["budget_left"] for site in federation.overview()["sites"]}


def test_a_refusal_by_policy_is_read_at_both_ends_and_in_the_log(records, tmp_path):
    federation = Federation(root=tmp_path / "f", records=records)
    federation.prepare(tiny_study(rounds=2, mode="site"))
    strict = "[privacy]\nstudy_epsilon = 1.0\n[federation]\nminimum_patients = 5\n"
    strict += "[release]\nbudget_left = true\n"
    (federation.site("north") / "policy.toml").write_text(strict)
    try:
        federation.start("coordinator", "--monitor-port", "0")
        for site in SITES:
            federation.start(site)
        sentence = "the study's epsilon 8 is above this site's bound of 1 a study"
        code = "[channel: PolicyError.epsilon]"
        federation.wait_for(
            lambda: code in str(federation.overview()["studies"]), "the refusal to be seen", 60
        )
        assert "bound of 1" not in str(federation.overview())  # the policy is the hospital's
        federation.wait_for(lambda: budgets(federation)["north"] is not None, "a budget", 30)
        assert budgets(federation) == dict.fromkeys(SITES) | {"north": 16.0}
        assert "16.00" in federation.operator("watch")
    finally:
        federation.close()
    assert sentence in federation.said("north")
    status = json.loads(federation.hospital("north", "status", "--json"))
    assert sentence in status["last_refusal"]["reason"]
    assert status["budget"]["lifetime"]["spent"] == 0
    federation.hospital("north", "audit", "verify")
