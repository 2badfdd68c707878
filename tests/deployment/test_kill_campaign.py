"""Kill -9 of every process at every stage of every exchange; the study must finish regardless."""

import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.deployment.federation import PATIENCE, SITES, Federation, tiny_study, write_records
from tests.deployment.ledgers import check_books
from tests.deployment.moments import STAGES, Moment, Watcher

VICTIMS = ("supervisor", "service", "study", "site")
# In the order of a round: after each kill channels and keys are exchanged anew.
ACTIONS = ("channel", "keys", "update", "agree", "unmask")
POINTS = tuple(itertools.product(ACTIONS, STAGES, VICTIMS))
ANEW = ("channel", "keys")  # seldom soon after a round in which nobody died but the service
MOMENT_S = 25.0
MOMENT_ROUNDS = 12  # whole rounds in which a moment has not come: it will not, so go on
MISSES = 20


class Campaign:
    """Kills one process after the other and starts again what nobody else starts."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.watcher = Watcher(federation.coordinator / "link.sqlite")
        self.done: list[tuple[Moment, str]] = []
        self._turn = itertools.cycle(SITES)

    def strike(self, moment: Moment, victim: str) -> bool:
        """Wait for the moment, kill, and start again; False if the moment never came."""
        if not self._comes(moment):
            return False
        federation = self.federation
        if victim == "site":
            site = next(self._turn)
            federation.kill(site)
            federation.start(site)
        elif victim == "supervisor":
            federation.kill("coordinator")
            federation.start("coordinator")
        else:
            pid = federation.children().get(victim)
            if pid is None:
                return False
            os.kill(pid, signal.SIGKILL)  # its supervisor starts it again
        self.done.append((moment, victim))
        return True

    def _comes(self, moment: Moment) -> bool:
        """Wait for the moment, on a busy machine longer, but not while round after round ends."""
        began, deadline = len(self.federation.records_of()), time.monotonic() + MOMENT_S * PATIENCE
        while time.monotonic() < deadline:
            if self.watcher.wait_for(moment, 2.0):
                return True
            if len(self.federation.records_of()) - began >= MOMENT_ROUNDS:
                return False
        return False


@pytest.mark.slow
@pytest.mark.timeout(4200)
def test_a_study_survives_every_process_killed_at_every_stage_of_every_exchange(
    tmp_path: Path,
) -> None:
    records = tmp_path / "records"
    write_records(records, patients=60, seed=1)
    federation = Federation(tmp_path / "federation", records)
    # More rounds than kills and missed moments can use up (MISSES * MOMENT_ROUNDS, and a few for
    # each point); the study is stopped by its budget of rounds, not of time.
    federation.prepare(tiny_study(rounds=500, mode="site", timeout=15.0))
    rng = random.Random(20_26)
    try:
        federation.start("coordinator")
        for site in SITES:
            federation.start(site)
        federation.wait_for(lambda: (federation.coordinator / "link.sqlite").exists(), "link", 30)
        campaign = Campaign(federation)
        left = [(Moment(action, stage), victim) for action, stage, victim in POINTS]
        began, missed, settled = time.monotonic(), 0, False
        while (
            left
            and time.monotonic() - began < 750 * PATIENCE
            and federation.state_of() != "finished"
        ):
            able = [one for one in left if not (settled and one[0].action in ANEW)] or left
            point = able[rng.randrange(len(able))]
            left.remove(point)
            struck = campaign.strike(*point)
            settled = point[1] == "service" or not struck
            if not struck:
                missed += 1
                if missed < MISSES:
                    left.append(point)
        assert len(set(campaign.done)) >= 40, (campaign.done, left)
        federation.finish(360 * PATIENCE)
    finally:
        federation.close()
    check_books(federation)
    rounds = federation.records_of()
    numbers = [record["round"] for record in rounds]
    assert numbers == sorted(set(numbers)), "a round was closed twice"
    assert sum(record["void"] is None for record in rounds) >= 20
