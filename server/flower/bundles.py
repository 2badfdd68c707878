"""Whole messages to and from sites, each moved by Flower's own handlers in one transaction."""

from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.superlink.servicer.fleet import fleet_handlers
from google.protobuf.message import DecodeError

from consilium.shared.errors import AuthenticationError, MessageError, ProtocolError
from consilium.shared.wire.bundle import LARGEST_BUNDLE, MOST_PARTS, pack_bundle, unpack_bundle


class LinkBundles:
    """Bundles over the SuperLink's database.

    Args:
        link: the database's state.
    """

    def __init__(self, link: SqlLinkState) -> None:
        self._link = link

    def fetch(self, node_id: int) -> bytes:
        """Return the next message for a node as a bundle; nothing if none waits.

        A message too long for a bundle comes without its parts, and stays until the node has
        fetched them one by one through the Fleet API.
        """
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
        if request.messages_list[0].metadata.src_node_id != node_id:
            raise AuthenticationError("a reply in another site's name")
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

    def senders(self, body: bytes) -> set[int]:
        """Return the nodes that a body of push-messages says its replies are from.

        Raises:
            MessageError: the body is malformed.
        """
        return {message.metadata.src_node_id for message in _parse(body).messages_list}


def _parse(body: bytes) -> PushMessagesRequest:
    request = PushMessagesRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise MessageError("a push of messages is malformed") from None
    return request
