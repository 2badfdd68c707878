"""How the coordinator reaches the sites: one question to several, answers as they arrive."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from consilium.shared.secure_sum.messages import Action
from consilium.shared.wire.encoding import LongBytes


class Sites(Protocol):
    """The sites of a run, however they are connected."""

    def names(self) -> tuple[str, ...]:
        """The sites that may be asked."""

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes | LongBytes]]:
        """Send each site its body and yield (site, reply) in the order of arrival.

        A site that does not answer within `timeout_s` seconds, or fails, is not yielded. Each
        body is read once, when it is sent, so that the mapping may make it then. A long reply can
        be read until the next is asked for.
        """
