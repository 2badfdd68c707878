"""Short messages beside Flower's store: long answers, nodes that are gone, liars, restarts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Error, Message
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
from flwr.supercore.task_identity import TaskIdentity

from consilium.server.flower.bundles import LinkBundles
from consilium.server.flower.database_link import (
    LinkGrid,
    Watch,
    dismiss_node,
    enrol_node,
    open_link,
)
from consilium.server.flower.short_messages import (
    ANSWERED,
    ELSEWHERE,
    FETCHED,
    LONGEST,
    ShortMessages,
)
from consilium.server.flower.sites import FlowerSites
from consilium.shared.errors import AuthenticationError, MessageError, ProtocolError
from consilium.shared.secure_sum.messages import Action
from consilium.shared.wire.bundle import pack_bundle, unpack_bundle
from consilium.shared.wire.encoding import LongBytes
from consilium.shared.wire.flower_body import to_content
from tests.needs import PATIENCE_S


class Coordinator:
    """The study's side and the gate's side of one database, and two nodes that are online."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "link.sqlite"
        self.link = open_link(self.database)
        self.short = ShortMessages(self.database)
        self.bundles = LinkBundles(self.link, self.short)
        self.grid = LinkGrid(self.database, folder / "run")
        self.nodes: dict[str, int] = {}

    def enrol(self, name: str, *, online: bool = True) -> None:
        """Give the node that the tests know by this name a new identifier."""
        self.nodes[name] = enrol_node(self.link, name, os.urandom(40))
        if online:
            self.link.acknowledge_node_heartbeat(self.nodes[name], 30.0)

    def ask(self, name: str, body: bytes = b"asked") -> str:
        message = Message(to_content(body), self.nodes[name], "query.keys")
        (asked,) = self.grid.push_messages([message])
        return asked

    def fetch(self, name: str) -> Message:
        head, parts = unpack_bundle(self.bundles.fetch(self.nodes[name]))
        pulled = PullMessagesResponse()
        pulled.ParseFromString(head)
        bare = message_from_proto(pulled.messages_list[0])
        asked = inflate_object_from_contents(bare.metadata.message_id, parts)
        assert isinstance(asked, Message)
        asked.__dict__["_metadata"] = bare.metadata
        return asked

    def request(self, asked: Message, body: bytes) -> tuple[PushMessagesRequest, dict[str, bytes]]:
        reply = Message(to_content(body), reply_to=asked)
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            parts = {key: part.deflate() for key, part in get_all_nested_objects(reply).items()}
            request = PushMessagesRequest(
                node=Node(node_id=asked.metadata.dst_node_id),
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[0.0],
            )
        return request, parts

    def reply(self, asked: Message, body: bytes) -> bytes:
        request, parts = self.request(asked, body)
        return pack_bundle(request.SerializeToString(), parts)

    def sites(self) -> FlowerSites:
        return FlowerSites(self.grid, self.nodes, forget=self.grid.forget)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path_factory.mktemp("coordinator"))
    yield made
    made.grid.__exit__()


@pytest.fixture
def coordinator(started: Coordinator) -> Coordinator:
    started.nodes.clear()
    for name in ("north", "east"):
        started.enrol(name)
    return started


def content_of(reply: Message) -> bytes:
    (record,) = reply.content.array_records.values()
    (array,) = record.values()
    return array.data


def test_a_message_goes_to_its_node_alone_once_and_its_answer_comes_once(
    coordinator: Coordinator,
) -> None:
    asked = coordinator.ask("north")
    watch = Watch(coordinator.database)
    assert coordinator.nodes["north"] in watch.waiting_nodes()
    assert coordinator.nodes["east"] not in watch.waiting_nodes()
    assert coordinator.bundles.fetch(coordinator.nodes["east"]) == b""
    message = coordinator.fetch("north")
    assert content_of(message) == b"asked"
    assert coordinator.bundles.fetch(coordinator.nodes["north"]) == b""
    assert coordinator.nodes["north"] not in watch.waiting_nodes()
    watch.close()
    assert list(coordinator.grid.pull_messages([asked])) == []
    first, second = (coordinator.reply(message, body) for body in (b"first", b"second"))
    coordinator.bundles.hand_in(coordinator.nodes["north"], first)
    coordinator.bundles.hand_in(coordinator.nodes["north"], second)  # a repeated answer is dropped
    (reply,) = coordinator.grid.pull_messages([asked])
    assert content_of(reply) == b"first"
    assert reply.metadata.src_node_id == coordinator.nodes["north"]
    assert reply.metadata.reply_to_message_id == asked
    assert coordinator.short.content(asked) == b""
    assert list(coordinator.grid.pull_messages([])) == []


def test_messages_of_one_node_keep_their_order(coordinator: Coordinator) -> None:
    bodies = [bytes([number]) for number in range(5)]
    for body in bodies:
        coordinator.ask("north", body)
    assert [content_of(coordinator.fetch("north")) for _ in bodies] == bodies


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_long_answer_to_a_short_message_goes_through_flowers_store(
    coordinator: Coordinator, in_parts: bool
) -> None:
    asked = coordinator.ask("north")
    message = coordinator.fetch("north")
    body = bytes(range(256)) * (LONGEST // 256 + 1)
    if in_parts:  # as a site sends what no bundle holds: by Flower's own calls
        request, parts = coordinator.request(message, body)
        coordinator.bundles.expect(coordinator.nodes["north"], request.SerializeToString())
        link, run = coordinator.link, message.metadata.run_id
        session = link.start_session(run)
        _, missing = link.store_message_and_object_tree(
            message_from_proto(request.messages_list[0]), request.message_object_trees[0], session
        )
        for name in missing:
            link.store_object(run, session, name, parts[name])
    else:
        coordinator.bundles.hand_in(coordinator.nodes["north"], coordinator.reply(message, body))
    assert coordinator.short.answered([asked]) == {asked: ELSEWHERE}
    assert coordinator.bundles.fetch(coordinator.nodes["north"]) == b""  # not delivered again
    replies = coordinator.grid.send_and_receive([], timeout=0)
    assert list(replies) == []
    found = []
    for _ in range(2):  # the first look learns where the answer lies
        for reply in coordinator.grid.pull_messages([asked]):
            data = content_of(reply)
            assert isinstance(data, LongBytes)
            found.append(data.read(0, len(data)))
    assert found == [body]
    assert coordinator.link.num_message_ins() == 0


def test_a_node_that_is_gone_is_not_waited_for(coordinator: Coordinator) -> None:
    asked = {name: coordinator.ask(name) for name in coordinator.nodes}
    coordinator.link.deactivate_node(coordinator.nodes["north"])
    dismiss_node(coordinator.link, coordinator.nodes["east"])
    coordinator.grid._called_roll = 0.0  # as after a second
    replies = list(coordinator.grid.pull_messages(asked.values()))
    assert {reply.metadata.reply_to_message_id for reply in replies} == set(asked.values())
    assert all(reply.has_error() and not reply.has_content() for reply in replies)
    assert all(coordinator.short.content(message) == b"" for message in asked.values())


def test_a_node_that_was_never_online_is_not_asked(coordinator: Coordinator) -> None:
    coordinator.enrol("new", online=False)
    message = Message(to_content(b"asked"), coordinator.nodes["new"], "query.keys")
    assert list(coordinator.grid.push_messages([message])) == []


def test_an_answer_in_anothers_name_or_to_anothers_message_is_refused(
    coordinator: Coordinator,
) -> None:
    asked = coordinator.ask("north")
    message = coordinator.fetch("north")
    honest = coordinator.reply(message, b"answer")
    with pytest.raises(AuthenticationError, match="in another site's name"):
        coordinator.bundles.hand_in(coordinator.nodes["east"], honest)
    request, parts = coordinator.request(message, b"forged")
    with pytest.raises(AuthenticationError, match="in another site's name"):
        coordinator.bundles.expect(coordinator.nodes["east"], request.SerializeToString())
    request.messages_list[0].metadata.src_node_id = coordinator.nodes["east"]
    forged = pack_bundle(request.SerializeToString(), parts)
    coordinator.bundles.hand_in(coordinator.nodes["east"], forged)  # to nobody's message: dropped
    coordinator.bundles.expect(coordinator.nodes["east"], request.SerializeToString())
    assert coordinator.short.answered([asked]) == {}
    coordinator.bundles.hand_in(coordinator.nodes["north"], honest)
    (reply,) = coordinator.grid.pull_messages([asked])
    assert content_of(reply) == b"answer"


def test_a_malformed_answer_is_refused_at_the_gate(coordinator: Coordinator) -> None:
    asked = coordinator.ask("north")
    message = coordinator.fetch("north")
    request, parts = coordinator.request(message, b"answer")
    head, node = request.SerializeToString(), coordinator.nodes["north"]
    for name in parts:
        lacking = {key: part for key, part in parts.items() if key != name}
        with pytest.raises(ProtocolError, match="lacks a part of its message"):
            coordinator.bundles.hand_in(node, pack_bundle(head, lacking))
        with pytest.raises(ProtocolError, match="lacks a part of its message"):
            coordinator.bundles.hand_in(node, pack_bundle(head, {**parts, name: b"nonsense"}))
    for body in (b"", b"nonsense", pack_bundle(b"nonsense", {})):
        with pytest.raises(MessageError):
            coordinator.bundles.hand_in(node, body)
    assert coordinator.short.state(asked, message.metadata.run_id, node) == FETCHED


def test_an_answer_that_nobody_waits_for_any_more_leaves_nothing(coordinator: Coordinator) -> None:
    sites = coordinator.sites()
    assert list(sites.ask(Action.KEYS, {"north": b"asked"}, timeout_s=0.05)) == []
    assert coordinator.bundles.fetch(coordinator.nodes["north"]) == b""
    asked = coordinator.ask("north")
    message = coordinator.fetch("north")
    coordinator.grid.forget([asked])
    coordinator.bundles.hand_in(coordinator.nodes["north"], coordinator.reply(message, b"late"))
    assert coordinator.short.answered([asked]) == {}
    assert coordinator.short.content(asked) == b""
    assert list(sites.ask(Action.KEYS, {}, timeout_s=PATIENCE_S)) == []


def test_a_killed_studys_messages_are_cleared_away_by_the_next_and_others_stay(
    tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):  # a process has one, its newest grid's
        monkeypatch.setattr(TaskIdentity, name, getattr(TaskIdentity, name))
    kept = coordinator.ask("north")
    killed = LinkGrid(coordinator.database, tmp_path / "run")

    def message() -> Message:
        return Message(to_content(b"asked"), coordinator.nodes["east"], "query.keys")

    (lost,) = killed.push_messages([message()])
    assert coordinator.short.content(lost) != b""
    again = LinkGrid(coordinator.database, tmp_path / "run")  # as after kill -9
    assert coordinator.short.content(lost) == b""
    (last,) = again.push_messages([message()])
    again.__exit__()
    assert coordinator.short.content(last) == b""
    assert coordinator.short.content(kept) != b""


def test_an_answer_survives_a_restart_of_the_superlink(coordinator: Coordinator) -> None:
    asked = coordinator.ask("north")
    message = coordinator.fetch("north")
    restarted = ShortMessages(coordinator.database)
    gate = LinkBundles(open_link(coordinator.database), restarted)
    gate.hand_in(coordinator.nodes["north"], coordinator.reply(message, b"answer"))
    assert restarted.answered([asked]) == {asked: ANSWERED}
    (reply,) = coordinator.grid.pull_messages([asked])
    assert content_of(reply) == b"answer"
    restarted.close()


def test_an_error_of_a_site_comes_as_an_error(coordinator: Coordinator) -> None:
    asked = coordinator.ask("north")
    message = coordinator.fetch("north")
    reply = Message(Error(code=4, reason="refused"), reply_to=message)
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        request = PushMessagesRequest(
            messages_list=[message_to_proto(reply)], message_object_trees=[get_object_tree(reply)]
        )
    body = pack_bundle(request.SerializeToString(), {reply.object_id: reply.deflate()})
    coordinator.bundles.hand_in(coordinator.nodes["north"], body)
    (found,) = coordinator.grid.pull_messages([asked])
    assert found.has_error()
    assert found.error.reason == "refused"


def test_a_message_too_long_for_the_table_goes_through_flowers_store(
    coordinator: Coordinator,
) -> None:
    asked = coordinator.ask("north", bytes(LONGEST + 1))
    assert coordinator.short.content(asked) == b""
    assert len(content_of(coordinator.fetch("north"))) == LONGEST + 1
    coordinator.grid.forget([asked])
    assert coordinator.link.num_message_ins() == 0
