"""The site's only way to the coordinator: HTTPS to one host and port, under one pinned authority.

Nothing listens. The address and the certificate authority come from the invitation; no other
authority is trusted, and redirections are not followed. A proxy named by ``HTTPS_PROXY`` is used
through CONNECT, so TLS still ends at the coordinator. The length of replies is bounded.

The site's clock may be wrong, so requests are signed with the coordinator's time, which its replies
give.
"""

import base64
import logging
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import load_der_x509_certificate

from consilium.client.hospital.folder import public_pem
from consilium.client.service.proxy import Proxy
from consilium.shared.enrolment.messages import BUDGET_HEADER, HELLO_PATH, VERSION_HEADER
from consilium.shared.errors import (
    AuthenticationError,
    ConsiliumError,
    ProtocolError,
    UnreachableError,
)
from consilium.shared.version import VERSION

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0  # the coordinator answers a waiting site after 10 s
LARGEST_REPLY = 16 << 20
SAYS_WHY = (503, 507)  # the coordinator's disk
RESIGN_AFTER_S = 60.0  # Flower accepts a signature for five minutes

log = logging.getLogger(__name__)


def pinned_context(authority: bytes) -> ssl.SSLContext:
    """Return a TLS context that trusts only this authority (DER), under any name.

    Raises:
        AuthenticationError: the bytes are not a certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The authority signs this one coordinator's certificates and no other's, so the chain says who
    # answers. A name would say where; it changes when the coordinator moves.
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=authority)
    except ssl.SSLError:
        raise AuthenticationError(
            "the pinned certificate authority is damaged; enrol again with a new invitation"
        ) from None
    return context


class Connection:
    """Requests to the coordinator, signed with the site's node key if there is one.

    Args:
        host, port: the coordinator's address.
        authority: the pinned authority's certificate, DER.
        key: the node key; None before enrolment.
        proxy: the proxy to dial through; None leaves that to HTTPS_PROXY.
        clock: returns seconds since 1970 by this machine's clock.

    Raises:
        AuthenticationError: the authority is not a certificate.
        SettingsError: the proxy's address is none.
    """

    def __init__(
        self,
        host: str,
        port: int,
        authority: bytes,
        key: ec.EllipticCurvePrivateKey | None = None,
        *,
        proxy: Proxy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{port}"
        self._clock, self._key = clock, key
        self._http = httpx.Client(
            base_url=f"https://{self.address}",
            verify=pinned_context(authority),
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            proxy=None if proxy is None else proxy.for_httpx(),
            headers={VERSION_HEADER: VERSION, "accept-encoding": "identity"},
        )
        self._lock = threading.Lock()
        self._signed: dict[str, str] = {}
        self._signed_at = float("-inf")
        self.clock_ahead_s = 0.0
        self._shown: bytes | None = None
        self._budget_header: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def hello(self) -> None:
        """Ask for the coordinator's time, without naming this site.

        Raises:
            UnreachableError: no answer.
            AuthenticationError: the other end is not the pinned coordinator.
        """
        self._exchange("GET", HELLO_PATH, b"", {}, "application/octet-stream", None)

    def certificate_ends(self) -> datetime | None:
        """Return when the certificate that the coordinator showed last ends; None before any."""
        shown = self._shown
        return None if shown is None else load_der_x509_certificate(shown).not_valid_after_utc

    def tell_budget_left(self, epsilon: float) -> None:
        """Send this lifetime epsilon, as a header, with every signed request from now on."""
        self._budget_header = {BUDGET_HEADER: f"{max(0.0, epsilon):.2f}"}

    def post(
        self,
        path: str,
        body: bytes,
        *,
        media_type: str = "application/octet-stream",
        timeout_s: float | None = None,
    ) -> bytes:
        """Send a request and return the reply's body.

        Raises:
            UnreachableError: no answer; the request may or may not have arrived.
            AuthenticationError: the other end is not the pinned coordinator, or rejects this site.
            ProtocolError: the coordinator refused; the sentence is the coordinator's.
        """
        if self._key is None:
            return self._exchange("POST", path, body, {}, media_type, timeout_s)
        signed = self._signature()
        try:
            return self._exchange(
                "POST", path, body, signed | self._budget_header, media_type, timeout_s
            )
        except AuthenticationError:
            again = self._signature()
            if not self._was_mistimed(signed, again):
                raise
        return self._exchange(
            "POST", path, body, again | self._budget_header, media_type, timeout_s
        )

    @staticmethod
    def _was_mistimed(signed: dict[str, str], again: dict[str, str]) -> bool:
        """Tell whether the refusal's time showed that the request bore a wrong one."""
        stamps = [datetime.fromisoformat(one["flwr-timestamp"]) for one in (signed, again)]
        return abs((stamps[1] - stamps[0]).total_seconds()) > RESIGN_AFTER_S

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: dict[str, str],
        media_type: str,
        timeout_s: float | None,
    ) -> bytes:
        timeout = self._http.timeout if timeout_s is None else httpx.Timeout(timeout_s)
        try:
            with self._http.stream(
                method,
                path,
                content=body,
                headers={**headers, "content-type": media_type, "accept": media_type},
                timeout=timeout,
            ) as reply:
                self._learn_time(reply)
                self._learn_certificate(reply)
                content = _bounded(reply)
        except httpx.ConnectError as error:
            raise self._unreachable(error) from None
        except httpx.ProxyError as error:
            raise UnreachableError(
                f"the proxy does not connect this site to {self.address} ({error}); ask the "
                "network's administrators to allow it, and put the account that it asks for into "
                "the file that [proxy] credentials in site.toml names"
            ) from None
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(f"no answer from {self.address}: {reason}") from None
        if reply.status_code == 200:
            return content
        raise self._refusal(reply.status_code, content)

    def _signature(self) -> dict[str, str]:
        """Return the headers of Flower's node authentication: a time, signed anew each minute."""
        key = self._key
        with self._lock:
            now = time.monotonic()
            if key is not None and now - self._signed_at > RESIGN_AFTER_S:
                theirs = datetime.fromtimestamp(self._clock() - self.clock_ahead_s, UTC)
                stamp = theirs.isoformat()
                signature = key.sign(stamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
                self._signed = {
                    "flwr-public-key": base64.b64encode(public_pem(key)).decode(),
                    "flwr-timestamp": stamp,
                    "flwr-signature": base64.b64encode(signature).decode(),
                }
                self._signed_at = now
            return dict(self._signed)

    def _learn_time(self, reply: httpx.Response) -> None:
        """Measure how far this clock is ahead of the coordinator's; if that changed, sign anew."""
        try:
            theirs = parsedate_to_datetime(reply.headers.get("date", "")).timestamp()
        except ValueError:
            return
        ahead_s = self._clock() - theirs
        with self._lock:
            if abs(ahead_s - self.clock_ahead_s) > 2.0:  # the header counts whole seconds
                self.clock_ahead_s = ahead_s if abs(ahead_s) > 2.0 else 0.0
                self._signed_at = float("-inf")

    def _learn_certificate(self, reply: httpx.Response) -> None:
        """Remember the certificate of a connection that is open."""
        stream = reply.extensions.get("network_stream")
        line = None if stream is None else stream.get_extra_info("ssl_object")
        if line is not None:
            self._shown = line.getpeercert(True)  # DER; httpx gives the inner object

    def _unreachable(self, error: httpx.ConnectError) -> ConsiliumError:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        reason = str(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return AuthenticationError(
                f"{self.address} does not show the certificate that was pinned at enrolment "
                f"({cause.verify_message}); if it has expired the coordinator must renew it with "
                "'rotate-keys', if a proxy opens TLS this address must be exempted from it",
                case="certificate",
            )
        return UnreachableError(
            f"{self.address} cannot be reached ({reason}); check the name, the firewall's rule for "
            "outgoing connections, the proxy, and that the coordinator is running"
        )

    def _refusal(self, status: int, content: bytes) -> ConsiliumError:
        sentence = _sentence(content)
        if status == 401:
            with self._lock:
                self._signed_at = float("-inf")
            return AuthenticationError(
                f"{self.address} does not accept this site: {sentence}", case="not-accepted"
            )
        if status >= 500:
            said = f": {sentence}" if status in SAYS_WHY else ""
            return UnreachableError(
                f"{self.address} failed ({status}){said}; trying again may help"
            )
        return ProtocolError(f"{self.address} refused: {sentence}")


def _bounded(reply: httpx.Response) -> bytes:
    """Read a reply, up to the largest length that a site accepts."""
    content = bytearray()
    for piece in reply.iter_raw():
        content += piece
        if len(content) > LARGEST_REPLY:
            raise ProtocolError(
                f"the coordinator's reply is longer than the {LARGEST_REPLY} bytes that are taken"
            )
    return bytes(content)


def _sentence(content: bytes) -> str:
    text = content[:2000].decode("utf-8", "replace")
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:500] or "no reason given"
