"""The sites as the secure sum asks them, reached through a Flower grid."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Self

from flwr.app import Message
from flwr.serverapp import Grid

from consilium.shared.secure_sum.messages import Action
from consilium.shared.wire.encoding import LongBytes
from consilium.shared.wire.flower_body import from_content, to_content


class FlowerSites:
    """Sites behind a Flower grid; a body travels as the raw bytes of one array.

    Args:
        grid: Flower's connection to the nodes.
        nodes: site name to node identifier.
        poll_s: pause between looks for new replies.
        forget: called with the identifiers of messages whose replies did not come in time.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        *,
        poll_s: float = 0.002,
        forget: Callable[[Collection[str]], None] = lambda _: None,
    ) -> None:
        self._grid, self._nodes, self._poll_s = grid, dict(nodes), poll_s
        self._one_call = threading.Lock()  # groups of sites are asked at the same time
        self._forget = forget

    def assign(self, nodes: Mapping[str, int]) -> None:
        """Reach the sites at these nodes from the next message on."""
        self._nodes = dict(nodes)

    @classmethod
    def connect(
        cls, grid: Grid, expected: Collection[str], *, timeout_s: float, poll_s: float = 0.002
    ) -> Self:
        """Ask every node for its site's name until all expected sites answered or time is up.

        Here a name is only claimed: each site proves who it is with its first signature.
        """
        sites = cls(grid, {}, poll_s=poll_s)
        deadline = time.monotonic() + timeout_s
        while not set(expected) <= set(sites._nodes) and time.monotonic() < deadline:
            unknown = {str(n): n for n in grid.get_node_ids() if n not in sites._nodes.values()}
            answers = sites._exchange("name", dict.fromkeys(unknown, b""), unknown, deadline)
            for node, name in answers:
                if not isinstance(name, bytes):
                    continue
                if (site := name.decode("utf-8", "replace")) in expected:
                    sites._nodes.setdefault(site, unknown[node])
            time.sleep(poll_s)
        return sites

    def names(self) -> tuple[str, ...]:
        """Return the sites that are connected, sorted."""
        return tuple(sorted(self._nodes))

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes | LongBytes]]:
        """Send each site its body; yield (site, reply) as replies arrive, until time is up."""
        deadline = time.monotonic() + timeout_s
        yield from self._exchange(action.value, bodies, self._nodes, deadline)

    def _exchange(
        self, action: str, bodies: Mapping[str, bytes], nodes: Mapping[str, int], deadline: float
    ) -> Iterator[tuple[str, bytes | LongBytes]]:
        names = {node: name for name, node in nodes.items()}
        waiting: set[str] = set()
        for name in filter(nodes.__contains__, bodies):
            waiting.update(self._send(nodes[name], action, bodies, name))
        try:
            while waiting and time.monotonic() < deadline:
                for reply in self._replies(list(waiting)):
                    waiting.discard(reply.metadata.reply_to_message_id)
                    site = names.get(reply.metadata.src_node_id)
                    if site is not None and reply.has_content():
                        yield site, from_content(reply.content)
                if waiting:
                    time.sleep(self._poll_s)
        finally:
            self._forget(waiting)

    def _send(
        self, node: int, action: str, bodies: Mapping[str, bytes], name: str
    ) -> Iterable[str]:
        """Send one body, which may be as long as the model; keep no part of it afterwards."""
        message = Message(to_content(bodies[name]), node, f"query.{action}")
        with self._one_call:
            return self._grid.push_messages([message])

    def _replies(self, waiting: list[str]) -> Iterator[Message]:
        """Yield the replies that have come; between two, other groups may use the grid."""
        with self._one_call:
            replies = iter(self._grid.pull_messages(waiting))
        while True:
            with self._one_call:
                reply = next(replies, None)
            if reply is None:
                return
            yield reply
