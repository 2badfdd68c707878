"""The monitor answers on this machine alone, two questions, and changes nothing."""

import http.client
import json
import re
import socket
import time
from datetime import UTC, datetime, timedelta

import pytest

from consilium.server.cli import app
from consilium.server.service.health import ask_health
from consilium.server.service.monitor import (
    Monitor,
    certificate_ailments,
    disk_ailments,
    free_bytes,
    metrics,
)
from consilium.shared.errors import SettingsError, UnreachableError
from consilium.shared.service.command_line import command_of
from consilium.shared.service.prometheus import to_text
from tests.needs import PATIENCE_S

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what a container's monitor is told
STATUS = {
    "certificate_ends": "2130-01-01T00:00:00+00:00",
    "sites": [
        {"site": "north", "revoked": False, "seen_s_ago": 1.5},
        {"site": "east", "revoked": False, "seen_s_ago": None},
        {"site": "south", "revoked": True, "seen_s_ago": 9.0},
    ],
    "studies": [
        {
            "study": "icu",
            "state": "running",
            "last_round": {"round": 4, "void": None, "sites": ["a", "b"], "seconds": 0.5,
                           "epsilon": None},
        },
        {"study": "next", "state": "waiting", "last_round": None},
    ],
    "audit": {"entries": 9, "divergences": {"north": 1}, "counts": {"refused": 2}},
    "notices": {"sent": 7, "waiting": 1, "given_up": 2, "failed_attempts": 156, "lost": 0,
                "last_failure": None},
}  # fmt: skip


@pytest.fixture
def monitor():
    wrong: list[str] = []
    made = Monitor(
        0, status=lambda: STATUS, ailments=lambda: wrong, page=lambda _, wrong: f"<p>{wrong}</p>"
    )
    made.wrong = wrong
    yield made
    made.close()


def ask(monitor, path, *, method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", monitor.port, timeout=PATIENCE_S)
    connection.request(method, path, headers={"Host": host} if host else {})
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), reply.headers["Content-Type"]


def test_health_is_200_while_nothing_is_wrong_and_503_with_the_sentences_else(monitor):
    status, body, kind = ask(monitor, "/health")
    assert (status, json.loads(body), kind) == (
        200,
        {"status": "ok", "wrong": []},
        "application/json",
    )
    monitor.wrong.append("the service does not run")
    status, body, _ = ask(monitor, "/health")
    assert (status, json.loads(body)["wrong"]) == (503, ["the service does not run"])


def test_the_page_is_served_beside_them(monitor):
    monitor.wrong.append("disk")
    assert ask(monitor, "/") == (200, "<p>['disk']</p>", "text/html; charset=utf-8")


def test_metrics_tell_of_sites_rounds_and_the_log(monitor):
    status, body, kind = ask(monitor, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    lines = [line for line in body.splitlines() if not line.startswith("#")]
    certificate, *others = sorted(lines)
    assert certificate.startswith("consilium_audit_divergences_total")
    assert 'consilium_site_seen_seconds_ago{site="north"} 1.5' in others
    assert not any("east" in line or "south" in line for line in others)
    assert 'consilium_study_state{study="next",state="waiting"} 1' in others
    assert 'consilium_round_number{study="icu"} 4' in others
    assert 'consilium_round_sites{study="icu"} 2' in others
    assert not any(line.startswith("consilium_round_epsilon") for line in others)
    assert 'consilium_notice_deliveries{outcome="given_up"} 2' in others
    assert 'consilium_notice_failures_total{of="attempts"} 156' in others


@pytest.mark.parametrize("notices", [None, {"error": "the outbox cannot be read"}])
def test_without_notices_there_are_no_metrics_of_them(notices):
    text = to_text(metrics(STATUS | {"notices": notices}, []))
    assert not re.search("^consilium_notice", text, flags=re.M)


def test_nothing_else_is_answered(monitor):
    assert ask(monitor, "/status")[0] == 404
    assert ask(monitor, "/", method="POST")[0] == 501
    assert ask(monitor, "/", host="evil.example.org:80")[0] == 403
    assert ask(monitor, "/health?x=1")[0] == 404
    assert ask(monitor, "/health", method="POST")[0] == 501
    assert ask(monitor, "/health", host="evil.example.org:80")[0] == 403
    assert ask(monitor, "/health", host="localhost:9093")[0] == 200


def test_it_listens_on_the_loopback_address_only_and_says_if_the_port_is_taken(monitor):
    assert monitor._server.server_address[0] == "127.0.0.1"
    with pytest.raises(SettingsError, match="cannot be used"):
        Monitor(monitor.port, status=dict, ailments=list, page=lambda *_: "")


def test_told_to_listen_elsewhere_it_answers_by_any_address_and_by_no_foreign_name():
    made = Monitor(0, status=dict, ailments=list, page=lambda *_: "", listen=EVERYWHERE)
    try:
        assert made._server.server_address[0] == EVERYWHERE
        for host in ("10.0.0.7:9093", "[2001:db8::7]:9093", "127.0.0.1:9093", "localhost"):
            assert ask(made, "/health", host=host)[0] == 200
        for host in ("evil.example.org:80", "evil.example.org", "[::1", "127.0.0.1.org:1", ":1"):
            assert ask(made, "/health", host=host)[0] == 403
    finally:
        made.close()


def test_on_the_loopback_address_it_answers_by_its_own_names_only(monitor):
    assert ask(monitor, "/health", host="10.0.0.7:9093")[0] == 403
    with pytest.raises(SettingsError, match=r"port 0 of 192\.0\.2\.1 cannot be used"):
        Monitor(0, status=dict, ailments=list, page=lambda *_: "", listen="192.0.2.1")


def test_the_health_of_a_running_coordinator_is_told_by_a_command(monitor, capsys):
    health = ["health", "--monitor-port", str(monitor.port)]
    command_of(app)(health, standalone_mode=False)
    assert "nothing is known to be wrong" in capsys.readouterr().out
    monitor.wrong.append("the service does not run")
    assert command_of(app)(health, standalone_mode=False) == 1
    assert capsys.readouterr().out == "the service does not run\n"
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        with pytest.raises(UnreachableError, match=f"no coordinator answers at port {port}"):
            ask_health(port)


@pytest.mark.slow
def test_a_client_that_says_nothing_does_not_keep_others_waiting_for_long(monitor, monkeypatch):
    with socket.create_connection(("127.0.0.1", monitor.port)) as silent:
        shortly = {silent.getsockname(): 0.3}  # a slow machine's other clients are not cut off
        patience = property(lambda handler: shortly.get(handler.client_address, PATIENCE_S))
        monkeypatch.setattr(monitor._server.RequestHandlerClass, "timeout", patience)
        silent.sendall(b"GET /hea")
        began = time.monotonic()
        assert ask(monitor, "/health")[0] == 200
        assert time.monotonic() - began < PATIENCE_S / 2


def test_what_is_wrong_is_one_sentence_with_a_remedy(tmp_path):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert certificate_ailments(now + timedelta(days=1), now) == []
    assert "run 'rotate-keys'" in certificate_ailments(now - timedelta(days=1), now)[0]
    assert disk_ailments(1 << 31) == []
    assert "make room" in disk_ailments(1 << 20)[0]
    assert free_bytes(str(tmp_path)) > 0
