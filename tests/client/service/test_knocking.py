"""A site that the coordinator does not accept asks ever more seldom, at last each five minutes."""

import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from consilium.client.service.supernode import SiteNode
from consilium.shared.errors import AuthenticationError

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text()
KNOCKS = 8


class Clock(threading.Event):
    """An event that nobody waits for: it notes how long they would, and is set after some."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        if len(self.waits) == KNOCKS:
            self.set()
        return self.is_set()


def test_the_pauses_of_a_refused_site_double_up_to_what_the_runbook_says() -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AuthenticationError("revoked", case="not-accepted")

    stop, app = Clock(), SimpleNamespace()
    line: Any = SimpleNamespace(hello=refuse, post=refuse, address="a.org:1")
    assert not SiteNode(line, 1, app, stop=stop).run()  # type: ignore[arg-type]
    assert re.search(r"knocks ever more seldom, at last each five minutes", PAGE)
    bounds = [min(10.0 * 2**knock, 300.0) for knock in range(KNOCKS)]
    pauses = zip(stop.waits[:KNOCKS], bounds, strict=True)
    assert all(bound / 2 <= pause <= bound for pause, bound in pauses), stop.waits
    assert bounds[-1] == 300.0
