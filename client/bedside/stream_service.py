"""The streaming scorer as a service: NDJSON on standard input, or HTTP on 127.0.0.1.

::

    POST /events    one JSON event per line; answers with one JSON line for each, in order
    GET  /health    {"status": "ok", "stays": ...}

An event that cannot be used is answered with ``{"error": sentence}`` and changes nothing. Only
programs on this machine are answered, and nothing about a patient is logged.
"""

import json
import threading
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO, Protocol, TextIO

from consilium.shared.errors import ConsiliumError, DataError
from consilium.shared.service.local_service import HERE, LocalService

TIMEOUT_S = 60.0
LARGEST_BODY_BYTES = 1 << 20
LARGEST_LINE_BYTES = 1 << 16


class AnyScorer(Protocol):
    """What takes lines: events, recordings or FHIR resources."""

    @property
    def stays(self) -> int:
        """Number of stays in memory."""

    def take(self, line: dict[str, Any], /) -> dict[str, Any]:
        """Take a line and answer it.

        Raises:
            ConsiliumError: it cannot be used.
        """


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines as they come; of an overlong line only enough to recognise it as such."""
    while line := stream.readline(LARGEST_LINE_BYTES + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(LARGEST_LINE_BYTES + 1)
        yield line


def answer_line(scorer: AnyScorer, line: bytes) -> tuple[bytes, bool]:
    """Answer one line; return the answer as a line, and whether the event was accepted."""
    try:
        answer, taken = scorer.take(_event(line)), True
    except ConsiliumError as error:
        answer, taken = {"error": str(error)}, False
    return json.dumps(answer).encode() + b"\n", taken


def answer_stream(scorer: AnyScorer, lines: Iterable[bytes], out: TextIO) -> tuple[int, int]:
    """Answer every non-empty line as it comes; return the number of lines and of failures."""
    number, failed = 0, 0
    for line in lines:
        if not line.strip():
            continue
        answer, taken = answer_line(scorer, line)
        out.write(answer.decode())
        out.flush()
        number, failed = number + 1, failed + (not taken)
    return number, failed


class StreamService(LocalService):
    """The HTTP service, in threads of its own; events are processed one at a time.

    Args:
        scorer: answers the events.
        port: port on 127.0.0.1; 0 takes a free one.

    Raises:
        SettingsError: the port is taken.
    """

    def __init__(self, scorer: AnyScorer, *, port: int) -> None:
        lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"scorer": scorer, "lock": lock})
        super().__init__(
            ThreadingHTTPServer,
            handler,
            port,
            name="stream",
            taken=("", "choose another --http"),
        )


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection; ``scorer`` and ``lock`` are set by the service."""

    timeout = TIMEOUT_S
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "consilium", ""
    disable_nagle_algorithm = True  # or the answer waits for the other side's acknowledgement
    wbufsize = -1  # head and body in one packet
    scorer: AnyScorer
    lock: threading.Lock

    def do_GET(self) -> None:
        """Answer /health."""
        if not self._from_here():
            return
        if self.path != "/health":
            self._answer(HTTPStatus.NOT_FOUND, _error_line("POST /events or GET /health"))
            return
        health = {"status": "ok", "stays": self.scorer.stays}
        self._answer(HTTPStatus.OK, json.dumps(health).encode() + b"\n")

    def do_POST(self) -> None:
        """Answer /events, one line for each line."""
        if not self._from_here():
            return
        length = self.headers.get("Content-Length", "")
        digits = len(str(LARGEST_BODY_BYTES))
        if not length.isdecimal() or int(length[: digits + 1]) > LARGEST_BODY_BYTES:
            self.close_connection = True
            sentence = f"a request must say its length, at most {LARGEST_BODY_BYTES} bytes"
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _error_line(sentence))
            return
        body = self.rfile.read(int(length))
        if self.path != "/events":
            self._answer(HTTPStatus.NOT_FOUND, _error_line("POST /events or GET /health"))
            return
        lines = [line for line in body.splitlines() if line.strip()]
        with self.lock:
            answers = [answer_line(self.scorer, line) for line in lines]
        taken = all(taken for _, taken in answers)
        code = HTTPStatus.OK if taken else HTTPStatus.UNPROCESSABLE_ENTITY
        self._answer(code, b"".join(line for line, _ in answers))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: requests are about patients."""

    def _from_here(self) -> bool:
        """Refuse web pages whose host name was pointed at this machine (DNS rebinding)."""
        host = self.headers.get("Host", "").partition(":")[0]
        if host in HERE and "Origin" not in self.headers:
            return True
        self.close_connection = True
        self._answer(
            HTTPStatus.FORBIDDEN, _error_line("only programs on this machine are answered")
        )
        return False

    def _answer(self, code: HTTPStatus, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _error_line(sentence: str) -> bytes:
    return json.dumps({"error": sentence}).encode() + b"\n"


def _event(line: bytes) -> dict[str, Any]:
    if len(line) > LARGEST_LINE_BYTES:
        raise DataError(f"the line has more than {LARGEST_LINE_BYTES} bytes; send one event a line")
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError("the line is not JSON; send one event a line") from None
    if not isinstance(event, dict):
        raise DataError("the line is not a JSON object; send one event a line")
    return event
