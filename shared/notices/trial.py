"""One notice for trying out: sent at once to every address, past the outbox."""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from consilium.shared.errors import ConsiliumError
from consilium.shared.notices.courier import Addresses
from consilium.shared.notices.kinds import Sender
from consilium.shared.notices.outbox import Notice
from consilium.shared.notices.settings import NoticeSettings


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Whether an address took the test, and one sentence of what it said."""

    ok: bool
    told: str


def try_out(
    settings: NoticeSettings, folder: Path, sender: Sender, *, proxy: httpx.Proxy | None = None
) -> list[Trial]:
    """Send a test to every address, and return what came of it.

    Raises:
        SettingsError: the file with more authorities cannot be used.
    """
    addresses, now = Addresses(settings, folder, proxy=proxy), time.time()
    test = Notice(
        id=secrets.token_hex(16),
        kind="test",
        formed=now,
        subject=f"Consilium, {sender.shown}: a test",
        text=f"Somebody ran '{sender.command} notices --test'. Notices arrive here.",
        fields={"side": sender.side, "site": sender.name if sender.side == "site" else None},
    )
    found = []
    for name in addresses.names:
        try:
            said = addresses.send(test, name, now)
            found.append(Trial(ok=True, told=f"{name}: taken ({said})"))
        except ConsiliumError as error:
            found.append(Trial(ok=False, told=f"{name}: not taken; {error}"))
    return found
