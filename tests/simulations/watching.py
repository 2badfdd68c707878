"""Looking over the shoulder of a simulation's messages."""

import pytest
from flwr.app import Message

from consilium.simulations.federation import local_grid


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
