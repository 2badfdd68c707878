"""What happened in one round: who failed and why, what was sent, how long each phase took."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from shared.errors import ProtocolError
from shared.wire import Message


class Clock(Protocol):
    """Seconds that only grow, such as `time.monotonic`."""

    def __call__(self) -> float:
        """Now, in seconds from an arbitrary start."""


class Outgoing(Mapping[str, bytes]):
    """Messages by site, encoded when they are read, so the bodies never all exist at once."""

    def __init__(self, messages: Mapping[str, Message]) -> None:
        self._messages = messages
        self.sizes: dict[str, int] = {}

    def __getitem__(self, site: str) -> bytes:
        body = self._messages[site].to_bytes()
        self.sizes[site] = len(body)
        return body

    def __iter__(self) -> Iterator[str]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)


@dataclass(kw_only=True)
class RoundLog:
    """Book-keeping of one round; holds nothing that a site sent in confidence.

    Attributes:
        refusals: by site, the last sentence that says what went wrong with it.
        seconds: by phase.
        bytes_down: by site, bytes of the messages sent to it.
        bytes_up: by site, bytes of its replies.
    """

    clock: Clock
    refusals: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    bytes_up: dict[str, int] = field(default_factory=dict)

    def count_down(self, sizes: Mapping[str, int]) -> None:
        """Add the sizes of messages sent."""
        for site, size in sizes.items():
            self.bytes_down[site] = self.bytes_down.get(site, 0) + size

    def count_up(self, site: str, size: int) -> None:
        """Add the size of a reply."""
        self.bytes_up[site] = self.bytes_up.get(site, 0) + size

    @contextmanager
    def blaming(self, site: str) -> Iterator[None]:
        """Turn a breach of the protocol inside the block into this site's refusal."""
        try:
            yield
        except ProtocolError as error:
            self.refusals[site] = str(error)

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        """Add the time the block takes to the phase."""
        start = self.clock()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self.clock() - start
