"""The site's node on Flower's Fleet API: asks for messages, answers them, and never listens.

It replaces Flower's SuperNode, which fetches the app bundle of every run, installs it and starts a
process for each message. This node never asks for a bundle: the only code that answers is the
ClientApp given to it, in this one process, for as long as it runs.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf

from consilium.client.service.connection import Connection
from consilium.shared.errors import (
    AuthenticationError,
    ConsiliumError,
    ProtocolError,
    UnreachableError,
)
from consilium.shared.wire.bundle import (
    FETCH_PATH,
    HAND_IN_PATH,
    LARGEST_BUNDLE,
    LEAVE_PATH,
    MOST_PARTS,
    pack_bundle,
    unpack_bundle,
)
from consilium.shared.wire.encoding import VECTOR_BYTES

PROTOBUF = "application/protobuf"
HEARTBEAT_S = 4.0
ANNOUNCED_HEARTBEAT_S = 10.0  # Flower's minimum; a node counts as offline after twice that
AWAY_S = 0.3  # offline for so long that the coordinator notices the restart
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
REFUSED_PAUSE_S, LONGEST_REFUSED_S = 10.0, 300.0
ANSWER_FOR_S = 120.0  # how long an answer is retried while the coordinator is unreachable

P = TypeVar("P", bound=Protobuf)

log = logging.getLogger(__name__)


class SiteNode:
    """One site's node.

    Args:
        connection: the connection to the coordinator.
        node_id: the node's number from enrolment.
        app: answers every message.
        stop: the event that ends :meth:`run` when set.
        rest_after_s: returns after how many seconds without a message :meth:`run` ends too; None
            for never.
    """

    def __init__(
        self,
        connection: Connection,
        node_id: int,
        app: ClientApp,
        *,
        stop: threading.Event,
        rest_after_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._connection, self._app, self._stop = connection, app, stop
        self._rest_after_s, self._over = rest_after_s, threading.Event()
        self._node = Node(node_id=node_id)
        self._logged_error = ""
        self._refused = threading.Event()  # no heartbeat while the coordinator takes none of us

    def run(self) -> bool:
        """Answer messages until told to stop; retry while the coordinator is unreachable.

        Returns:
            Whether it ended because no message came for as long as ``rest_after_s`` says.
        """
        self._begin()
        heart = threading.Thread(target=self._beat, name="node heartbeat", daemon=True)
        heart.start()
        pause, refused = _Pause(self._stop), _Pause(self._stop, REFUSED_PAUSE_S, LONGEST_REFUSED_S)
        asked = time.monotonic()
        while not (self._stop.is_set() or self._rests(asked)):
            try:
                message = self._receive()
                self._log_recovery()
                pause.reset()
                refused.reset()
                self._refused.clear()
                if message is not None:
                    self._send(self._answer(message))
                    asked = time.monotonic()
            except UnreachableError as error:
                self._log_error(error)
                pause.wait()
            except AuthenticationError as error:
                self._log_error(error)
                if error.case == "not-accepted":  # it knocks less and less often
                    self._refused.set()
                    refused.wait()
                else:
                    self._stop.wait(REFUSED_PAUSE_S * random.uniform(0.5, 1.0))  # noqa: S311
            except ConsiliumError as error:
                log.warning("a message was dropped: %s", error)
                pause.wait()
        self._over.set()
        heart.join()
        with suppress(ConsiliumError):  # one that is not accepted ends as well as another
            self._say_goodbye()
        return not self._stop.is_set()

    def _rests(self, asked: float) -> bool:
        after_s = self._rest_after_s()
        return after_s is not None and time.monotonic() > asked + after_s

    def _begin(self) -> None:
        """Go offline, so that no answer of an earlier process is waited for; then come online."""
        pause, refused = _Pause(self._stop), _Pause(self._stop, REFUSED_PAUSE_S, LONGEST_REFUSED_S)
        while not self._stop.is_set():
            try:
                self._connection.hello()
                self._say_goodbye()
                self._stop.wait(AWAY_S)
                self._heartbeat()
                self._log_recovery()
                log.info("connected to %s", self._connection.address)
                return
            except ConsiliumError as error:
                self._log_error(error)
                (refused if error.case == "not-accepted" else pause).wait()

    def _answer(self, message: Message) -> Message:
        """Call the installed app; turn an error in it into an error reply without detail."""
        context = Context(
            run_id=message.metadata.run_id,
            node_id=self._node.node_id,
            node_config={},
            state=RecordDict(),
            run_config={},
        )
        try:
            return self._app(message, context)
        except Exception as error:
            log.warning(
                "a message of type %.64r was refused: %s",
                message.metadata.message_type,
                type(error).__name__,
            )
            refusal = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason="refused")
            return Message(refusal, reply_to=message)

    # Flower's Fleet API, one method per call.

    def _receive(self) -> Message | None:
        """Wait for a message; return None after some seconds without one."""
        body = self._connection.post(FETCH_PATH, b"")
        if not body:
            return None
        head, parts = unpack_bundle(body)
        pulled = _parsed(PullMessagesResponse(), head)
        if len(pulled.messages_list) != 1 or len(pulled.message_object_trees) != 1:
            raise ProtocolError("a parcel of the coordinator does not hold exactly one message")
        bare = message_from_proto(pulled.messages_list[0])
        if not parts:
            parts = self._pull_parts(bare, pulled.message_object_trees[0])
        try:
            whole = inflate_object_from_contents(bare.metadata.message_id, parts)
        except Exception as error:
            raise ProtocolError(
                f"a message of the coordinator is malformed ({type(error).__name__})"
            ) from None
        message = cast(Message, whole)
        if not isinstance(message, Message) or message.has_error():
            raise ProtocolError("the coordinator sent something other than a message")
        message.__dict__["_metadata"] = bare.metadata
        return message

    def _pull_parts(self, bare: Message, tree: ObjectTree) -> dict[str, bytes]:
        """Fetch, part by part, a message that is too long for one bundle."""
        run_id, parts, total = bare.metadata.run_id, {}, 0
        for node in iterate_object_tree(tree):
            request = PullObjectRequest(node=self._node, run_id=run_id, object_id=node.object_id)
            pulled = _parsed(PullObjectResponse(), self._fleet("pull-object", request))
            if not pulled.object_found or not pulled.object_available:
                raise ProtocolError("a message was taken back before it was read")
            parts[node.object_id] = pulled.object_content
            total += len(pulled.object_content)
            if total > VECTOR_BYTES or len(parts) > MOST_PARTS:
                raise ProtocolError(
                    f"a message is longer than {VECTOR_BYTES} bytes or has more than "
                    f"{MOST_PARTS} parts"
                )
        self._fleet(
            "confirm-message-received",
            ConfirmMessageReceivedRequest(
                node=self._node, run_id=run_id, message_object_id=bare.metadata.message_id
            ),
        )
        return parts

    def _send(self, reply: Message) -> None:
        """Send a reply; retry for up to ANSWER_FOR_S while the coordinator is unreachable."""
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            parts = {key: part.deflate() for key, part in get_all_nested_objects(reply).items()}
            tree = get_object_tree(reply)
            bare = message_to_proto(remove_content_from_message(reply))
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[bare],
            message_object_trees=[tree],
            clientapp_runtime_list=[0.0],
        )
        whole = sum(map(len, parts.values())) <= LARGEST_BUNDLE
        push = self._push_whole if whole else self._push_parts
        deadline = time.monotonic() + ANSWER_FOR_S
        pause = _Pause(self._stop)
        while True:
            try:
                push(request, parts)
                return
            except UnreachableError as error:
                self._log_error(error)
                if time.monotonic() > deadline or self._stop.is_set():
                    raise
                pause.wait()

    def _push_whole(self, request: PushMessagesRequest, parts: dict[str, bytes]) -> None:
        head = request.SerializeToString(deterministic=True)
        self._connection.post(HAND_IN_PATH, pack_bundle(head, parts))

    def _push_parts(self, request: PushMessagesRequest, parts: dict[str, bytes]) -> None:
        run_id = request.messages_list[0].metadata.run_id
        pushed = _parsed(PushMessagesResponse(), self._fleet("push-messages", request))
        for key in pushed.objects_to_push:
            if key in parts:
                self._fleet(
                    "push-object",
                    PushObjectRequest(
                        node=self._node,
                        run_id=run_id,
                        object_id=key,
                        object_content=parts[key],
                        session_id=pushed.session_id,
                    ),
                )

    def _heartbeat(self) -> None:
        self._fleet(
            "send-node-heartbeat",
            SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=ANNOUNCED_HEARTBEAT_S),
            timeout_s=HEARTBEAT_S,
        )

    def _say_goodbye(self) -> None:
        """Report this node as offline, so that the coordinator does not wait for answers."""
        try:
            self._connection.post(LEAVE_PATH, b"", timeout_s=HEARTBEAT_S)
        except UnreachableError as error:
            log.debug("could not say goodbye: %s", error)

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S * random.uniform(0.8, 1.0)):  # noqa: S311 - a pause
            if self._refused.is_set():
                continue
            try:
                self._heartbeat()
            except ConsiliumError as error:
                log.debug("heartbeat: %s", error)

    def _fleet(self, call: str, request: Protobuf, *, timeout_s: float | None = None) -> bytes:
        body = request.SerializeToString(deterministic=True)
        path = f"/v1/fleet/{call}"
        return self._connection.post(path, body, media_type=PROTOBUF, timeout_s=timeout_s)

    def _log_recovery(self) -> None:
        if self._logged_error:
            log.info("the line to %s is up again", self._connection.address)
            self._logged_error = ""

    def _log_error(self, error: ConsiliumError) -> None:
        """Log an error, unless it was the last one logged."""
        if str(error) != self._logged_error:
            log.warning("%s", error)
            self._logged_error = str(error)


def _parsed(reply: P, content: bytes) -> P:
    try:
        reply.ParseFromString(content)
    except DecodeError:
        raise ProtocolError("an answer of the coordinator is malformed") from None
    return reply


class _Pause:
    """Pauses that grow, with jitter, so that sites do not all reconnect at the same moment."""

    def __init__(
        self,
        stop: threading.Event,
        first_s: float = FIRST_PAUSE_S,
        longest_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._stop, self._first_s, self._longest_s = stop, first_s, longest_s
        self.reset()

    def reset(self) -> None:
        """Start again with short pauses."""
        self._next_s = self._first_s

    def wait(self) -> None:
        """Pause, but no longer than until told to stop."""
        self._stop.wait(self._next_s * random.uniform(0.5, 1.0))  # noqa: S311 - a pause
        self._next_s = min(2 * self._next_s, self._longest_s)
