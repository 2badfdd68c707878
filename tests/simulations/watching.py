"""Looking over the shoulder of a simulation's messages."""

from collections.abc import Callable, Hashable, Mapping

import numpy as np
import pytest
from flwr.app import Message

from consilium.simulations.federation import local_grid

MOST_RUNS = 8


def watch_messages(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what will hold all arrays and values of all messages, in both directions, as bytes."""
    seen: list[bytes] = []
    pass_on = local_grid._over_the_wire

    def watch(message: Message) -> Message:
        if message.has_content():
            for record in message.content.array_records.values():
                seen.extend(array.data for array in record.values())
            others = (message.content.metric_records, message.content.config_records)
            seen.extend(str(value).encode() for kind in others for value in kind.values())
        return pass_on(message)

    monkeypatch.setattr(local_grid, "_over_the_wire", watch)
    return seen


def as_numbers(name: Hashable, value: float) -> dict[Hashable, bytes]:
    """The bytes of one number in each form in which a program would send it."""
    kinds = ("<f4", "<f8", ">f4", ">f8")
    return {(name, kind): np.asarray(value, dtype=kind).tobytes() for kind in kinds}


def sent_in_every_run(
    run: Callable[[int], Mapping[Hashable, bytes]], seen: list[bytes]
) -> set[Hashable]:
    """Run until nothing is left that every run sent; return what is left after eight runs.

    A run returns what to look for, by name. What is sent is sent each time. Masks are fresh in
    each run, and four given bytes occur in 2^22 bytes of them by chance with probability 2^-10 at
    most: in all eight runs, some one of 2^14 names, with probability 2^-66. One run in twenty has
    such a chance find and needs a second.
    """
    left: set[Hashable] | None = None
    for number in range(MOST_RUNS):
        seen.clear()
        sought = run(number)
        sent = b"\0".join(seen)
        assert len(sent) <= 1 << 22
        assert 0 < len(sought) <= 1 << 14
        assert min(map(len, sought.values())) >= 4
        found = {name for name, pattern in sought.items() if pattern in sent}
        left = found if left is None else left & found
        if not left:
            break
    return left or set()
