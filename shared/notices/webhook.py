"""One notice posted as JSON to a web address, signed with a secret that the receiver has, too.

::

    POST /PATH
    Content-Type: application/json
    Idempotency-Key: 0f3c...           the notice's identifier: the same at each attempt
    Consilium-Timestamp: 1764000000    when this attempt was made, seconds since 1970
    Consilium-Signature: v1=5d41...    HMAC-SHA256(secret, timestamp + "." + body), hexadecimal

Only an answer of 2xx counts as taken. Redirections are not followed: a notice goes nowhere but to
the addresses in the settings. http:// is for this machine alone and goes past any proxy.
"""

import hashlib
import hmac
import json
import ssl
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from consilium.shared.errors import SettingsError, UnreachableError
from consilium.shared.files.private_text import read_private
from consilium.shared.notices.outbox import Notice
from consilium.shared.notices.settings import LEAST_SECRET, LOOPBACK, WebhookSettings
from consilium.shared.service.terminal import one_line
from consilium.shared.version import VERSION

TIMEOUT_S = 20.0
ID_HEADER, TIME_HEADER, SIGNATURE_HEADER = (
    "Idempotency-Key",
    "Consilium-Timestamp",
    "Consilium-Signature",
)


def to_body(notice: Notice) -> bytes:
    """Return the notice as it is posted: one JSON object, ASCII, the same at each attempt."""
    content = {
        "version": 1,
        "id": notice.id,
        "kind": notice.kind,
        "at": datetime.fromtimestamp(notice.formed, UTC).isoformat(timespec="seconds"),
        "subject": notice.subject,
        "text": notice.text,
        **notice.fields,
    }
    return json.dumps(content).encode()


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``Consilium-Signature``."""
    signed = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1={signed.hexdigest()}"


def post(
    notice: Notice,
    url: str,
    settings: WebhookSettings,
    folder: Path,
    context: ssl.SSLContext,
    *,
    proxy: httpx.Proxy | None,
    now: float,
) -> str:
    """Post a notice to one address; return what was answered, in a few words.

    Args:
        notice: what to send.
        url: one of the settings' ``urls``.
        settings: with the name of the file that holds the secret.
        folder: where that file lies.
        context: verifies the server.
        proxy: to go through; None leaves that to ``HTTPS_PROXY``.
        now: seconds since 1970.

    Raises:
        SettingsError: the file with the secret cannot be used.
        UnreachableError: no answer, or another one than 2xx.
    """
    file = folder / settings.secret
    secret = read_private(file, named="[notices.webhook] secret")
    if len(secret) < LEAST_SECRET:
        raise SettingsError(
            f"{file}: has {len(secret)} characters, and a secret needs {LEAST_SECRET}; write a "
            "longer one, such as 'openssl rand -hex 32' gives"
        )
    body, timestamp = to_body(notice), int(now)
    local = urlsplit(url).hostname in LOOPBACK
    try:
        with (
            httpx.Client(
                verify=context,
                timeout=TIMEOUT_S,
                follow_redirects=False,
                proxy=None if local else proxy,
                trust_env=not local,
            ) as client,
            client.stream(
                "POST",
                url,
                content=body,
                headers={
                    "Content-Type": "application/json",
                    "User-Agent": f"consilium/{VERSION}",
                    ID_HEADER: notice.id,
                    TIME_HEADER: str(timestamp),
                    SIGNATURE_HEADER: sign(secret, timestamp, body),
                },
            ) as reply,
        ):
            return _taken(reply.status_code)  # its body is not read
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise UnreachableError(_reason(error)) from None


def _taken(status: int) -> str:
    if 200 <= status < 300:
        return f"status {status}"
    if 300 <= status < 400:
        raise UnreachableError(
            f"the webhook answered {status}, a redirection, which is not followed; write the "
            "address that it leads to"
        )
    raise UnreachableError(f"the webhook answered {status}")


def _reason(error: Exception) -> str:
    """Return why a webhook was not reached, in one line."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return (
            f"the webhook's certificate does not verify ({one_line(cause.verify_message)}); name "
            "its authority in [notices] authority"
        )
    if isinstance(error, httpx.TimeoutException):
        return "the webhook did not answer in time"
    if isinstance(error, httpx.ProxyError):
        return f"the proxy does not connect to the webhook ({one_line(str(error))[:100]})"
    return f"the webhook cannot be reached ({one_line(str(error) or type(error).__name__)[:100]})"
