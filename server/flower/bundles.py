"""Whole messages to and from sites: short ones by a table of ours, others by Flower's handlers."""

from datetime import UTC, datetime

from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.superlink.servicer.fleet import fleet_handlers
from google.protobuf.message import DecodeError

from consilium.server.flower.short_messages import (
    ANSWERED,
    LONGEST,
    ShortMessages,
    unpack_answer,
    unpack_asked,
)
from consilium.shared.errors import AuthenticationError, MessageError, ProtocolError
from consilium.shared.wire.bundle import LARGEST_BUNDLE, MOST_PARTS, pack_bundle, unpack_bundle


class LinkBundles:
    """Bundles over the SuperLink's database.

    Args:
        link: the database's state.
        short: its table of short messages.
    """

    def __init__(self, link: SqlLinkState, short: ShortMessages) -> None:
        self._link, self._short = link, short

    def fetch(self, node_id: int) -> bytes:
        """Return the next message for a node as a bundle; nothing if none waits.

        A message too long for a bundle comes without its parts, and stays until the node has
        fetched them one by one through the Fleet API.
        """
        if short := self._short.fetch(node_id):
            return short
        link = self._link
        with link.session():
            request = PullMessagesRequest(node=Node(node_id=node_id))
            response = fleet_handlers.pull_messages(request, link, link.object_store)
            if not response.messages_list:
                return b""
            metadata = response.messages_list[0].metadata
            parts: dict[str, bytes] = {}
            total = 0
            for part in iterate_object_tree(response.message_object_trees[0]):
                parts[part.object_id] = link.get_object(metadata.run_id, part.object_id) or b""
                total += len(parts[part.object_id])
                if total > LARGEST_BUNDLE or len(parts) > MOST_PARTS:
                    return pack_bundle(response.SerializeToString(), {})
            link.object_store.delete(metadata.message_id)
            return pack_bundle(response.SerializeToString(), parts)

    def hand_in(self, node_id: int, body: bytes) -> bytes:
        """Store a node's reply with all its parts; storing the same reply again changes nothing.

        Raises:
            MessageError: a malformed bundle.
            AuthenticationError: a reply in another node's name.
            ProtocolError: the run has ended, or parts are missing.
        """
        head, parts = unpack_bundle(body)
        request = _parse(head)
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise MessageError("a parcel does not hold exactly one message")
        metadata = request.messages_list[0].metadata
        if metadata.src_node_id != node_id:
            raise AuthenticationError("a reply in another site's name")
        asked = metadata.reply_to_message_id
        state = self._short.state(asked, metadata.run_id, node_id)
        if state is not None and state <= ANSWERED:
            if len(body) <= LONGEST:
                unpack_answer(body)  # or it is refused now, and not where it is read
                self._short.answer(asked, body)
                return b""
            self._expect(request)
        link, run_id = self._link, request.messages_list[0].metadata.run_id
        try:
            with link.session():
                response = fleet_handlers.push_messages(request, link)
                for name in response.objects_to_push:
                    if name not in parts:
                        raise ProtocolError("a parcel lacks a part of its message")
                    link.store_object(run_id, response.session_id, name, parts[name])
        except (FlowerError, ValueError) as error:
            raise ProtocolError(
                f"the reply is not wanted any more ({type(error).__name__}); its run has ended"
            ) from None
        return b""

    def leave(self, node_id: int) -> bytes:
        """Set the node offline, so that nobody waits for it; an offline node stays offline."""
        self._link.deactivate_node(node_id)
        return b""

    def expect(self, node_id: int, body: bytes) -> None:
        """Make Flower expect the replies in a body of push-messages, also to short messages.

        Raises:
            MessageError: the body is malformed.
            AuthenticationError: a reply in another node's name.
        """
        request = _parse(body)
        if {message.metadata.src_node_id for message in request.messages_list} - {node_id}:
            raise AuthenticationError("a reply in another site's name")
        self._expect(request)

    def _expect(self, request: PushMessagesRequest) -> None:
        """Put the short messages that are answered at length into Flower's store, as fetched."""
        link = self._link
        for reply in request.messages_list:
            metadata = reply.metadata
            asked = metadata.reply_to_message_id
            state = self._short.state(asked, metadata.run_id, metadata.src_node_id)
            if state is None or state >= ANSWERED:
                continue
            message, tree = unpack_asked(self._short.content(asked))
            with link.session():
                session = link.start_session(metadata.run_id)
                link.store_message_and_object_tree(message_from_proto(message), tree, session)
                link.query(
                    "UPDATE message_ins SET delivered_at = :now WHERE message_id = :asked",
                    {"now": datetime.now(UTC).isoformat(), "asked": asked},
                )
            self._short.answer_elsewhere(asked)


def _parse(body: bytes) -> PushMessagesRequest:
    request = PushMessagesRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise MessageError("a push of messages is malformed") from None
    return request
