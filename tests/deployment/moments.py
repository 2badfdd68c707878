"""Moments of a round, seen from outside in the SuperLink's database, and how to wait for one."""

import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from consilium.server.flower.short_messages import ANSWERED as ANSWERED_HERE
from consilium.server.flower.short_messages import FETCHED

WAITING, TAKEN, ANSWERED = "waiting", "taken", "answered"
STAGES = (WAITING, TAKEN, ANSWERED)


@dataclass(frozen=True)
class Moment:
    """A message of this action to some site has come this far."""

    action: str
    stage: str

    def __str__(self) -> str:
        return f"{self.action} {self.stage}"


class Watcher:
    """Reads the SuperLink's database while others write it."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)

    def now(self) -> set[Moment]:
        """All moments that are so now."""
        query = (
            "SELECT i.message_type, i.delivered_at != '', r.message_id IS NOT NULL "
            "FROM message_ins i LEFT JOIN message_res r ON r.reply_to_message_id = i.message_id "
            "UNION SELECT kind, state >= ?, state >= ? FROM short_messages"
        )
        with suppress(sqlite3.OperationalError):
            return {
                Moment(kind.removeprefix("query."), _stage(bool(taken), bool(answered)))
                for kind, taken, answered in self._connection.execute(
                    query, (FETCHED, ANSWERED_HERE)
                )
            }
        return set()

    def wait_for(self, moment: Moment, seconds: float) -> bool:
        """Wait until the moment is so, looking as fast as one can."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if moment in self.now():
                return True
            time.sleep(0.0005)
        return False


def _stage(taken: bool, answered: bool) -> str:
    if answered:
        return ANSWERED
    return TAKEN if taken else WAITING
