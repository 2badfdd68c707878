"""Health and measurements of the coordinator, over HTTP on 127.0.0.1 unless told otherwise.

``GET /health`` answers 200 or 503 with a JSON list of what is wrong, ``GET /metrics`` the text
format of Prometheus, ``GET /`` the operator's page. Nothing else is answered, and nothing can be
changed. One request is served at a time, and a silent client is cut off.

In a container the loopback address is the container's own, so there the monitor is told to listen
on another one, and whoever publishes the port says who reaches it.
"""

import ipaddress
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlsplit

from consilium.server.service.operator_page import POLICY
from consilium.shared.service.local_service import HERE, HOST, LocalService
from consilium.shared.service.prometheus import CONTENT_TYPE, Metric, Sample, gauge, to_text

TIMEOUT_S = 5.0
LEAST_DISK_BYTES = 1 << 30

log = logging.getLogger(__name__)

Status = Callable[[], dict[str, Any]]
Ailments = Callable[[], list[str]]
Page = Callable[[dict[str, Any], list[str]], str]


class Monitor(LocalService):
    """An HTTP server in a thread of its own.

    Args:
        port: 0 takes a free one.
        status: what :func:`consilium.server.service.overview.status` returns.
        ailments: one sentence for each thing that is wrong.
        page: builds the operator's page from the status and the ailments.
        listen: address to answer on.

    Raises:
        SettingsError: the port is taken, or this machine does not have the address.
    """

    def __init__(
        self, port: int, *, status: Status, ailments: Ailments, page: Page, listen: str = HOST
    ) -> None:
        here_only = listen in HERE
        parts = {"status": status, "ailments": ailments, "page": page, "here_only": here_only}
        handler = type("Handler", (_Handler,), parts)
        super().__init__(
            HTTPServer,
            handler,
            port,
            name="monitor",
            taken=("monitor: ", "choose another --monitor-port, or 0 for none"),
            host=listen,
        )


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; what is not set here is set by the monitor."""

    timeout = TIMEOUT_S
    server_version = "consilium"
    sys_version = ""
    status: Status
    ailments: Ailments
    page: Page
    here_only: bool

    def do_GET(self) -> None:
        """Answer /, /health and /metrics, if Host is one of ours (against DNS rebinding)."""
        if not self._may_be_asked():
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"ask by address, such as 127.0.0.1\n")
        elif self.path == "/health":
            wrong = type(self).ailments()
            code = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
            health = {"status": "ailing" if wrong else "ok", "wrong": wrong}
            self._answer(code, "application/json", json.dumps(health).encode() + b"\n")
        elif self.path == "/metrics":
            text = to_text(metrics(type(self).status(), type(self).ailments()))
            self._answer(HTTPStatus.OK, CONTENT_TYPE, text.encode())
        elif self.path == "/":
            text = type(self).page(type(self).status(), type(self).ailments())
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", text.encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"/, /health or /metrics\n")

    def _may_be_asked(self) -> bool:
        """Tell whether Host is a name of the loopback address, or, if others may ask, an address.

        A page elsewhere that binds its own name to this machine's address shows that name.
        """
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            if not (self.here_only or name in HERE):
                ipaddress.ip_address(name)
        except ValueError:
            return False
        return name in HERE or not self.here_only

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: a collector of metrics asks every few seconds."""

    def _answer(self, code: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", f"{POLICY}; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)


def disk_ailments(free_bytes: int) -> list[str]:
    """Return one sentence if the disk is nearly full, else none."""
    if free_bytes >= LEAST_DISK_BYTES:
        return []
    return [
        f"{free_bytes >> 20} MiB are free on the disk, below {LEAST_DISK_BYTES >> 20}; make room"
    ]


def free_bytes(folder: str) -> int:
    """Return the free bytes of the disk that holds this folder."""
    return shutil.disk_usage(folder).free


def certificate_ailments(ends: datetime, now: datetime) -> list[str]:
    """Return one sentence if the server's certificate has expired, else none."""
    if ends > now:
        return []
    return [f"the server certificate ended {ends:%Y-%m-%d}; run 'rotate-keys'"]


def metrics(status: Mapping[str, Any], wrong: list[str]) -> list[Metric]:
    """Return a status as metrics for Prometheus."""
    ends = datetime.fromisoformat(status["certificate_ends"])
    sites = [site for site in status["sites"] if not site["revoked"]]
    studies = status["studies"]
    audit, notices = status["audit"] or {}, status["notices"] or {}
    return [
        gauge("consilium_healthy", "1 if nothing is known to be wrong.", not wrong),
        gauge(
            "consilium_certificate_seconds_left",
            "Seconds until the server's certificate ends.",
            (ends - datetime.now(UTC)).total_seconds(),
        ),
        gauge("consilium_audit_entries", "Entries of the audit log.", audit.get("entries")),
        _by("consilium_audit_divergences_total", "How often a site's audit log did not continue.",
            "site", audit.get("divergences", {}), kind="counter"),
        _by("consilium_audit_events_total", "Entries of the audit log, by kind.", "event",
            audit.get("counts", {}), kind="counter"),
        _by("consilium_notice_deliveries", "Deliveries of notices, by what became of them.",
            "outcome", {one: notices.get(one) for one in ("sent", "waiting", "given_up")}),
        _by("consilium_notice_failures_total", "What failed: attempts to deliver, events lost.",
            "of", {"attempts": notices.get("failed_attempts"), "events": notices.get("lost")},
            kind="counter"),
        _by("consilium_site_seen_seconds_ago", "Seconds since a site last asked for work.", "site",
            {site["site"]: site["seen_s_ago"] for site in sites}),
        Metric(
            name="consilium_study_state",
            help="1 for the state that a study is in.",
            samples=tuple(
                Sample(value=1, labels={"study": study["study"], "state": study["state"]})
                for study in studies
            ),
        ),
        *(
            _by(f"consilium_round_{name}", description, "study",
                {s["study"]: read(s["last_round"]) for s in studies if s["last_round"]})
            for name, description, read in (
                ("number", "Number of a study's last round.", lambda last: last["round"]),
                ("void", "1 if the last round gave nothing.", lambda last: bool(last["void"])),
                ("sites", "Sites in the last round's sum.", lambda last: len(last["sites"])),
                ("seconds", "Seconds that the last round took.", lambda last: last["seconds"]),
                ("epsilon", "Epsilon that a study has spent.", lambda last: last["epsilon"]),
            )
        ),
    ]  # fmt: skip


def _by(
    name: str, description: str, label: str, values: Mapping[str, float | None], kind: Any = "gauge"
) -> Metric:
    samples = tuple(
        Sample(value=float(value), labels={label: key})
        for key, value in values.items()
        if value is not None
    )
    return Metric(name=name, help=description, samples=samples, kind=kind)
