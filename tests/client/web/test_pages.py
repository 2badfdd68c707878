"""What a hospital's page says to whom, over HTTP, of a made-up hospital."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from consilium.shared.audit.events import Released
from consilium.shared.audit.own_log import open_audit
from tests.client.web.conftest import Hospital
from tests.client.web.made_up import TEXT, spend, vouch
from tests.web_served import Person

Make = Callable[..., Hospital]
EVIL = "<script>document.title='broken'</script>"
PATIENCE_S = 240.0


def finished(who: Person, path: str, marker: str) -> str:
    """The page once the work that it shows is done."""
    ends = time.monotonic() + PATIENCE_S
    while marker in (text := who.get(path).text):
        assert time.monotonic() < ends, text
        time.sleep(0.05)
    return text


def test_a_study_is_told_in_the_words_of_review_and_what_approving_means(make: Make) -> None:
    one = make()
    shown = one.person("Anna").get(one.path).text
    for part in (
        "What leaves this building",
        "one masked vector that only the sum over sites opens",
        "epsilon 4",
        "This hospital allows 8 a study and 16 for all studies ever",
        "What approving means",
        "You can withdraw at any time",
        "east: unknown",
        "Nobody vouched for east, south, west: they may be the coordinator's invention",
        "Check the records first",
    ):
        assert part in shown, part
    vouch(one.site)
    assert "Nobody vouched" not in one.person("Anna").get(one.path).text


def test_script_in_what_a_coordinator_writes_stays_text(make: Make) -> None:
    text = TEXT.replace("Death in the intensive-care unit", EVIL).replace(
        "A model that", f"{EVIL} A model that"
    )
    one = make(text=text)
    anna = one.person("Anna")
    for path in ("/studies", one.path):
        shown = anna.get(path).text
        assert "<script" not in shown
        assert "&lt;script&gt;" in shown


@pytest.mark.slow
def test_the_records_are_checked_before_the_form_to_approve_stands_there(make: Make) -> None:
    one = make(text=TEXT + "\n[feasibility]\nepsilon = 0.5\n")
    anna = one.person("Anna")
    assert one.person("Clara").post(f"{one.path}/check").status_code == 403
    assert anna.get(f"{one.path}/report").status_code == 404
    anna.post(f"{one.path}/check")
    shown = finished(anna, one.path, "are being read")
    assert "24 patients found" in shown
    assert "This hospital&#39;s persons, exact and shown here alone: 24; with an outcome" in shown
    assert "Size to declare" in shown
    assert "value='20'" in shown
    report = one.person("Clara").get(f"{one.path}/report")
    assert "stays in this hospital" in report.text
    assert "script" not in report.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in report.headers["content-security-policy"]


def test_records_that_cannot_be_read_are_told_and_no_form_stands_there(make: Make) -> None:
    one = make()
    settings = one.site.path / "site.toml"
    settings.write_text(settings.read_text().replace("files", "nowhere"))
    anna = one.person("Anna")
    anna.post(f"{one.path}/check")
    shown = finished(anna, one.path, "are being read")
    assert "The records cannot be read" in shown
    assert "Size to declare" not in shown


def test_without_its_coordinator_a_site_shows_what_is_approved(make: Make) -> None:
    one = make()
    anna = one.person("Anna")
    assert "to be decided" in anna.get("/studies").text
    one.coordinator.reachable = False
    shown = anna.get("/studies").text
    assert "offers are not known: the coordinator cannot be reached" in shown
    refused = anna.get(one.path)
    assert refused.status_code == 409
    assert "cannot be reached" in refused.text


def test_a_study_that_nobody_offers_is_told(make: Make) -> None:
    one = make()
    anna = one.person("Anna")
    assert "is not offered any more" in anna.get("/studies/" + "0" * 64).text
    for path in ("/studies/..", "/studies/" + "0" * 63, "/studies/%2e%2e%2fsite.toml"):
        assert anna.get(path).status_code == 404


def test_the_budget_is_drawn_with_its_figures(make: Make) -> None:
    one = make()
    clara = one.person("Clara")
    assert "Nothing was spent" in clara.get("/budget").text
    spend(one.site, one.study, 3)
    shown = clara.get("/budget").text
    assert "<svg" in shown
    assert "sepsis: epsilon" in shown
    assert "Lifetime, all studies" in shown
    assert "are left" in one.person("Anna").get(one.path).text
    assert "of 16" in clara.get("/overview").text


def test_the_audit_log_is_read_and_verified(make: Make) -> None:
    one = make()
    log = open_audit(one.site)
    log.append(
        Released(study_digest=one.study.digest, study_hash=bytes(32), round=3, purpose="training",
                 message_digest=bytes(32), epsilon=0.5, delta=1e-5),
    )  # fmt: skip
    clara, tom = one.person("Clara"), one.person("Tom")
    assert "Round 3 (training): a masked vector left, epsilon 0.50" in clara.get("/audit").text
    assert clara.post("/audit/verify").status_code == 403
    tom.post("/audit/verify")
    shown = finished(tom, "/audit", "is being verified")
    assert "2 lines verify" in shown
    assert "ledger.sqlite is missing" in shown  # the log tells of a release that no ledger has
    lines = (one.site.path / "audit.jsonl").read_text()
    (one.site.path / "audit.jsonl").write_text(lines.replace("training", "trainings", 1))
    tom.post("/audit/verify")
    assert "altered" in finished(tom, "/audit", "is being verified")


def test_persons_who_opted_out_are_counted_and_not_named(make: Make) -> None:
    one = make()
    tom = one.person("Tom")
    assert "names no file of persons" in tom.get("/opt-outs").text
    file = one.site.path / "opted_out.txt"
    with (one.site.path / "site.toml").open("a") as settings:
        settings.write(f'opted_out = "{file}"\n')
    assert "nobody&#39;s records are read until it can" in tom.get("/opt-outs").text
    file.write_text("132000\n132004\n")
    shown = tom.get("/opt-outs").text
    assert "2 persons are named" in shown
    assert "132000" not in shown


def test_this_machine_is_tested_by_it_alone(make: Make) -> None:
    one = make()
    assert one.person("Anna").get("/machine").status_code == 403
    tom = one.person("Tom")
    tom.post("/machine/test")
    shown = finished(tom, "/machine", "The tests run")
    assert "permissions" in shown


def test_a_model_that_nobody_signed_is_not_to_be_used(make: Make) -> None:
    one = make()
    clara, tom = one.person("Clara"), one.person("Tom")
    assert "None is installed" in clara.get("/models").text
    place = one.site.path / "models" / "mine"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    assert "Do not use it" in clara.get("/models").text
    assert tom.get("/models/mine/suspects").status_code == 403
    for name in ("..", "%2e%2e", "other", "..%2f..%2fidentity.pem"):
        assert clara.get(f"/models/{name}/suspects").status_code == 404
    clara.post("/models/mine/suspects")
    shown = finished(clara, "/models/mine/suspects", "are being scored")
    assert "role='alert'" in shown


@pytest.mark.slow
def test_the_command_serves_without_pytorch_and_ends_when_interrupted(make: Make) -> None:
    one = make()
    code = f"""
import atexit, sys
from consilium.client.cli import app
heavy = ("torch", "flwr", "matplotlib", "polars")
atexit.register(lambda: print("loaded", [name for name in heavy if name in sys.modules]))
app(["web", "--folder", {str(one.site.path)!r}, "--port", "0"])
"""
    serving = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert serving.stderr is not None
        address = serving.stderr.readline().split()[0].rstrip("/")
        assert Person(address, "Nobody").answer.status_code == 403
        serving.send_signal(signal.SIGINT)
        said, _ = serving.communicate(timeout=PATIENCE_S)
    finally:
        serving.kill()
    assert serving.returncode == 0
    assert said.strip() == "loaded []"
