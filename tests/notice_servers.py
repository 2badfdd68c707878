"""A mail server and a web server on loopback that keep what they are sent, and fail as asked."""

import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as modern
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from consilium.server.coordinator.certificates import (
    CertificateFiles,
    issue_server_certificate,
    make_authority,
)


@dataclass
class Inbox:
    """What a server took, and how it is to behave.

    Attributes:
        taken: what it took: mails as (envelope, bytes), posts as (headers, bytes).
        fail: the answer to the next ones, one each: a code, or None to break off without one.
        greetings: names by which mail servers were greeted.
    """

    port: int = 0
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    fail: list[int | None] = field(default_factory=list)
    greetings: list[str] = field(default_factory=list)
    break_after: int = 0  # of the next ones: take it, and break off without acknowledging

    def mails(self) -> list[EmailMessage]:
        """What was taken, as mails."""
        return [message_from_bytes(content, policy=modern) for _, content in self.taken]  # type: ignore[misc]

    def wait(self, count: int, seconds: float = 60) -> None:
        """Wait until so many were taken."""
        deadline = time.monotonic() + seconds
        while len(self.taken) < count:
            assert time.monotonic() < deadline, f"{len(self.taken)} of {count} arrived"
            time.sleep(0.01)


def certificates(folder: Path, *names: str, ended: bool = False) -> CertificateFiles:
    """An authority and a certificate for these names, in a new folder."""
    folder.mkdir()
    files = CertificateFiles.under(folder)
    make_authority(files, name="tests")
    now = datetime.now(UTC) - timedelta(days=30) if ended else None
    issue_server_certificate(files, names or ("127.0.0.1",), days=1, now=now)
    return files


def server_context(files: CertificateFiles) -> ssl.SSLContext:
    """TLS as a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server, files.server_key)
    return context


class _Mail(socketserver.StreamRequestHandler):
    """One SMTP session; ``inbox``, ``tls``, ``wrapped`` and ``account`` are set by the server."""

    inbox: Inbox
    tls: ssl.SSLContext | None
    wrapped: bool
    account: str

    def handle(self) -> None:
        if self.wrapped and self.tls is not None:
            self._encrypt()
        envelope: dict[str, str] = {}
        secret = self.wrapped
        self._say("220 ready")
        while line := self.rfile.readline():
            word, _, rest = line.decode("ascii").strip().partition(" ")
            word = word.upper()
            if word == "EHLO":
                self.inbox.greetings.append(rest)
                more = ["250-STARTTLS"] if self.tls is not None and not secret else []
                self._say("\r\n".join(["250-here", *more, "250-AUTH PLAIN", "250 8BITMIME"]))
            elif word == "STARTTLS":
                self._say("220 go on")
                self._encrypt()
                secret = True
            elif word == "AUTH":
                envelope["account"] = rest.partition(" ")[2]
                self._say("235 ok" if envelope["account"] == self.account else "535 who are you?")
            elif word in ("MAIL", "RCPT"):
                envelope[word] = rest
                self._say("250 ok")
            elif word == "DATA":
                if not self._take(envelope | {"tls": str(secret)}):
                    return
            else:
                self._say("221 bye" if word == "QUIT" else "502 no")

    def _take(self, envelope: dict[str, str]) -> bool:
        self._say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b"..") else line)
        code = self.inbox.fail.pop(0) if self.inbox.fail else 250
        if code is None:
            return False
        if code != 250:
            self._say(f"{code} not now, come back\x1b[2J")
            return True
        self.inbox.taken.append((envelope, b"".join(lines)))
        if self.inbox.break_after:
            self.inbox.break_after -= 1
            return False
        self._say("250 2.0.0 queued as 4711")
        return True

    def _encrypt(self) -> None:
        assert self.tls is not None
        self.request = self.connection = self.tls.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb")

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")
        self.wfile.flush()


class _Quiet(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is what tests do."""


@contextmanager
def mail_server(
    tls: ssl.SSLContext | None = None, *, wrapped: bool = False, account: str = "", port: int = 0
) -> Iterator[Inbox]:
    """A mail server: STARTTLS with a context, TLS from the start if ``wrapped``."""
    inbox = Inbox()
    parts = {"inbox": inbox, "tls": tls, "wrapped": wrapped, "account": account}
    with _served(_Quiet(("127.0.0.1", port), type("Mail", (_Mail,), parts)), inbox):
        yield inbox


@contextmanager
def web_server(tls: ssl.SSLContext | None = None, *, port: int = 0) -> Iterator[Inbox]:
    """A web server that takes posts."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = inbox.fail.pop(0) if inbox.fail else 204
            if code is None:
                return
            if 200 <= code < 300:
                inbox.taken.append((dict(self.headers) | {"path": self.path}, body))
            if inbox.break_after:
                inbox.break_after -= 1
                return
            self.send_response(code)
            if 300 <= code < 400:
                self.send_header("Location", f"http://127.0.0.1:{inbox.port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that breaks off is what tests do."""

    server = Server(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with _served(server, inbox):
        yield inbox


@contextmanager
def _served(server: socketserver.TCPServer, inbox: Inbox) -> Iterator[None]:
    inbox.port = int(server.server_address[1])
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
