"""Time in which nothing can happen any more passes at once: no test waits for a lost message.

The coordinator waits for a lost reply until its timeout. With a short timeout a busy machine loses
other replies, too; with a long one a test takes long. So the clock of whoever waits jumps ahead as
soon as no reply is left that could still come.
"""

import threading
import time
from collections.abc import Iterable

import pytest
from flwr.app import Message

from consilium.server.flower import sites
from consilium.simulations.federation import local_grid
from consilium.simulations.federation.local_grid import LocalGrid

AGES_S = 1e6
PATIENCE_S = 120.0


class PassingTime:
    """Stands for the module ``time``: at the coordinator, and where a reply is held back."""

    def __init__(self) -> None:
        self._own, self._lock = threading.local(), threading.Lock()  # groups wait side by side
        self._late, self._missed = 0, threading.Event()

    def monotonic(self) -> float:
        return time.monotonic() + getattr(self._own, "ahead_s", 0.0)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def hold_back(self, seconds: float) -> None:
        """A reply that comes late: when its question has been given up, however long that takes."""
        with self._lock:
            self._late += 1
            missed = self._missed
        missed.wait(PATIENCE_S)

    def watch(self, asked: list[str], grid: LocalGrid, arrived: list[Message]) -> None:
        """Jump ahead if none of the replies asked for can come in time."""
        to_come = [grid._replies[key] for key in asked if key in grid._replies]
        waiting = sum(not reply.done() for reply in to_come)
        with self._lock:
            if arrived or not waiting == len(to_come) == self._late:
                return
            self._late = 0
            missed, self._missed = self._missed, threading.Event()  # the next waits for its own
        missed.set()
        self._own.ahead_s = getattr(self._own, "ahead_s", 0.0) + AGES_S


def let_time_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nobody waits in vain."""
    passing, pull = PassingTime(), LocalGrid.pull_messages

    def pull_and_watch(grid: LocalGrid, message_ids: Iterable[str]) -> list[Message]:
        asked = list(message_ids)
        arrived = list(pull(grid, asked))
        passing.watch(asked, grid, arrived)
        return arrived

    class Held:
        monotonic, sleep = staticmethod(time.monotonic), staticmethod(passing.hold_back)

    monkeypatch.setattr(LocalGrid, "pull_messages", pull_and_watch)
    monkeypatch.setattr(sites, "time", passing)
    monkeypatch.setattr(local_grid, "time", Held)
