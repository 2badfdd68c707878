"""Whether a request comes from the hospital's EHR: by a shared secret, or by the EHR's own keys.

With the secret, the EHR (or the proxy in front of it) sends the token that stands in
``cds-hooks.token``. With keys, each request has a JSON Web Token signed by the EHR, as HL7's "CDS
Hooks 2.0, Trusting CDS Clients" says (https://cds-hooks.hl7.org/2.0/); the keys lie in a file here,
because none is fetched from anywhere.
"""

import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consilium.client.sources.common.needs import needs
from consilium.shared.errors import AuthenticationError, SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE, read_by_others

FILE_NAME = "cds-hooks.token"
ALGORITHMS = ("ES384", "RS384")  # those that CDS Hooks recommends
LONGEST_TOKEN, LONGEST_LIFE_S, LEEWAY_S = 8192, 600, 60
LARGEST_FILE = 1 << 20
MOST_SEEN = 100_000
_USUAL = {"EC": "ES384", "RSA": "RS384"}
CLAIMS = ["iss", "aud", "exp", "iat", "jti"]


class SharedSecret:
    """A token that the EHR sends with every request; made when it is first wanted.

    Args:
        folder: the site's.

    Raises:
        SettingsError: its file cannot be used, or others can read it.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE_NAME
        try:
            if not self.file.exists():
                secret = secrets.token_urlsafe(32).encode() + b"\n"
                write_atomically(self.file, secret, mode=PRIVATE_FILE)
            status = self.file.stat()
            self._secret = self.file.read_bytes().strip()
        except OSError as error:
            raise SettingsError(
                f"{self.file}: cannot be used ({error.strerror}); check who may"
            ) from error
        if read_by_others(status) or len(self._secret) < 32:
            raise SettingsError(
                f"{self.file}: may be read by other accounts, or is damaged; remove it, and a new "
                "token is made"
            )

    def caller(self, token: str, _: str) -> str:
        """Return who asks.

        Raises:
            AuthenticationError: it is not the token.
        """
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._secret):
            raise AuthenticationError("the bearer token is not the one of this service")
        return "EHR"


class EhrKeys:
    """The EHR's public keys.

    Args:
        file: a JWK set.
        issuer: ``iss`` of its tokens.
        base_url: where it calls; ``aud`` is a service below it.
        clock: seconds since 1970.

    Raises:
        SettingsError: the file holds no such keys, no issuer is named, or PyJWT is missing.
    """

    def __init__(
        self, file: Path, *, issuer: str, base_url: str, clock: Callable[[], float] = time.time
    ) -> None:
        needs("jwt", extra="fhir", what="--ehr-keys")
        import jwt

        if not issuer:
            raise SettingsError("--ehr-keys needs --issuer: the EHR, as 'iss' in its tokens says")
        self._issuer, self._base, self._clock = issuer, base_url.rstrip("/"), clock
        self._seen: dict[str, float] = {}
        try:
            content = file.read_bytes()
            if len(content) > LARGEST_FILE:
                raise ValueError
            listed = json.loads(content)["keys"]
            keys = [
                (one, jwt.PyJWK(one, one.get("alg") or _USUAL.get(one["kty"]))) for one in listed
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
            raise SettingsError(f"{file}: is no JWK set; get it from the EHR's vendor") from error
        self._keys = {one.get("kid"): key for one, key in keys if key.algorithm_name in ALGORITHMS}
        if not self._keys:
            raise SettingsError(f"{file}: has no key for {' or '.join(ALGORITHMS)}; get one")

    def caller(self, token: str, path: str) -> str:
        """Return who asks.

        Raises:
            AuthenticationError: the token is not the EHR's, is of another time or place, or was
                shown before.
        """
        import jwt

        try:
            key = self._keys[jwt.get_unverified_header(token).get("kid")]
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=[self._base, self._base + path],
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": CLAIMS, "verify_exp": False, "verify_iat": False},
            )
            begun, ends, identity = float(claims["iat"]), float(claims["exp"]), str(claims["jti"])
        except (jwt.PyJWTError, KeyError, ValueError, TypeError) as error:
            raise AuthenticationError("the bearer token is not one of this EHR") from error
        self._check_time(begun, ends, identity)
        return self._issuer

    def _check_time(self, begun: float, ends: float, identity: str) -> None:
        now = self._clock()
        if begun > now + LEEWAY_S or ends < now - LEEWAY_S or ends - begun > LONGEST_LIFE_S:
            raise AuthenticationError("the bearer token is too old, or is valid for too long")
        self._seen = {one: until for one, until in self._seen.items() if until >= now - LEEWAY_S}
        if identity in self._seen or len(self._seen) >= MOST_SEEN:
            raise AuthenticationError("the bearer token was shown before")
        self._seen[identity] = ends
