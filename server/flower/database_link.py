"""Messages between a study's process and the sites, through the SuperLink's database.

Short ones go through a table of our own, longer ones through Flower's store.

The study's process puts messages for sites into the SuperLink's durable database and takes their
replies out of it. It needs no port and no token, a SuperLink that restarts loses nothing, and
neither Flower's Control API nor its Runtime API has to be open to anyone.

A Flower run is only the envelope of the messages: it holds no app, and a restarted study process
makes a new one. The study's own run identity lives in the checkpoint.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar, cast

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.constant import (
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SUPERLINK_NODE_ID,
    Status,
    SubStatus,
)
from flwr.common.serde import message_to_proto
from flwr.proto.node_pb2 import NodeInfo
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message
from flwr.supercore import sql_mixin
from flwr.supercore.constant import (
    NOOP_FEDERATION_ID,
    SQLITE_PRAGMAS,
    NodeStatus,
    TaskType,
)
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.object_store import ObjectStoreFactory

# Flower's Message takes its sender from this process-wide record, which has no public setter.
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from sqlalchemy.exc import OperationalError

from consilium.server.flower.run_grid import RunGrid
from consilium.server.flower.short_messages import (
    ELSEWHERE,
    LONGEST,
    WAITING_NODES,
    ShortMessages,
    pack_message,
    unpack_answer,
)
from consilium.server.flower.stored_replies import arrays_of, is_whole, load_bodies, open_reply
from consilium.shared.errors import SettingsError
from consilium.shared.files.permissions import PRIVATE_FILE

HEARTBEAT_S = 10.0
LOOK_ANYWAY_S = 1.0  # even if the database did not change: a node that went away writes nothing
BUSY_TRIES = 20
NODE_HEARTBEAT_S = 10.0  # the least that Flower allows; a node counts as gone after twice that

_WAITING = (
    f"SELECT DISTINCT dst_node_id FROM message_ins WHERE delivered_at = '' UNION {WAITING_NODES}"  # noqa: S608
)

_CACHES = (("cache_size", "-2000"), ("mmap_size", "0"))

R = TypeVar("R")

log = logging.getLogger(__name__)


class RunEndedError(RuntimeError):
    """Flower ended this process's run, because it sent no heartbeat for too long."""


def open_link(database: Path) -> SqlLinkState:
    """Open the SuperLink's database, making it if it is not there (mode 0600).

    Flower lets each of a process's many connections cache 64 MiB of the file and map 256 MiB. Here
    they cache little, also those that Flower opens later: nearly all of the file is messages,
    written once and read once.
    """
    vars(sql_mixin)["SQLITE_PRAGMAS"] = (*SQLITE_PRAGMAS, *_CACHES)  # of a pragma the last counts
    database.touch(mode=PRIVATE_FILE, exist_ok=True)
    objects = ObjectStoreFactory(str(database))
    link = LinkStateFactory(str(database), NoOpFederationManager(), objects).state()
    return cast(SqlLinkState, link)  # the factory returns this class for a file's path


def enrol_node(link: LinkState, name: str, node_key: bytes) -> int:
    """Register a node's public key (PEM), if it is new; return the node's identifier.

    Raises:
        SettingsError: the key was shut out with a site that was revoked.
    """
    known = link.get_node_id_by_public_key(node_key)
    if known is not None:
        return known
    try:
        return link.create_node(
            NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, node_key, NODE_HEARTBEAT_S, name=name
        )
    except ValueError:
        raise SettingsError(
            f"the node key of site {name} was shut out when a site was revoked, and stays so; "
            "bring the site to this release, whose 'enroll' makes a new one"
        ) from None


def dismiss_node(link: LinkState, node_id: int) -> None:
    """Unregister a node, if it is registered: Flower refuses its key from now on."""
    with contextlib.suppress(ValueError):
        link.delete_node(NOOP_FLWR_AID, node_id)


class Watch:
    """Tells cheaply whether another connection changed a database since the last look."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(
            f"file:{database}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._seen = -1

    def changed(self) -> bool:
        """Whether another connection committed anything since the last call."""
        version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        changed, self._seen = version != self._seen, version
        return changed

    def waiting_nodes(self) -> set[int]:
        """Nodes for which a message waits, as unsigned identifiers."""
        rows = self._connection.execute(_WAITING)
        return {node & (2**64 - 1) for (node,) in rows}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class LinkGrid(RunGrid):
    """A Flower grid that works on the SuperLink's database.

    A message and its body become visible to its node in one transaction. A reply is returned once,
    when all of its body has arrived. Its long arrays are read from the database, where they stay
    until the next reply is asked for.

    Args:
        database: the SuperLink's.
        runs: file that names the Flower run in use, so that the next process can delete it.
    """

    def __init__(self, database: Path, runs: Path) -> None:
        self._link, self._short = open_link(database), ShortMessages(database)
        self._watch = Watch(database)
        self._clear_away(runs)
        number = self._link.create_run(
            "consilium/study", "1", None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID,
            TaskType.SERVER_APP,
        )  # fmt: skip
        runs.write_text(str(number), encoding="utf-8")
        self.set_run(self._link.get_run_info(run_ids=[number])[0])
        self._task = int(self._run.primary_task_id or 0)
        self._link.claim_task(self._task)
        self._link.activate_task(self._task)
        TaskIdentity.task_id, TaskIdentity.run_id = self._task, number
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._claimed: dict[str, Message] = {}
        self._asked: dict[str, Metadata] = {}  # of short messages not yet answered
        self._online: set[int] = set()  # nodes, as looked up last
        self._looked, self._called_roll = 0.0, 0.0
        self._done = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="run heartbeat", daemon=True)
        self._heart.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._heart.join()
        self._link.finish_task(self._task, SubStatus.COMPLETED, "")
        self._link.cleanup_run(self._run.run_id)
        self._short.delete_run(self._number)
        self._watch.close()
        self._short.close()

    def get_node_ids(self) -> Iterable[int]:
        """Return the identifiers of the nodes that are online."""
        return list(self._link.get_nodes(self._run.run_id))

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return what is known of the nodes that are online."""
        return list(self._link.get_node_info(node_ids=list(self.get_node_ids())))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Store messages for their nodes; return the identifiers to pull replies with."""
        return [
            self._push(message)
            for message in messages
            if self._has_been_online(message.metadata.dst_node_id)
        ]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield each reply once, when it has wholly arrived; it is read only when yielded."""
        asked = set(message_ids)
        short = asked & self._asked.keys()
        asked -= short
        yield from self._short_replies(short)
        if not asked:
            return
        now = time.monotonic()
        if not self._watch.changed() and now - self._looked < LOOK_ANYWAY_S:
            return
        self._looked = now
        unclaimed = asked - self._claimed.keys()
        for reply in self._patiently(lambda: self._link.get_message_res(unclaimed, self._number)):
            self._claimed[reply.metadata.reply_to_message_id] = reply
        for message_id in sorted(asked & self._claimed.keys()):
            if is_whole(self._link, self._number, self._claimed[message_id]):
                reply = self._claimed.pop(message_id)
                try:
                    yield open_reply(self._link, self._number, reply)
                finally:
                    self._clear(reply)

    def forget(self, message_ids: Collection[str]) -> None:
        """Delete messages whose replies are no longer wanted; late replies are refused."""
        for message_id in message_ids:
            self._claimed.pop(message_id, None)
            if self._asked.pop(message_id, None) is None:
                self._delete(message_id)
            self._short.delete(message_id)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and wait for their replies, at most ``timeout`` seconds."""
        waiting = set(self.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        received: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            for reply in self.pull_messages(waiting):
                load_bodies(reply)
                received.append(reply)
                waiting.discard(reply.metadata.reply_to_message_id)
            time.sleep(0.01)
        return received

    @property
    def _number(self) -> int:
        return int(self._run.run_id)

    def _has_been_online(self, node: int) -> bool:
        """Whether Flower would take a message for the node: it must have been online once."""
        if node in self._online:
            return True
        known = self._link.get_node_info(node_ids=[node])
        return bool(known) and known[0].status in (NodeStatus.ONLINE, NodeStatus.OFFLINE)

    def _push(self, message: Message) -> str:
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            parts = get_all_nested_objects(message)
            tree = get_object_tree(message)
            bare = remove_content_from_message(message)
            bundle = b""
            if sum(len(array.data) for array in arrays_of(message)) <= LONGEST:  # or copy nothing
                plain = {key: part.deflate() for key, part in parts.items()}
                bundle = pack_message(message_to_proto(bare), tree, plain)
        if bundle:
            self._call_roll()
            self._short.put(bare.metadata, bundle)
            self._asked[bare.metadata.message_id] = bare.metadata
            return str(bare.metadata.message_id)

        def store() -> bool:
            with self._link.session(), no_object_id_recompute():
                session = self._link.start_session(self._number)
                stored, missing = self._link.store_message_and_object_tree(bare, tree, session)
                for key in missing if stored else ():
                    self._link.store_object(self._number, session, key, parts[key].deflate())
                return stored

        if not self._patiently(store):
            self._check_run()
        return str(message.metadata.message_id)

    def _short_replies(self, asked: set[str]) -> Iterator[Message]:
        """Yield replies to short messages, and an error in the name of each node that is gone."""
        for message_id, state in self._short.answered(asked).items():
            if state == ELSEWHERE:  # from now on it is one of Flower's
                del self._asked[message_id]
                self._looked = 0.0
            else:
                reply = unpack_answer(self._short.content(message_id))
                self._asked.pop(message_id, None)
                self._short.delete(message_id)
                yield reply
        nodes = {self._asked[left].dst_node_id for left in asked & self._asked.keys()}
        called = bool(nodes) and self._call_roll()
        if not nodes <= self._online:
            if not called:
                self._call_roll(at_once=True)
            for left in asked & self._asked.keys():
                if self._asked[left].dst_node_id not in self._online:
                    gone = self._asked.pop(left)
                    self._short.delete(left)
                    yield create_message_error_unavailable_res_message(gone, "node_unavail")

    def _call_roll(self, *, at_once: bool = False) -> bool:
        """Look every LOOK_ANYWAY_S, or now, which nodes are online; return whether it was done.

        Raises:
            RunEndedError: Flower ended the run.
        """
        now = time.monotonic()
        if now - self._called_roll < LOOK_ANYWAY_S and not at_once:
            return False
        self._called_roll = now
        self._check_run()
        self._online = set(self._patiently(self.get_node_ids))
        return True

    def _check_run(self) -> None:
        status = self._link.get_run_status({self._number}).get(self._number)
        if status is None or status.status == Status.FINISHED:
            raise RunEndedError("the Flower run of this study process has ended; start it again")

    def _clear(self, reply: Message) -> None:
        """Delete a reply, and the message it answers, from the database."""
        if not reply.has_error():
            self._patiently(lambda: self._link.object_store.delete(reply.metadata.message_id))
        self._delete(reply.metadata.reply_to_message_id)

    def _delete(self, message_id: str) -> None:
        def delete() -> None:
            with self._link.session():
                self._link.delete_messages({message_id})
                self._link.object_store.delete(message_id)

        self._patiently(delete)

    def _clear_away(self, runs: Path) -> None:
        """End the Flower run of an earlier process that was killed, and delete its messages."""
        with contextlib.suppress(OSError, ValueError):
            old = int(runs.read_text("ascii"))
            self._short.delete_run(old)
            if not self._link.stop_run(old):
                self._link.cleanup_run(old)

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_S):
            try:
                self._link.acknowledge_task_heartbeat(self._task)
            except OperationalError as error:
                log.warning("the SuperLink's database is busy: %s", error)

    def _patiently(self, work: Callable[[], R]) -> R:
        """Do the work, and try again while the database is busy: SQLite has one writer at a time.

        Raises:
            OperationalError: still busy after many tries, or the disk is full.
        """
        for tried in range(BUSY_TRIES):
            try:
                return work()
            except OperationalError as error:
                if "locked" not in str(error) or tried == BUSY_TRIES - 1:
                    raise
                time.sleep(0.005 * (tried + 1))
        raise AssertionError("the loop returns or raises")
