"""Guards the coordinator's only port for sites: what reaches Flower's Fleet API, and what does not.

Without the gate this port would serve everything that the SuperLink serves, its Control API (start
any app, register any node) included. The gate passes on only the Fleet calls that a site makes, and
checks who makes them before it reads a body. Bodies are bounded in length and time. A site that
asks for a message is answered when there is one, or after a while: it need not ask all the time.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from consilium.server.coordinator.enrolment import EnrolmentService
from consilium.server.coordinator.register import Member
from consilium.server.flower.authentication import KeyRing
from consilium.server.flower.mailboxes import Mailboxes
from consilium.server.processes.freed_memory import give_back_garbage
from consilium.shared.audit.events import Refused
from consilium.shared.audit.log import AuditLog
from consilium.shared.enrolment.compatibility import disagreement
from consilium.shared.enrolment.messages import (
    DECLARE_PATH,
    ENROL_PATH,
    HELLO_PATH,
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
from consilium.shared.errors import AuthenticationError, ConsiliumError, MessageError
from consilium.shared.version import VERSION
from consilium.shared.wire.bundle import FETCH_PATH, HAND_IN_PATH, LEAVE_PATH

LARGEST_BODY = 8 << 20  # Flower cuts arrays into chunks of 5 MiB
LARGEST_STRANGERS_BODY = 4096
HANDLED_AT_ONCE = 2  # requests in Flower, which takes several times a body's memory for each
LONG_BYTES = 1 << 20
BODY_TIMEOUT_S = 60.0
WAIT_FOR_MESSAGE_S = 10.0  # proxies let a connection be silent for longer than this
REFUSALS_A_MINUTE = 30  # more are not recorded

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
OURS = RECOVERY | {FETCH_PATH, HAND_IN_PATH, LEAVE_PATH, STUDIES_PATH, STUDY_PATH, DECLARE_PATH}

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
        self._recorded: list[float] = []
        self._handled = asyncio.Semaphore(HANDLED_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; Flower's application handles the server's start and end."""
        if scope["type"] == "lifespan":
            await self._flower(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            await self._serve(scope, receive, send)
        except Denied as denied:
            await self._record(scope, denied)
            await _respond(send, denied.status, _json(error=denied.sentence), "application/json")

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
        elif path == STUDIES_PATH:
            await self._answer(send, lambda: self._enrolment.list_studies(member))
        elif path == STUDY_PATH:
            await self._answer(send, lambda: self._enrolment.show_study(member, body))
        elif path in RECOVERY:
            await self._answer(send, lambda: _recovered(self._enrolment, path, member, body))
        else:
            await self._answer(send, lambda: self._enrolment.declare(member, body))

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
            raise Denied(403, str(error)) from None
        await _respond(send, 200, reply, "application/octet-stream")

    async def _record(self, scope: Scope, denied: Denied) -> None:
        """Write a refusal to the log and the audit log, ``REFUSALS_A_MINUTE`` times at most."""
        now = time.monotonic()
        self._recorded = [at for at in self._recorded if now - at < 60]
        if len(self._recorded) >= REFUSALS_A_MINUTE:
            return
        self._recorded.append(now)
        peer = (scope.get("client") or ("unknown",))[0]
        asked = "".join(c if c.isprintable() else "?" for c in str(scope["path"]))[:100]
        log.warning("refused %s from %s: %s", asked, peer, denied.sentence)
        event = Refused(
            peer=str(peer)[:64],
            asked=asked,
            code=str(denied.status),
            sentence=denied.sentence[:900],
        )
        with contextlib.suppress(ConsiliumError):
            await asyncio.to_thread(self._audit.append, event)


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


async def _respond(send: Send, status: int, body: bytes, media_type: str) -> None:
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    if status >= 400:  # a refused client may still be sending: close instead of reading on
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()
