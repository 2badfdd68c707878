"""Who is signed in: kept in this process's memory, so that a restart signs everybody out.

A session has three random secrets. Its *place* is part of the address of each of its pages, and the
cookie is sent to addresses below it alone: cookies of 127.0.0.1 go to every port, so without it a
page that another account of the machine serves on another port would be sent the cookie. The
*cookie* proves whose browser it is. The *token* stands in every form.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from consilium.shared.web.users import User, Users

IDLE_S = 30 * 60.0
LONGEST_S = 10 * 3600.0
MOST = 200


@dataclass(kw_only=True, repr=False)
class Session:
    """A person signed in; ``said`` are sentences for the next page, ``hashed`` is the cookie's."""

    user: User
    place: str
    token: str
    hashed: bytes
    began: float
    seen: float
    said: list[str] = field(default_factory=list)


class Sessions:
    """All sessions of a running application.

    Args:
        users: who may be signed in still.
        clock: seconds that only rise.
    """

    def __init__(self, users: Users, clock: Callable[[], float] = time.monotonic) -> None:
        self._users, self._clock = users, clock
        self._lock = threading.Lock()
        self._by_place: dict[str, Session] = {}

    def begin(self, user: User) -> tuple[Session, str]:
        """Return a new session and the cookie that proves it."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        session = Session(
            user=user,
            place=secrets.token_urlsafe(16),
            token=secrets.token_urlsafe(32),
            hashed=_hash(cookie),
            began=now,
            seen=now,
        )
        with self._lock:
            self._forget_ended(now)
            while len(self._by_place) >= MOST:
                oldest = min(self._by_place.values(), key=lambda one: one.seen)
                del self._by_place[oldest.place]
            self._by_place[session.place] = session
        return session, cookie

    def find(self, place: str, cookies: Iterable[str]) -> Session | None:
        """Return the session of a place, if one of the cookies is its own and it has not ended."""
        now = self._clock()
        with self._lock:
            self._forget_ended(now)
            session = self._by_place.get(place)
        if session is None or not any(
            hmac.compare_digest(session.hashed, _hash(cookie)) for cookie in cookies
        ):
            return None
        if self._users.find(session.user.name) != session.user:  # removed, or another password
            self.end(place)
            return None
        session.seen = now
        return session

    def end(self, place: str) -> None:
        """Sign out."""
        with self._lock:
            self._by_place.pop(place, None)

    def _forget_ended(self, now: float) -> None:
        for place, one in list(self._by_place.items()):
            if now - one.seen > IDLE_S or now - one.began > LONGEST_S:
                del self._by_place[place]


def _hash(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).digest()
