"""HTTP connections that a silent or slow client cannot hold open.

uvicorn limits how long an idle connection is kept, but not how long a request's head may take.
"""

import asyncio
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_S = 10.0
REFUSED_STAYS_S = 0.2  # a refused client's connection stays this long, so it can read the answer
LARGEST_HEAD = 32 << 10
MOST_CONNECTIONS = 2048
MOST_FROM_ONE_ADDRESS = 256  # many sites may sit behind one proxy


class BoundedConnection(HttpToolsProtocol):
    """A connection whose request heads are bounded in time and size; open ones are counted."""

    open_by_address: ClassVar[Counter[str]] = Counter()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._address = "unknown"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection if too many are open; else wait a bounded time for a request."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else "unknown"
        self.open_by_address[self._address] += 1
        crowded = self.open_by_address[self._address] > MOST_FROM_ONE_ADDRESS
        if crowded or len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection no longer."""
        super().connection_lost(exc)
        self._head_arrived()
        self.open_by_address[self._address] -= 1
        if self.open_by_address[self._address] <= 0:
            del self.open_by_address[self._address]

    def data_received(self, data: bytes) -> None:
        """Parse, but give up on a head that is too long."""
        if self._head_deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD + (64 << 10):  # a piece may hold head and body
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request's head begins."""
        super().on_message_begin()
        if self._head_deadline is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """A request's head has arrived."""
        self._head_arrived()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Stop reading if the answer came before the whole body: then it was a refusal."""
        super().on_response_complete()
        if self.cycle.more_body:
            self.transport.pause_reading()
            self.loop.call_later(REFUSED_STAYS_S, self.transport.abort)

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_deadline = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def _head_arrived(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None
