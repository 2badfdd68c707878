"""Asking several sites the same thing, and the record of what happened in a round."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from consilium.server.secure_sum.sites import Sites
from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import ProtocolError, RoundVoidError
from consilium.shared.secure_sum.messages import (
    Action,
    Agreement,
    ChannelKey,
    MaskedUpdate,
    Refusal,
    RoundKeys,
    Unmasked,
    read_reply,
)
from consilium.shared.wire.encoding import Message

R = TypeVar("R", MaskedUpdate, RoundKeys, ChannelKey, Agreement, Unmasked)


class Clock(Protocol):
    """A clock in seconds that never goes back, such as `time.monotonic`."""

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
    """What happened in one round; holds nothing that a site sent in confidence.

    Attributes:
        refusals: by site, the last sentence that says what went wrong with it.
        seconds: by phase, how long it took.
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


def ask(
    sites: Sites,
    action: Action,
    requests: Mapping[str, Message],
    expected: type[R],
    log: RoundLog,
    *,
    timeout_s: float,
    max_bytes: int | None = None,
) -> Iterator[tuple[str, R]]:
    """Ask several sites and yield their well-formed replies as they arrive, one from each site.

    Args:
        sites: how to reach them.
        action: what is asked.
        requests: message by site.
        expected: the kind of reply.
        log: records refusals, malformed and missing replies, and byte counts.
        timeout_s: longest wait, in seconds.
        max_bytes: longest reply allowed, where the caller knows a closer bound than its kind has.
    """
    outgoing = Outgoing(requests)
    waiting = set(requests)
    for site, data in sites.ask(action, outgoing, timeout_s=timeout_s):
        if site not in waiting:
            continue
        waiting.remove(site)
        log.count_up(site, len(data))
        with log.blaming(site):
            reply = read_reply(expected, data, max_bytes=max_bytes)
            if reply.site != site:
                raise ProtocolError(f"the reply says it is from site {reply.site}")
            if isinstance(reply, Refusal):
                raise ProtocolError(f"{reply.sentence} [{action.value}: {reply.code}]")
            yield site, reply
    log.count_down(outgoing.sizes)
    for site in waiting:
        log.refusals[site] = f"no answer to {action.value} within {timeout_s:g} s"


def require_sites(
    count: int, least: int, did: str, *, round: int, roster: Roster, log: RoundLog
) -> None:
    """Void the round unless enough sites did what was asked.

    Raises:
        RoundVoidError: fewer than `least` did; the sentence has every site's refusal.
    """
    if count < least:
        raise RoundVoidError(
            f"round {round} is void and the model unchanged: {count} of {len(roster)} sites {did}, "
            f"and {least} are needed{reasons(log)}"
        )


def reasons(log: RoundLog) -> str:
    """What went wrong with which site, in brackets; nothing if nothing did."""
    told = "; ".join(f"{site}: {why}" for site, why in sorted(log.refusals.items()))
    return f" ({told})" if told else ""
