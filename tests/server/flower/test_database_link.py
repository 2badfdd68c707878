"""Messages through the SuperLink's real database, with a node that uses the gate's own bundles."""

import contextlib
import gc
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from consilium.server.flower.bundles import LinkBundles
from consilium.server.flower.database_link import LinkGrid, enrol_node, open_link
from consilium.server.flower.short_messages import ShortMessages
from consilium.server.flower.sites import FlowerSites
from consilium.server.flower.stored_replies import ReplyGoneError
from consilium.shared.secure_sum.messages import Action
from consilium.shared.wire.bundle import pack_bundle, unpack_bundle
from consilium.shared.wire.encoding import LongBytes
from consilium.shared.wire.flower_body import BODY, from_content, to_content
from tests.needs import PATIENCE_S


class EchoNode:
    """Answers every message with its body, from a thread."""

    def __init__(self, database: Path, name: str) -> None:
        link = open_link(database)
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.node = enrol_node(link, name, pem)
        link.acknowledge_node_heartbeat(self.node, 30.0)
        self._bundles = LinkBundles(link, ShortMessages(database))
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while not self.stop.wait(0.01):
            if parcel := self._bundles.fetch(self.node):
                self._bundles.hand_in(self.node, self._answer(*unpack_bundle(parcel)))

    def _answer(self, head: bytes, parts: dict[str, bytes]) -> bytes:
        pulled = PullMessagesResponse()
        pulled.ParseFromString(head)
        bare = message_from_proto(pulled.messages_list[0])
        asked = inflate_object_from_contents(bare.metadata.message_id, parts)
        asked.__dict__["_metadata"] = bare.metadata
        reply = Message(asked.content, reply_to=asked)
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = get_all_nested_objects(reply)
            request = PushMessagesRequest(
                node=Node(node_id=self.node),
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[0.0],
            )
            parts = {key: part.deflate() for key, part in objects.items()}
        return pack_bundle(request.SerializeToString(), parts)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[EchoNode]:
    echo = EchoNode(tmp_path / "link.sqlite", "north")
    yield echo
    echo.stop.set()
    echo.thread.join()


@pytest.fixture
def grid(tmp_path: Path, node: EchoNode) -> Iterator[LinkGrid]:
    with LinkGrid(tmp_path / "link.sqlite", tmp_path / "run") as grid:
        yield grid


def objects_in(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM objects").fetchone()[0])


def test_a_short_reply_comes_as_bytes_and_nothing_of_it_stays(
    tmp_path: Path, grid: LinkGrid, node: EchoNode
) -> None:
    sites = FlowerSites(grid, {"north": node.node}, forget=grid.forget)
    assert list(sites.ask(Action.KEYS, {"north": b"asked"}, timeout_s=PATIENCE_S)) == [
        ("north", b"asked")
    ]
    assert objects_in(tmp_path / "link.sqlite") == 0


def test_a_long_reply_is_read_where_it_lies_until_the_next_is_asked_for(
    tmp_path: Path, grid: LinkGrid, node: EchoNode
) -> None:
    body = np.arange(1_500_000, dtype="<u4").tobytes()  # two of Flower's chunks
    sites = FlowerSites(grid, {"north": node.node}, forget=grid.forget)
    for _, reply in sites.ask(Action.KEYS, {"north": body}, timeout_s=PATIENCE_S):
        assert isinstance(reply, LongBytes)
        assert len(reply) == len(body)
        for first, last in ((0, 9), (5_242_870, 5_242_890), (len(body) - 3, len(body)), (7, 7)):
            assert reply.read(first, last) == body[first:last]
        assert reply.read(0, len(body)) == body
    assert objects_in(tmp_path / "link.sqlite") == 0
    with pytest.raises(ReplyGoneError, match="deleted while it was read"):
        reply.read(0, len(body))


def test_a_body_of_equal_chunks_is_put_together_in_order(grid: LinkGrid, node: EchoNode) -> None:
    body = bytes(11 << 20) + b"end"  # Flower keeps equal chunks once
    sites = FlowerSites(grid, {"north": node.node}, forget=grid.forget)
    for _, reply in sites.ask(Action.KEYS, {"north": body}, timeout_s=PATIENCE_S):
        assert isinstance(reply, LongBytes)
        assert reply.read(0, len(reply)) == body


def test_a_body_that_was_sent_and_read_is_let_go_at_once(grid: LinkGrid, node: EchoNode) -> None:
    """Not only when garbage is collected: until then a second model would be held."""
    node.stop.set()
    node.thread.join()
    message = Message(to_content(bytes(6 << 20)), node.node, "query.keys")
    let_go = weakref.ref(message.content)
    gc.disable()
    try:
        grid.push_messages([message])
        assert len(from_content(message.content)) == 6 << 20
        del message
        assert let_go() is None
    finally:
        gc.enable()


def test_replies_that_are_kept_are_read(grid: LinkGrid, node: EchoNode) -> None:
    body = bytes(range(256)) * 8192
    array = Array(dtype="uint8", shape=(len(body),), stype=BODY, data=body)
    message = Message(RecordDict({BODY: ArrayRecord({BODY: array})}), node.node, "query.keys")
    (reply,) = grid.send_and_receive([message], timeout=PATIENCE_S)
    assert reply.content.array_records[BODY][BODY].data == body
