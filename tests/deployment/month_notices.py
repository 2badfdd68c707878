"""Who is told what in a month: a web server that takes notices, and what it must have got."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consilium.shared.audit.events import RoundClosed
from tests.deployment.federation import Federation
from tests.deployment.ledgers import events
from tests.notice_servers import Inbox
from tests.shared.notices.made_up import write_secret

TABLE = """
[notices]
quiet_minutes = 0
missing_minutes = 0.5
look_every_s = 1.0
[notices.webhook]
urls = ["http://127.0.0.1:{port}/{name}"]
secret = "webhook-secret"
"""
COORDINATOR = "coordinator"
LISTENERS = (COORDINATOR, "north", "centre")  # north is killed more than once, centre never


@dataclass(frozen=True)
class Notices:
    """What each listener's people were told."""

    inbox: Inbox
    studies: tuple[str, ...]

    def ask_for(self, federation: Federation) -> None:
        """Write into the settings of both sides that they are to be told."""
        for name in LISTENERS:
            folder = federation.coordinator if name == COORDINATOR else federation.site(name)
            write_secret(folder)
            file = "coordinator.toml" if name == COORDINATOR else "site.toml"
            with Path(folder, file).open("a") as settings:
                settings.write(TABLE.format(port=self.inbox.port, name=name))

    def deliveries(self, name: str) -> Counter[str]:
        """How often each notice was posted, by its identifier."""
        return Counter(
            str(json.loads(body)["id"])
            for headers, body in self.inbox.taken
            if headers["path"] == f"/{name}"
        )

    def told(self, name: str) -> list[dict[str, Any]]:
        """The notices, each once: a receiver knows one that comes again by its identifier."""
        posts = [(headers["path"], json.loads(body)) for headers, body in self.inbox.taken]
        return list({post["id"]: post for path, post in posts if path == f"/{name}"}.values())

    def kinds(self, name: str) -> Counter[str]:
        """How many notices there were of each kind."""
        return Counter(post["kind"] for post in self.told(name))

    def all_told(self, name: str, void: Counter[tuple[str, int]]) -> bool:
        """Whether each of these rounds, and the end of each study, was told once."""
        told = self.told(name)
        ended = Counter(post["study"] for post in told if post["kind"] == "study-finished")
        rounds = Counter(
            (post["study"], number)
            for post in told
            if post["kind"] == "round-void"
            for number in post["rounds"]
        )
        return rounds == void and ended == dict.fromkeys(self.studies, 1)


def void_rounds(federation: Federation, studies: tuple[str, ...]) -> Counter[tuple[str, int]]:
    """The void rounds of the studies, as the coordinator's audit log has them."""
    digests = {federation.digest_of(study): study for study in studies}
    return Counter(
        (digests[event.study_digest], event.round)
        for event in events(federation.coordinator / "audit.jsonl")
        if isinstance(event, RoundClosed) and event.void is not None
    )
