"""A small FHIR server of ours on loopback, with TLS: searches, exports, SMART backend services.

It stands in for HAPI FHIR, which needs Java. It keeps to the parts of the standards that the client
uses, and misbehaves on demand.
"""

import datetime as dt
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


def private_pem(key: Any) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.pem").write_bytes(made.public_bytes(PEM))
    (folder / "tls-key.pem").write_bytes(private_pem(key))
    return folder / "tls.pem", folder / "tls-key.pem"


@dataclass
class FhirServer:
    """What the server holds, how it misbehaves, and what it was asked.

    ``faults`` are answered first, in order, to the paths that contain their text: a status, with
    Retry-After 0, or ``cut`` for a line that breaks in the middle of the answer.
    """

    resources: list[dict[str, Any]]
    address: str = ""
    ca: Path = Path()
    page: int = 2
    polls: int = 2
    public_key: Any = None
    faults: list[tuple[str, int | str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    jtis: set[str] = field(default_factory=set)
    next_host: str = ""
    file_host: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)
    damage: Callable[[bytes], bytes] = bytes

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.resources if one["resourceType"] == kind]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FhirServer

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, content: Any = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        body = self.state.damage(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _faulty(self) -> bool:
        for one in self.state.faults:
            text, fault = one
            if text in self.path:
                self.state.faults.remove(one)
                if fault == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"resourceType": "Pat')
                    self.close_connection = True
                elif isinstance(fault, int):
                    self._answer(fault, {"resourceType": "OperationOutcome"}, Retry_After="0",
                                 Location="https://elsewhere.example.org/")  # fmt: skip
                return True
        return False

    def _allowed(self) -> bool:
        state = self.state
        if state.public_key is None:
            return True
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given in state.tokens:
            return True
        self._answer(401)
        return False

    def do_GET(self) -> None:  # the library's name
        state, parts = self.state, urlsplit(self.path)
        state.asked.append(self.path)
        if parts.path == "/fhir/.well-known/smart-configuration":
            self._answer(200, {"token_endpoint": f"{state.address}/token"})
            return
        if not self._allowed() or self._faulty():
            return
        query = parse_qs(parts.query)
        if parts.path == "/fhir/metadata":
            self._answer(200, {"resourceType": "CapabilityStatement"})
        elif parts.path in ("/fhir/$export", "/fhir/Group/icu/$export"):
            assert self.headers["Prefer"] == "respond-async"
            self._answer(202, Content_Location=f"{state.address}/fhir/status/1")
        elif parts.path == "/fhir/status/1":
            state.polls -= 1
            if state.polls > 0:
                self._answer(202, Retry_After="0", X_Progress="half")
                return
            kinds = sorted({one["resourceType"] for one in state.resources})
            host = state.file_host or state.address
            output = [{"type": kind, "url": f"{host}/files/{kind}/{n}"}
                      for kind in kinds for n in (0, 1)]  # fmt: skip
            errors = [{"type": "OperationOutcome", "url": f"{state.address}/files/errors"}]
            self._answer(200, {"output": output, "error": errors if state.errors else []})
        elif parts.path.startswith("/files/"):
            kind = parts.path.split("/")[2]
            found = state.errors if kind == "errors" else state.of(kind)
            if kind != "errors":
                found = found[int(parts.path.split("/")[3]) :: 2]
            self._answer(200, "\n".join(map(json.dumps, found)).encode())
        else:
            self._page(parts.path.rpartition("/")[2], query)

    def _page(self, kind: str, query: dict[str, list[str]]) -> None:
        state = self.state
        found, begin = state.of(kind), int(query.get("_offset", ["0"])[0])
        links = [{"relation": "self", "url": f"{state.address}{self.path}"}]
        if begin + state.page < len(found):
            host = state.next_host or state.address
            links.append({"relation": "next",
                          "url": f"{host}/fhir/{kind}?_offset={begin + state.page}"})  # fmt: skip
        entries = [{"resource": one} for one in found[begin : begin + state.page]]
        self._answer(200, {"resourceType": "Bundle", "type": "searchset", "link": links,
                           "entry": entries})  # fmt: skip

    def do_DELETE(self) -> None:  # the library's name
        self.state.asked.append(f"DELETE {self.path}")
        if self._allowed():
            self._answer(202)

    def do_POST(self) -> None:  # the library's name
        import jwt

        state = self.state
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        state.asked.append(f"POST {self.path}")
        try:
            claims = jwt.decode(
                form["client_assertion"][0], state.public_key, algorithms=["RS384", "ES384"],
                audience=f"{state.address}/token",
                options={"require": ["iss", "sub", "aud", "exp", "jti"]},
            )  # fmt: skip
            assert claims["iss"] == claims["sub"] == "site-7"
            assert claims["exp"] <= time.time() + 300
            assert claims["jti"] not in state.jtis
            assert form["grant_type"] == ["client_credentials"]
        except (jwt.PyJWTError, AssertionError, KeyError):
            self._answer(400, {"error": "invalid_client"})
            return
        state.jtis.add(claims["jti"])
        state.tokens.append(f"token-{len(state.tokens)}")
        self._answer(200, {"access_token": state.tokens[-1], "token_type": "bearer",
                           "expires_in": 300})  # fmt: skip


@contextmanager
def running(folder: Path, resources: list[dict[str, Any]]) -> Iterator[FhirServer]:
    """Start a server on a free port, and end it."""
    state = FhirServer(resources)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    state.ca, key = certificate(folder)
    context.load_cert_chain(state.ca, key)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    state.address = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
