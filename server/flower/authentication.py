"""Which enrolled site made a request: Flower's node authentication, checked before a body is read.

A site signs a timestamp with its node key and sends key, time and signature as headers, inside TLS.
Flower checks the same headers again behind the gate. A site may use one signature for many
requests; it becomes invalid after five minutes, or when the site is revoked.
"""

import base64
import binascii
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from consilium.server.coordinator.register import Member, Register
from consilium.shared.enrolment.messages import BUDGET_HEADER
from consilium.shared.errors import AuthenticationError

KEY_HEADER = "flwr-public-key"
TIME_HEADER = "flwr-timestamp"
SIGNATURE_HEADER = "flwr-signature"
OLDEST_S = 300.0
NEWEST_S = -5.0
REFRESH_S = 0.5  # a revocation takes effect after at most this long
NOTE_SEEN_S = 10.0
CACHED_SIGNATURES = 4096
_BUDGET = re.compile(r"\d{1,9}\.\d\d", re.ASCII)


class KeyRing:
    """Keys of the enrolled sites, as the register has them now.

    Args:
        register: the coordinator's register.
        clock: seconds since 1970.
    """

    def __init__(self, register: Register, *, clock: Callable[[], float] = time.time) -> None:
        self._register, self._clock = register, clock
        self._lock = threading.Lock()
        self._members: dict[bytes, Member] = {}
        self._read = float("-inf")
        self._verified: dict[tuple[str, str, str], None] = {}
        self._noted: dict[str, float] = {}

    def authenticate(self, headers: Mapping[str, str], version: str) -> Member:
        """Return the site whose key signed these headers a short time ago.

        Args:
            headers: by lower-case name.
            version: the version that the site says it runs.

        Raises:
            AuthenticationError: headers missing or malformed, an unknown or revoked key, a wrong
                signature, or a time too far from the coordinator's.
        """
        try:
            key, signed = headers[KEY_HEADER], headers[TIME_HEADER]
            signature = headers[SIGNATURE_HEADER]
            pem = base64.b64decode(key, validate=True)
            raw = base64.b64decode(signature, validate=True)
            age_s = self._clock() - datetime.fromisoformat(signed).timestamp()
        except (KeyError, ValueError, binascii.Error, OverflowError):
            raise AuthenticationError("the request is not signed by a site's node key") from None
        member = self._current().get(pem)
        if member is None:
            raise AuthenticationError(
                "the node key is not enrolled, or was revoked; ask the coordinator for an "
                "invitation and run 'consilium-site enroll'"
            )
        if not NEWEST_S < age_s < OLDEST_S:
            raise AuthenticationError(
                f"the request of site {member.name} was signed {age_s:.0f} s ago by the "
                "coordinator's clock; set the site's clock"
            )
        with self._lock:
            verified = (key, signed, signature) in self._verified
        if not verified:
            _verify(pem, signed, raw, member.name)
            self._remember((key, signed, signature))
        self._note(member, version, headers.get(BUDGET_HEADER))
        return member

    def look_again(self) -> None:
        """Read the register anew for the next request: a site has just enrolled."""
        with self._lock:
            self._read = float("-inf")

    def _current(self) -> dict[bytes, Member]:
        with self._lock:
            if time.monotonic() - self._read > REFRESH_S:
                members = self._register.members()
                self._members = {m.node_key: m for m in members if m.revoked is None}
                self._read = time.monotonic()
            return self._members

    def _remember(self, headers: tuple[str, str, str]) -> None:
        with self._lock:
            self._verified[headers] = None
            while len(self._verified) > CACHED_SIGNATURES:
                self._verified.pop(next(iter(self._verified)))

    def _note(self, member: Member, version: str, budget: str | None) -> None:
        """Note from time to time that the site asked for work, and the budget it says it has."""
        now = self._clock()
        with self._lock:
            if now - self._noted.get(member.name, float("-inf")) < NOTE_SEEN_S:
                return
            self._noted[member.name] = now
        printable = "".join(c for c in version if c.isprintable())[:32]
        left = float(budget) if budget and _BUDGET.fullmatch(budget) else None
        self._register.saw(member.name, printable, budget_left=left, now=now)


def _verify(pem: bytes, signed: str, signature: bytes, site: str) -> None:
    try:
        key = serialization.load_pem_public_key(pem)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("not an elliptic-curve key")
        key.verify(signature, signed.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise AuthenticationError(
            f"the request is not signed by the node key of site {site}"
        ) from None
