"""Posts as a web server on loopback gets them: signed, the same identifier, nowhere else."""

import hashlib
import hmac
import json

import httpx
import pytest

from consilium.shared.errors import SettingsError, UnreachableError
from consilium.shared.notices.courier import Addresses
from tests.notice_servers import certificates, server_context, web_server
from tests.shared.notices.made_up import (
    SECRET,
    SITE,
    one_notice,
    settings,
    void,
    webhook,
    write_secret,
)


def send(folder, *urls, notice=None, proxy=None, now=1000.0, **more):
    addresses = Addresses(settings(webhook=webhook(*urls), **more), folder, proxy=proxy)
    return addresses.send(notice or one_notice(void(12)), addresses.names[0], now)


def verify(secret: str, headers, body: bytes, now: float) -> None:
    """As a receiver does; docs/operations.md shows the same."""
    stamp = headers["Consilium-Timestamp"]
    signed = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256)
    assert hmac.compare_digest(headers["Consilium-Signature"], f"v1={signed.hexdigest()}")
    assert abs(now - int(stamp)) < 300


def test_a_post_is_signed_and_has_the_same_identifier_at_each_attempt(tmp_path):
    write_secret(tmp_path)
    notice = one_notice(void(12), void(13), sender=SITE)
    with web_server() as inbox:
        url = f"http://127.0.0.1:{inbox.port}/hook?team=it"
        assert send(tmp_path, url, notice=notice) == "status 204"
        send(tmp_path, url, notice=notice, now=1100.0)
    (first, body), (second, again) = inbox.taken
    verify(SECRET, first, body, 1000.0)
    verify(SECRET, second, again, 1100.0)
    with pytest.raises(AssertionError):
        verify(SECRET, first, body.replace(b"12", b"14"), 1000.0)
    assert first["Idempotency-Key"] == second["Idempotency-Key"] == notice.id
    assert first["path"] == "/hook?team=it"
    assert body == again
    assert json.loads(body) == {
        "version": 1, "id": notice.id, "kind": "round-void", "at": "1970-01-01T00:16:40+00:00",
        "subject": notice.subject, "text": notice.text, "side": "site", "site": "north",
        "study": "tiny", "study_digest": "0123456789abcdef", "sites": [], "rounds": [12, 13],
        "day": None, "case": None,
    }  # fmt: skip


def test_a_redirection_is_not_followed(tmp_path):
    write_secret(tmp_path)
    with web_server() as inbox:
        for code in (301, 307, 308):
            inbox.fail = [code]
            with pytest.raises(UnreachableError, match=f"answered {code}, a redirection"):
                send(tmp_path, f"http://127.0.0.1:{inbox.port}/")
        for code in (401, 500):
            inbox.fail = [code]
            with pytest.raises(UnreachableError, match=f"the webhook answered {code}"):
                send(tmp_path, f"http://127.0.0.1:{inbox.port}/")
    assert not inbox.taken


def test_https_verifies_the_certificate_against_the_named_authority(tmp_path):
    write_secret(tmp_path)
    files = certificates(tmp_path / "tls", "localhost")
    (tmp_path / "ca.pem").write_bytes(files.authority.read_bytes())
    with web_server(server_context(files)) as inbox:
        url = f"https://localhost:{inbox.port}/"
        with pytest.raises(UnreachableError, match="certificate does not verify"):
            send(tmp_path, url)
        send(tmp_path, url, authority="ca.pem")
        with pytest.raises(UnreachableError, match="certificate does not verify"):
            send(tmp_path, f"https://127.0.0.1:{inbox.port}/", authority="ca.pem")
    assert len(inbox.taken) == 1
    with pytest.raises(SettingsError, match=r"no file of certificates .*\[notices\] authority"):
        send(tmp_path, url, authority="missing.pem")


def test_a_proxy_is_used_for_other_machines_and_never_for_this_one(tmp_path, monkeypatch):
    write_secret(tmp_path)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    dead = httpx.Proxy("http://127.0.0.1:1", auth=("north", "se:cret"))
    with web_server() as inbox:
        send(tmp_path, f"http://127.0.0.1:{inbox.port}/", proxy=dead)
        with pytest.raises(UnreachableError) as refused:
            send(tmp_path, f"https://alerts.invalid:{inbox.port}/", proxy=dead)
    assert "cannot be reached" in str(refused.value)
    assert "se:cret" not in str(refused.value)
    assert len(inbox.taken) == 1


def test_a_secret_is_long_private_and_one_line(tmp_path):
    with pytest.raises(SettingsError, match=r"cannot be read .*\[notices.webhook\] secret"):
        send(tmp_path, "http://127.0.0.1:1/")
    write_secret(tmp_path, text="short")
    with pytest.raises(SettingsError, match="has 5 characters, and a secret needs 16"):
        send(tmp_path, "http://127.0.0.1:1/")
    write_secret(tmp_path)
    (tmp_path / "webhook-secret").chmod(0o640)
    with pytest.raises(SettingsError, match="may be read by other accounts"):
        send(tmp_path, "http://127.0.0.1:1/")


def test_an_address_that_nobody_answers_is_a_sentence_without_its_path(tmp_path):
    write_secret(tmp_path)
    with pytest.raises(UnreachableError) as refused:
        send(tmp_path, "http://127.0.0.1:1/services/T0/SECRET")
    assert "the webhook cannot be reached" in str(refused.value)
    assert "SECRET" not in str(refused.value)
    assert (
        "SECRET"
        not in Addresses(settings(webhook=webhook("https://a.example/SECRET")), tmp_path).names[0]
    )
