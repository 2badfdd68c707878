"""Guards the coordinator's only port for sites: what reaches Flower's Fleet API, and what does not.

Without the gate this port would serve everything that the SuperLink serves, its Control API (start
any app, register any node) included. The gate passes on only the Fleet calls that a site makes, and
checks who makes them before it reads a body. Bodies are bounded in length and time. A site that
asks for a message is answered when there is one, or after a while: it need not ask all the time.
"""

import asyncio
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from consilium.server.coordinator.enrolment import EnrolmentService
from consilium.server.coordinator.register import Member
from consilium.server.flower.authentication import KeyRing
from consilium.server.flower.mailboxes import Mailboxes
from consilium.server.processes.freed_memory import give_back_garbage
from consilium.shared.audit.events import RefusedOften
from consilium.shared.audit.log import AuditLog
from consilium.shared.enrolment.compatibility import disagreement
from consilium.shared.enrolment.messages import (
    DECLARE_PATH,
    ENROL_PATH,
    HELLO_PATH,
    PROGRESS_PATH,
    STUDIES_PATH,
    STUDY_PATH,
    VERSION_HEADER,
)
from consilium.shared.enrolment.recovery import (
    BIND_PATH,
    CERTIFICATE_PATH,
    CLAIM_PATH,
    SUCCEED_PATH,
    SUCCESSOR_PATH,
)
from consilium.shared.enrolment.roster_version import AGREE_PATH, ROSTER_PATH
from consilium.shared.errors import AuthenticationError, ConsiliumError, MessageError
from consilium.shared.full_disk import is_of_storage, lacks_space
from consilium.shared.version import VERSION
from consilium.shared.wire.bundle import FETCH_PATH, HAND_IN_PATH, LEAVE_PATH

LARGEST_BODY = 8 << 20  # Flower cuts arrays into chunks of 5 MiB
LARGEST_STRANGERS_BODY = 4096
HANDLED_AT_ONCE = 2  # requests in Flower, which takes several times a body's memory for each
LONG_BYTES = 1 << 20
BODY_TIMEOUT_S = 60.0
WAIT_FOR_MESSAGE_S = 10.0  # proxies let a connection be silent for longer than this
RETRY_AFTER_S = 10
LOGGED_A_MINUTE = 30  # in the ordinary log, each in words; the audit log counts all
COUNT_FOR_S = 60  # refusals within this time make one line of the audit log
MOST_NAMED = 5  # addresses and codes that the line names
MOST_COUNTED = 1000  # addresses that are told apart

PUSH = "/v1/fleet/push-messages"
FLEET = frozenset(
    {
        PUSH,
        "/v1/fleet/push-object",
        "/v1/fleet/pull-object",
        "/v1/fleet/confirm-message-received",
        "/v1/fleet/send-node-heartbeat",
    }
)

STRANGERS = frozenset({ENROL_PATH, CLAIM_PATH})
RECOVERY = frozenset({BIND_PATH, CERTIFICATE_PATH, SUCCEED_PATH, SUCCESSOR_PATH})
STUDIES = frozenset(
    {STUDIES_PATH, STUDY_PATH, PROGRESS_PATH, DECLARE_PATH, ROSTER_PATH, AGREE_PATH}
)
OURS = RECOVERY | STUDIES | {FETCH_PATH, HAND_IN_PATH, LEAVE_PATH}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)


class Bundles(Protocol):
    """Whole messages to and from nodes; see :mod:`consilium.server.flower.bundles`."""

    def fetch(self, node_id: int) -> bytes:
        """The next message for a node, or nothing."""

    def hand_in(self, node_id: int, body: bytes) -> bytes:
        """Take a node's reply."""

    def leave(self, node_id: int) -> bytes:
        """Set the node offline until its next heartbeat."""

    def expect(self, node_id: int, body: bytes) -> None:
        """Prepare for the replies in a body of Flower's push-messages, all of that node."""


class Denied(Exception):  # noqa: N818 - an answer, not a fault of ours
    """A refusal: the HTTP status and the sentence of the answer."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


FULL = Denied(507, "the coordinator's disk is full; it goes on once there is space, so try again")
UNUSABLE = Denied(503, "the coordinator cannot use its files just now; try again")


class Gate:
    """An ASGI application in front of Flower's.

    Args:
        flower: the SuperLink's application.
        enrolment: answers requests to enrol and to see studies.
        keys: finds out which enrolled site made a request.
        mail: wakes a request when a message waits for its node.
        bundles: moves whole messages.
        audit: records refusals.
    """

    def __init__(
        self,
        flower: Application,
        *,
        enrolment: EnrolmentService,
        keys: KeyRing,
        mail: Mailboxes,
        bundles: Bundles,
        audit: AuditLog,
    ) -> None:
        self._flower, self._enrolment, self._keys, self._mail = flower, enrolment, keys, mail
        self._bundles, self._audit = bundles, audit
        self._refusals = RefusalCount(audit, every_s=COUNT_FOR_S)
        self._handled = asyncio.Semaphore(HANDLED_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; Flower's application handles the server's start and end."""
        if scope["type"] == "lifespan":
            await self._flower(scope, receive, send)
            await asyncio.to_thread(self._refusals.write)
            return
        if scope["type"] != "http":
            return
        try:
            await self._serve(scope, receive, send)
        except Denied as denied:
            if denied.status < 500:
                await self._record(scope, denied)
            await _deny(send, denied)
        except Exception as error:
            if not is_of_storage(error):
                raise
            log.error("a request could not be answered: %s", _storage_reason(error))
            await _deny(send, FULL if lacks_space(error) else UNUSABLE)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, headers = scope["path"], _headers(scope)
        if scope["method"] == "GET" and path == HELLO_PATH:
            await _respond(send, 200, _json(time=time.time()), "application/json")
            return
        if scope["method"] != "POST":
            raise Denied(404, "there is nothing here")
        if path in STRANGERS:
            body = await _body(receive, headers, LARGEST_STRANGERS_BODY)
            await self._answer(send, lambda: self._newcomer(path, body))
            return
        if path not in FLEET and path not in OURS:
            raise Denied(404, "there is nothing here")
        member = await self._authenticate(headers)
        if path in FLEET:
            await self._forward(scope, await _body(receive, headers, LARGEST_BODY), send, member)
            return
        body = await _body(receive, headers, LARGEST_BODY)
        if path == FETCH_PATH:
            await self._fetch(send, member)
        elif path == HAND_IN_PATH:
            await self._answer(send, lambda: self._bundles.hand_in(member.node_id, body))
        elif path == LEAVE_PATH:
            await self._answer(send, lambda: self._bundles.leave(member.node_id))
        elif path in RECOVERY:
            await self._answer(send, lambda: _recovered(self._enrolment, path, member, body))
        else:
            await self._answer(send, lambda: _told_of_studies(self._enrolment, path, member, body))

    def _newcomer(self, path: str, body: bytes) -> bytes:
        """Answer somebody who has an invitation; whoever enrols has an account at once."""
        if path == ENROL_PATH:
            reply = self._enrolment.enrol(body)
            self._keys.look_again()
            return reply
        return self._enrolment.recovery.claim(body, now=self._enrolment.clock())

    async def _authenticate(self, headers: dict[str, str]) -> Member:
        version = headers.get(VERSION_HEADER, "unknown")
        try:
            member = await asyncio.to_thread(self._keys.authenticate, headers, version)
        except AuthenticationError as error:
            raise Denied(401, str(error)) from None
        mismatch = disagreement(VERSION, version)
        if mismatch is not None:
            raise Denied(426, mismatch)
        return member

    async def _forward(self, scope: Scope, body: bytes, send: Send, member: Member) -> None:
        """Pass a Fleet call on to Flower, which authenticates it once more."""
        if scope["path"] == PUSH:
            try:
                await asyncio.to_thread(self._bundles.expect, member.node_id, body)
            except MessageError as error:
                raise Denied(400, str(error)) from None
            except AuthenticationError:
                raise Denied(
                    403, f"site {member.name} sent a reply in another site's name"
                ) from None
        receive, answer, long = _replay(body), list[MutableMapping[str, Any]](), len(body)
        del body  # free long bodies early: many are in memory at the same time

        async def keep(event: MutableMapping[str, Any]) -> None:
            answer.append(event)

        async with self._handled:  # left before the answer is sent, which may be slow
            await self._flower(scope, receive, keep)
            if long + sum(len(event.get("body", b"")) for event in answer) > LONG_BYTES:
                await asyncio.to_thread(give_back_garbage)
        for event in answer:
            if event.get("status", 200) >= 500:  # Flower's answer to an error of its database
                raise Denied(UNUSABLE.status, UNUSABLE.sentence)
            await send(event)

    async def _fetch(self, send: Send, member: Member) -> None:
        """Answer with the next message, or with nothing after ``WAIT_FOR_MESSAGE_S``."""
        if await self._mail.wait_for(member.node_id, timeout_s=WAIT_FOR_MESSAGE_S):
            await self._answer(send, lambda: self._bundles.fetch(member.node_id))
        else:
            await _respond(send, 200, b"", "application/octet-stream")

    async def _answer(self, send: Send, work: Callable[[], bytes]) -> None:
        try:
            reply = await asyncio.to_thread(work)
        except MessageError as error:
            raise Denied(400, str(error)) from None
        except ConsiliumError as error:
            if is_of_storage(error):  # not the site's affair, nor are the paths it names
                raise
            raise Denied(403, str(error)) from None
        await _respond(send, 200, reply, "application/octet-stream")

    async def _record(self, scope: Scope, denied: Denied) -> None:
        """Count a refusal for the audit log; the first of each minute are also logged in words."""
        peer = str((scope.get("client") or ("unknown",))[0])[:64]
        asked = "".join(c if c.isprintable() else "?" for c in str(scope["path"]))[:100]
        told = f"{asked}: {denied.sentence}"
        if self._refusals.add(peer, str(denied.status), told) <= LOGGED_A_MINUTE:
            log.warning("refused %s from %s: %s", asked, peer, denied.sentence)


class RefusalCount:
    """Refusals, counted; each ``every_s`` seconds in which there were any are one line.

    Whoever knocks a thousand times a minute adds no more to the log than who knocks once, and none
    of it goes uncounted: what is not yet written when the process ends is written by :meth:`write`.

    Args:
        audit: the log.
        every_s: seconds to count for, from the first refusal on.
    """

    def __init__(self, audit: AuditLog, *, every_s: float) -> None:
        self._audit, self._every_s = audit, every_s
        self._lock = threading.Lock()
        self._codes: Counter[str] = Counter()
        self._peers: Counter[str] = Counter()
        self._began, self._first = 0.0, ""
        self._timer: threading.Timer | None = None

    def add(self, peer: str, code: str, told: str) -> int:
        """Count a refusal, and return how many there were since the last line."""
        with self._lock:
            if not self._codes:
                self._first = told[:900]
                self._began = time.monotonic()
                self._timer = threading.Timer(self._every_s, self.write)
                self._timer.daemon = True
                self._timer.start()
            self._codes[code] += 1
            if peer not in self._peers and len(self._peers) >= MOST_COUNTED:
                peer = "others"
            self._peers[peer] += 1
            return self._codes.total()

    def write(self) -> None:
        """Write the line; what cannot be written is counted on."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            codes, peers = self._codes, self._peers
            self._codes, self._peers = Counter(), Counter()
        if not codes:
            return
        event = RefusedOften(
            refusals=codes.total(),
            seconds=max(1, round(time.monotonic() - self._began)),
            codes=_most(codes),
            peers=_most(peers),
            first=self._first,
        )
        try:
            self._audit.append(event)
        except ConsiliumError as error:
            log.error("%d refusals could not be recorded yet: %s", codes.total(), error)
            with self._lock:
                self._codes += codes
                self._peers += peers
                self._timer = threading.Timer(self._every_s, self.write)
                self._timer.daemon = True
                self._timer.start()


def _most(counted: Counter[str]) -> tuple[str, ...]:
    """Return the most frequent, each with its number, and how many others there were."""
    named = counted.most_common(MOST_NAMED)
    rest = counted.total() - sum(number for _, number in named)
    told = [f"{what[:50]} x{number}" for what, number in named]
    return (*told, f"others x{rest}") if rest else tuple(told)


def _recovered(enrolment: EnrolmentService, path: str, member: Member, body: bytes) -> bytes:
    """Answer what an enrolled site asks about recovery."""
    recovery = enrolment.recovery
    if path == SUCCESSOR_PATH:
        return recovery.successor(body)
    work = {
        BIND_PATH: recovery.bind,
        CERTIFICATE_PATH: recovery.keep,
        SUCCEED_PATH: recovery.succeed,
    }
    return work[path](member, body)


def _told_of_studies(enrolment: EnrolmentService, path: str, member: Member, body: bytes) -> bytes:
    """Answer what an enrolled site asks about the studies that name it."""
    if path == STUDIES_PATH:
        return enrolment.list_studies(member)
    work = {
        STUDY_PATH: enrolment.show_study,
        PROGRESS_PATH: enrolment.progress,
        DECLARE_PATH: enrolment.declare,
        ROSTER_PATH: enrolment.rosters.show,
        AGREE_PATH: enrolment.rosters.agree,
    }
    return work[path](member, body)


def _headers(scope: Scope) -> dict[str, str]:
    """Header values by lower-case name; a header that occurs twice counts as absent."""
    headers: dict[str, str] = {}
    twice = set()
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in headers:
            twice.add(key)
        headers[key] = value.decode("latin-1")
    return {key: value for key, value in headers.items() if key not in twice}


async def _body(receive: Receive, headers: dict[str, str], largest: int) -> bytes:
    """Read a body, bounded in length and time.

    Raises:
        Denied: it is too long, or does not arrive.
    """
    too_long = Denied(413, f"the body is longer than the {largest} bytes that are taken")
    declared = headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > largest:
        raise too_long
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            more = True
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise Denied(400, "the connection ended before the body")
                pieces.append(event.get("body", b""))
                size += len(pieces[-1])
                if size > largest:
                    raise too_long
                more = event.get("more_body", False)
    except TimeoutError:
        raise Denied(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
    return b"".join(pieces)


def _replay(body: bytes) -> Receive:
    """Return an ASGI ``receive`` that brings a body already read."""
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if not events:
            await asyncio.Event().wait()  # Starlette asks again, to learn of a disconnection
        return events.pop()

    return receive


async def _deny(send: Send, denied: Denied) -> None:
    await _respond(send, denied.status, _json(error=denied.sentence), "application/json")


def _storage_reason(error: Exception) -> str:
    """Return one of our sentences, or of another's error its kind: its text may quote anything."""
    return str(error) if isinstance(error, ConsiliumError) else type(error).__name__


async def _respond(send: Send, status: int, body: bytes, media_type: str) -> None:
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    if status >= 500:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    if status >= 400:  # a refused client may still be sending: close instead of reading on
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()
