"""Flower in one process: the same ServerApp and ClientApps, no network, no Ray, faults on demand.

Every message is serialised and parsed exactly as for the network. Sites answer in parallel on a
pool of threads. A site that crashes loses everything it held in memory and starts again from its
folder.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run

# Flower's Message takes its sender from this process-wide record, which has no public setter.
from flwr.supercore.task_identity import TaskIdentity

from consilium.server.flower.run_grid import RunGrid
from consilium.shared.wire.flower_body import array_records
from consilium.simulations.federation.faults import Fault, FaultKind

RUN_ID = 1
COORDINATOR_NODE = 1
FIRST_SITE_NODE = 100


@dataclass(slots=True)
class _Site:
    """A running ClientApp, how to start it again, and how often it was asked, by message type."""

    name: str
    start: Callable[[], ClientApp]
    app: ClientApp
    context: Context
    busy: threading.Lock = field(default_factory=threading.Lock)
    asked: dict[str, int] = field(default_factory=dict)


class LocalGrid(RunGrid):
    """A Flower grid whose nodes are ClientApps in this process.

    Args:
        sites: for each site, a function that starts its ClientApp, also after a crash.
        workers: sites that work at the same time; results do not depend on it.
        faults: faults to inject, for tests.
    """

    def __init__(
        self,
        sites: Mapping[str, Callable[[], ClientApp]],
        *,
        workers: int,
        faults: Iterable[Fault] = (),
    ) -> None:
        self._sites = {
            FIRST_SITE_NODE + index: _Site(name, start, start(), _context(FIRST_SITE_NODE + index))
            for index, (name, start) in enumerate(sites.items())
        }
        self._faults = {(f.site, f.message_type, f.occurrence): f for f in faults}
        self._replies: dict[str, Future[Message | None]] = {}
        self._numbers = itertools.count()
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="site")
        self._run = Run.create_empty(RUN_ID)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node identifiers."""
        return list(self._sites)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand each message to its site's queue; return the identifiers to pull replies with."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come so far; each is returned once."""
        done = [key for key in message_ids if key in self._replies and self._replies[key].done()]
        replies = [self._replies.pop(key).result() for key in done]
        return [reply for reply in replies if reply is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and wait for their replies, at most ``timeout`` seconds."""
        waiting = set(self.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        received: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            arrived = list(self.pull_messages(waiting))
            received += arrived
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            waiting &= set(self._replies)
            time.sleep(0.001)
        return received

    def _push(self, message: Message) -> str:
        key = f"message-{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = key
        site = self._sites[message.metadata.dst_node_id]
        self._replies[key] = self._pool.submit(self._deliver, site, _over_the_wire(message), key)
        return key

    def _deliver(self, site: _Site, message: Message, key: str) -> Message | None:
        """Let the site answer, with the fault planned for this message, if any."""
        message.metadata.__dict__["_message_id"] = key
        with site.busy:
            kind = message.metadata.message_type
            occurrence = site.asked.get(kind, 0)
            site.asked[kind] = occurrence + 1
            fault = self._faults.get((site.name, kind, occurrence))
            if fault and fault.kind is FaultKind.LOSE_REQUEST:
                return None
            reply = _over_the_wire(_answer(site, message))
            if fault and fault.kind is FaultKind.CRASH:
                site.app = site.start()
                return Message(Error(code=0, reason="Node Unavailable"), reply_to=message)
        if fault and fault.kind is FaultKind.LOSE_REPLY:
            return None
        if fault and fault.kind is FaultKind.DELAY:
            time.sleep(fault.delay_s)
        if fault and fault.kind is FaultKind.CORRUPT:
            return _corrupted(reply)
        return reply


def run_server_app(app: ServerApp, grid: LocalGrid) -> None:
    """Run a ServerApp on a local grid until it ends."""
    send_as_coordinator()
    app(cast(Grid, grid), _context(COORDINATOR_NODE))


def send_as_coordinator() -> None:
    """Let the messages that this process makes come from the coordinator of this run."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, COORDINATOR_NODE


def _context(node: int) -> Context:
    return Context(run_id=RUN_ID, node_id=node, node_config={}, state=RecordDict(), run_config={})


def _answer(site: _Site, message: Message) -> Message:
    """Call the ClientApp as a SuperNode does: an exception becomes an error reply."""
    try:
        return site.app(message, site.context)
    except Exception as error:
        return Message(Error(code=0, reason=type(error).__name__), reply_to=message)


def _over_the_wire(message: Message) -> Message:
    """Serialise a message into the objects that Flower sends, and parse it from their bytes."""
    contents = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
    return cast(Message, inflate_object_from_contents(message.object_id, contents))


def _corrupted(reply: Message) -> Message:
    """Flip the lowest bit in the middle of the reply's largest array."""
    records = array_records(reply.content)
    name, record = max(records.items(), key=lambda item: len(item[1]))
    key, array = max(record.items(), key=lambda item: len(item[1].data))
    body = np.frombuffer(array.data, dtype=np.uint8).copy()
    body[body.size // 2] ^= 1
    changed = Array(array.dtype, array.shape, array.stype, body.tobytes())
    reply.content[name] = ArrayRecord({key: changed})
    return reply
