"""Wakes a site's request when a message waits for it, with few looks at Flower's database."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Protocol

LOOK_EVERY_S = 0.01

log = logging.getLogger(__name__)


class WaitingMail(Protocol):
    """Which nodes have messages waiting, and whether anything changed since the last look."""

    def changed(self) -> bool:
        """Whether anything may have changed."""

    def waiting_nodes(self) -> set[int]:
        """Nodes for which a message waits."""


class Mailboxes:
    """Lets many requests wait for messages with one look at the database for all of them.

    Args:
        boxes: the database's view.
    """

    def __init__(self, boxes: WaitingMail) -> None:
        self._boxes = boxes
        self._with_mail: set[int] = set()
        self._arrived = asyncio.Event()
        self._closed = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Look for mail while the block runs."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

    async def wait_for(self, node: int, *, timeout_s: float) -> bool:
        """Wait until a message waits for the node; False when time is up, or at the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while node not in self._with_mail and not self._closed:
                    await self._arrived.wait()
                return not self._closed
        return False

    def close(self) -> None:
        """End all waiting, now and later."""
        self._closed = True
        self._arrived.set()

    async def _look(self) -> None:
        while True:
            try:
                if self._boxes.changed():
                    self._with_mail = self._boxes.waiting_nodes()
                    arrived, self._arrived = self._arrived, asyncio.Event()
                    arrived.set()
            except Exception:
                log.exception("cannot look for mail; trying again")
                await asyncio.sleep(1.0)
            await asyncio.sleep(LOOK_EVERY_S)
