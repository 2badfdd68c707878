"""The connection to a FHIR server: TLS, tokens, retries, and bounds on all that comes.

The server's certificate is always verified. Redirects are not followed. An answer's text is never
shown, since it could quote a patient; its status is. SMART App Launch, "Backend Services",
https://hl7.org/fhir/smart-app-launch/backend-services.html
"""

import json
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from consilium.client.sources.common.needs import needs
from consilium.client.sources.own.databases.database import secret_of_environment, secret_of_file
from consilium.client.sources.own.settings.systems import FhirAuth, FhirSettings
from consilium.shared.errors import DataError, SettingsError

TRIES = 6
CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 120.0
LONGEST_PAUSE_S = 600.0  # of one Retry-After
LARGEST_ANSWER = 8 << 20  # bytes of anything that is no page and no file
POLL_S = 10.0
TOKEN_LIFE_S = 300  # of the assertion; SMART allows five minutes at most
_BUSY = frozenset({429, 500, 502, 503, 504})
_LOG = logging.getLogger(__name__)
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def wait(seconds: float) -> None:
    """Do nothing for so many seconds."""
    time.sleep(seconds)


def host_of(url: str) -> str:
    """Return an address's host and port, empty if it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}" if parts.hostname and port != 443 else parts.hostname or ""


class Connection:
    """A connection to one FHIR server.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
        client: speaks HTTP.
        pause: waits so many seconds.
        clock: returns seconds that never go back.
    """

    def __init__(
        self,
        settings: FhirSettings,
        client: httpx.Client,
        *,
        pause: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._client = settings, client
        self._base = settings.server or ""
        self._pause, self._clock = pause, clock
        self._token, self._token_until = "", 0.0

    @classmethod
    @contextmanager
    def open(cls, settings: FhirSettings) -> Iterator[Self]:
        """Open a connection; TLS is always verified.

        Raises:
            SettingsError: ``ca_file`` holds no certificate.
        """
        try:
            context = ssl.create_default_context(
                cafile=None if settings.ca_file is None else str(settings.ca_file)
            )
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"{settings.ca_file}: holds no certificate in PEM; correct [data] ca_file in "
                "site.toml"
            ) from error
        timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        with httpx.Client(verify=context, timeout=timeout, follow_redirects=False) as client:
            yield cls(settings, client, pause=wait)

    def json(self, url: str, what: str, *, largest: int = LARGEST_ANSWER) -> dict[str, Any]:
        """Return an answer's JSON object.

        Raises:
            DataError: the server refuses, or answers with something else.
        """
        content, _, _ = self._ask("GET", url, what, largest=largest)
        return self._object(content, what)

    def fetch(
        self, url: str, what: str, *, keep: Callable[[bytes], None], again: Callable[[], None]
    ) -> None:
        """Pass on a file's bytes; ``again`` is called before a new try begins with the first."""
        self._ask("GET", url, what, keep=keep, again=again, accept="application/fhir+ndjson")

    def begin_export(self, url: str) -> str:
        """Ask for a bulk export; return the address that tells its state."""
        _, status, headers = self._ask("GET", url, "the export", more={"Prefer": "respond-async"})
        place = headers.get("content-location", "")
        if status != 202 or not place:
            raise DataError(
                f"{self._base}: the export is answered by {status}, not by 202 and a place to ask "
                'again; the server may not know bulk exports: write fetch = "search" in [data]'
            )
        return str(place)

    def wait_for_export(self, url: str, longest_h: float) -> dict[str, Any]:
        """Ask for an export's state until it is ready; return its list of files.

        Raises:
            DataError: it takes too long, or failed.
        """
        until = self._clock() + longest_h * 3600
        while True:
            content, status, headers = self._ask("GET", url, "the state of the export")
            if status != 202:
                return self._object(content, "the state of the export")
            pause = _asked_pause(headers, POLL_S)
            if self._clock() + pause > until:
                raise DataError(
                    f"{self._base}: the export was not ready within {longest_h:g} hours; raise "
                    "[data] longest_wait_h in site.toml, or ask for a smaller group"
                )
            self._pause(pause)

    def end_export(self, url: str) -> None:
        """Let the server delete an export; that it cannot is no failure of the reading."""
        try:
            self._client.delete(url, headers=self._headers(url, "application/fhir+json"))
        except (httpx.HTTPError, DataError, SettingsError) as error:
            _LOG.info("the server kept its export (%s)", type(error).__name__)

    def _object(self, content: bytes, what: str) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise DataError(
                f"{self._base}: {what} is answered by no JSON object; check [data] server in "
                "site.toml"
            )
        return found

    def _ask(
        self,
        method: str,
        url: str,
        what: str,
        *,
        largest: int = LARGEST_ANSWER,
        keep: Callable[[bytes], None] | None = None,
        again: Callable[[], None] | None = None,
        accept: str = "application/fhir+json",
        more: dict[str, str] | None = None,
    ) -> tuple[bytes, int, httpx.Headers]:
        """Ask, up to ``TRIES`` times; return the answer's bytes (none if kept), status, headers."""
        renewed = False
        for number in range(1, TRIES + 1):
            if again is not None:
                again()
            pause = min(2.0**number, LONGEST_PAUSE_S)
            try:
                headers = self._headers(url, accept) | (more or {})
                with self._client.stream(method, url, headers=headers) as answer:
                    status = answer.status_code
                    if status < 300:
                        content = self._content(answer, what, largest, keep)
                        return content, status, answer.headers
                    pause = _asked_pause(answer.headers, pause)
            except httpx.ConnectError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise DataError(
                        f"{self._base}: the server's certificate is not vouched for; name the "
                        "hospital's certificate authority as [data] ca_file in site.toml"
                    ) from error
                status = 0
            except httpx.HTTPError:
                status = 0
            if status == 401 and not renewed:
                self._token, renewed = "", True
                continue
            if status and status not in _BUSY:
                break
            if number < TRIES:
                self._pause(pause)
        raise DataError(f"{self._base}: {what}: {_told(status)}")

    def _content(
        self,
        answer: httpx.Response,
        what: str,
        largest: int,
        keep: Callable[[bytes], None] | None,
    ) -> bytes:
        parts, size = [], 0
        for part in answer.iter_bytes():
            if keep is not None:
                keep(part)
                continue
            size += len(part)
            if size > largest:
                raise DataError(
                    f"{self._base}: {what} is answered by more than {largest} bytes; ask the "
                    "server's people for smaller pages"
                )
            parts.append(part)
        return b"".join(parts)

    def _headers(self, url: str, accept: str) -> dict[str, str]:
        headers = {"Accept": accept}
        auth = self._settings.auth
        if auth is not None and host_of(url) == host_of(self._base):
            headers["Authorization"] = f"Bearer {self._bearer(auth)}"
        return headers

    def _bearer(self, auth: FhirAuth) -> str:
        """Return a token that is good for a while.

        Raises:
            SettingsError: the key or token is not where the settings say.
            DataError: the server gives none.
        """
        if auth.token_env is not None:
            return secret_of_environment(auth.token_env, "auth.token_env")
        if auth.token_file is not None:
            return secret_of_file(auth.token_file, "auth.token_file", what="the token")
        if not self._token or self._clock() >= self._token_until:
            self._renew(auth)
        return self._token

    def _renew(self, auth: FhirAuth) -> None:
        """Ask for a token with an assertion that the site's key signs."""
        url = auth.token_url or self._token_url()
        form = {
            "grant_type": "client_credentials",
            "scope": auth.scope,
            "client_assertion_type": _ASSERTION,
            "client_assertion": assertion(auth, url),
        }
        try:
            answer = self._client.post(url, data=form, headers={"Accept": "application/json"})
        except httpx.HTTPError as error:
            raise DataError(f"{self._base}: a token is not to be had: {_told(0)}") from error
        if answer.status_code != 200 or len(answer.content) > LARGEST_ANSWER:
            raise DataError(
                f"{self._base}: a token is refused with {answer.status_code}; check [data.auth] in "
                "site.toml, and that the server has this site's public key"
            )
        found = self._object(answer.content, "a token")
        token, life = found.get("access_token"), found.get("expires_in")
        if not isinstance(token, str) or not token.isprintable():
            raise DataError(f"{self._base}: the answer for a token holds none; check [data.auth]")
        seconds = float(life) if isinstance(life, int | float) and life > 0 else 60.0
        self._token, self._token_until = token, self._clock() + 0.8 * seconds

    def _token_url(self) -> str:
        """Return where the server gives out tokens, by its own word, on a host of its own."""
        answer = self._client.get(
            f"{self._base}/.well-known/smart-configuration", headers={"Accept": "application/json"}
        )
        found = self._object(answer.content[:LARGEST_ANSWER], "the SMART configuration")
        url = found.get("token_endpoint")
        if answer.status_code != 200 or not isinstance(url, str) or not url.startswith("https://"):
            raise DataError(
                f"{self._base}: says not where it gives out tokens; name token_url in [data.auth] "
                "of site.toml"
            )
        if host_of(url) != host_of(self._base):
            raise DataError(
                f"{self._base}: gives out tokens on {host_of(url)[:100]}; if that is right, name "
                "token_url in [data.auth] of site.toml"
            )
        return url


def assertion(auth: FhirAuth, url: str, *, now: Callable[[], float] = time.time) -> str:
    """Return the JWT by which a site proves that it has its key (SMART backend services).

    Args:
        auth: client and key.
        url: where the token is asked for, its audience.
        now: the time, seconds since 1970.

    Raises:
        SettingsError: the key cannot be used, or a library is missing.
    """
    needs("jwt", extra="fhir", what="[data.auth] with a key")
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if auth.key_file is None or auth.client_id is None:
        raise SettingsError("[data.auth] names no client_id and key_file; name both")
    text = secret_of_file(auth.key_file, "auth.key_file", what="the key", lines=True)
    wrong = SettingsError(
        f"{auth.key_file}: holds no private key in PEM without a password, of RSA (2048 bits or "
        "more) or P-384; make one with: openssl ecparam -name secp384r1 -genkey -noout"
    )
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise wrong from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        algorithm = "RS384"
    elif isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        algorithm = "ES384"
    else:
        raise wrong
    claims = {
        "iss": auth.client_id,
        "sub": auth.client_id,
        "aud": url,
        "exp": int(now()) + TOKEN_LIFE_S,
        "jti": secrets.token_urlsafe(24),
    }
    headers = {"kid": auth.key_id} if auth.key_id is not None else None
    return str(jwt.encode(claims, key, algorithm=algorithm, headers=headers))


def _asked_pause(headers: httpx.Headers, otherwise: float) -> float:
    """Return the seconds of Retry-After, a number or a date, within bounds."""
    asked = headers.get("retry-after", "").strip()
    try:
        seconds = float(asked) if asked else otherwise
    except ValueError:
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, TypeError):
            seconds = otherwise
    return min(max(seconds, 0.0), LONGEST_PAUSE_S) if seconds == seconds else otherwise


def _told(status: int) -> str:
    """Return what an answer's status means, and what to do."""
    if status == 0:
        return "the server cannot be reached, or the line was cut; check [data] server in site.toml"
    if status in (401, 403):
        return f"refused with {status}; check [data.auth] in site.toml, and this site's rights"
    if 300 <= status < 400:
        return f"redirected ({status}); write the address that it leads to as [data] server"
    if status in _BUSY:
        return f"the server answers {status} again and again; see its log"
    return f"refused with {status}; check [data] in site.toml, and the server's log"
