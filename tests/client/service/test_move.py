"""Addresses as people type them, and the account at a proxy."""

import base64
import socketserver
import threading

import pytest

from consilium.client.service.connection import Connection
from consilium.client.service.move import read_address
from consilium.client.service.proxy import Proxy
from consilium.server.coordinator.certificates import CertificateFiles, make_authority
from consilium.shared.errors import SettingsError, UnreachableError
from consilium.shared.files.private_text import read_pair


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("fl.example.org", ("fl.example.org", 9092)),
        ("fl.example.org:443", ("fl.example.org", 443)),
        ("10.0.0.7:1", ("10.0.0.7", 1)),
        ("2001:db8::7", ("2001:db8::7", 9092)),
        ("[2001:db8::7]", ("2001:db8::7", 9092)),
        ("[2001:db8::7]:443", ("2001:db8::7", 443)),
    ],
)
def test_an_address_is_read_as_it_is_meant(typed, meant):
    assert read_address(typed, default_port=9092) == meant


@pytest.mark.parametrize(
    "typed",
    ["", ":", "host:", "host:0", "host:65536", "host:x", "https://host", "[::1", "[::1]x", "a b",
     "höst", "host:٤٤٣", "-" * 254],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(typed):
    with pytest.raises(SettingsError, match="write HOST or HOST:PORT"):
        read_address(typed, default_port=9092)


def test_the_account_at_the_proxy_is_one_line_for_this_account_alone(tmp_path):
    file = tmp_path / "proxy-account"
    file.write_text("north:se:cret\n")
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="may be read by other accounts"):
        read_pair(file, named="x")
    file.chmod(0o600)
    assert read_pair(file, named="x") == ("north", "se:cret")
    for wrong in ("", "north", ":secret", "a:b\nc:d"):
        file.write_text(wrong)
        with pytest.raises(SettingsError, match="one line NAME:PASSWORD"):
            read_pair(file, named="x")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_pair(tmp_path / "missing", named="x")


def test_a_password_is_not_printed_and_a_wrong_proxy_is_named():
    proxy = Proxy(url="http://proxy.example.org:3128", credentials=("north", "se:cret"))
    assert "se:cret" not in repr(proxy)
    proxy.for_httpx()
    with pytest.raises(SettingsError, match=r"\[proxy\] url 'ftp://x' in site.toml"):
        Proxy(url="ftp://x").for_httpx()


def test_the_site_shows_its_account_to_the_proxy_and_says_what_to_do_if_it_is_refused(tmp_path):
    authority = CertificateFiles.under(tmp_path)
    make_authority(authority, name="tests")
    asked = []

    class Refusing(socketserver.StreamRequestHandler):
        def handle(self):
            while line := self.rfile.readline().strip():
                asked.append(line)
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        proxy = Proxy(url=url, credentials=("north", "se:cret"))
        with (
            Connection("fl.example.org", 9092, authority.authority_der(), proxy=proxy) as line,
            pytest.raises(UnreachableError, match=r"the proxy does not connect .*credentials"),
        ):
            line.hello()
        server.shutdown()
    assert asked[0] == b"CONNECT fl.example.org:9092 HTTP/1.1"
    account = base64.b64encode(b"north:se:cret")
    assert b"Proxy-Authorization: Basic " + account in asked
