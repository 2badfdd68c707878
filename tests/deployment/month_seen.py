"""What is seen of a federation that lives through a month."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consilium.client.hospital.folder import SiteFolder
from consilium.shared.enrolment.recovery import RecoveryCode
from tests.deployment.federation import Federation
from tests.deployment.ledgers import own_ledger
from tests.deployment.month_notices import Notices


@dataclass(frozen=True)
class Event:
    """What happens when so many hundredths of the first study's rounds are over."""

    after: int
    what: str
    happen: Callable[["Month"], None]


@dataclass(frozen=True)
class Happened:
    """An event that is over: the rounds it lasted, and what all hospitals had spent by site."""

    event: Event
    began: int
    ended: int
    seconds: float
    before: dict[str, float]
    after: dict[str, float]


@dataclass
class Month:
    """The federation, what was seen of it, and what people keep beside it."""

    federation: Federation
    studies: tuple[str, ...]  # by name; the first one's rounds are the clock
    rounds: int
    stops: bool  # whether the operator stops the studies in the end
    tell: Callable[[str], None]
    notices: Notices
    happened: list[Happened] = field(default_factory=list)
    lost: dict[str, Path] = field(default_factory=dict)  # machines that are gone, by site
    paper: dict[str, str] = field(default_factory=dict)  # recovery codes, by site
    sizes: dict[str, int] = field(default_factory=dict)  # declared by a site whose machine is lost
    memory: dict[str, list[tuple[int, int, float]]] = field(default_factory=dict)
    # by process: its number, the round, MiB
    _read: dict[str, tuple[int, list[dict[str, Any]]]] = field(default_factory=dict)

    def write_down(self, site: str, code: RecoveryCode) -> None:
        """Keep a hospital's recovery code on paper."""
        self.paper[site] = " ".join(code.words())

    def now(self) -> int:
        """How many training rounds are over."""
        return self.trained(self.studies[0])

    def trained(self, study: str, site: str = "") -> int:
        """How many training rounds a study has, or those that hold a site's update."""
        return sum(
            record["purpose"] == "training" and (not site or site in record["sites"])
            for record in self.records(study)
        )

    def records(self, study: str) -> list[dict[str, Any]]:
        """The rounds of a study so far, read anew only if there are more."""
        file = self.federation.rounds_file(study)
        size = file.stat().st_size if file.exists() else 0
        if size != self._read.get(study, (0, []))[0]:
            self._read[study] = size, self.federation.records_of(study)
        return self._read.get(study, (0, []))[1]

    def runs(self, study: str) -> bool:
        """Whether a study has not ended."""
        return self.federation.state_of(study) not in ("finished", "stopped")

    def reach(self, share: int) -> None:
        """Wait until so many hundredths of the first study's rounds are over."""
        wanted = share * self.rounds // 100
        self.federation.wait_for(
            lambda: self.now() >= wanted, f"{wanted} rounds", 120 + 3.0 * self.rounds
        )

    def pass_rounds(self, number: int, *, holding: str = "") -> None:
        """Wait for so many more rounds of each study that runs, or for those that hold a site."""
        for study in filter(self.runs, self.studies):
            wanted = self.trained(study, holding) + number
            self.federation.wait_for(
                lambda study=study, wanted=wanted: (
                    self.trained(study, holding) >= wanted or not self.runs(study)
                ),
                f"{number} rounds of {study} {holding}",
                90,
            )

    def spent(self) -> dict[str, float]:
        """What each hospital has spent of its lifetime budget, as its ledger says."""
        found = {}
        for name in self.federation.sites:
            if (self.federation.site(name) / "ledger.sqlite").exists():
                total = own_ledger(SiteFolder.open(self.federation.site(name))).summary().total
                found[name] = total.spent
        return found

    def look_at_memory(self) -> None:
        """Note how much memory each process holds, with its number and the round."""
        now = self.now()
        for name, pid in self._processes().items():
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                [kib] = re.findall(r"^VmRSS:\s+(\d+)", status, flags=re.M)
                self.memory.setdefault(name, []).append((pid, now, int(kib) / 1024))

    def memory_of_the_last(self) -> dict[str, tuple[int, float, int, float]]:
        """Of each process that ran at the end: round and MiB when first seen, and when last.

        First is a round or more after it appeared: one that has just begun holds nothing yet.
        """
        found = {}
        for name, looks in self.memory.items():
            own = [(now, mib) for pid, now, mib in looks if pid == looks[-1][0]]
            begun = next((look for look in own if look[0] > own[0][0]), own[-1])
            found[name] = (*begun, *own[-1])
        return found

    def _processes(self) -> dict[str, int]:
        found = {name: process.pid for name, process in self.federation.processes.items()}
        for pid in self.federation.descendants("coordinator"):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if "serve" in words:
                    found["service"] = pid
                if "run-study" in words:
                    digest = words[words.index("run-study") + 1]
                    found[f"study {digest[:8]}"] = pid
        return found

    def live_through(self, event: Event) -> None:
        """Let an event happen and compare budgets before and after it."""
        before, began, clock = self.spent(), self.now(), time.monotonic()
        self.tell(f"{time.strftime('%H:%M:%S')}  round {began}: {event.what}")
        event.happen(self)
        after = self.spent()
        for site, spent in after.items():
            known = max(one.get(site, 0.0) for one in (before, *(h.after for h in self.happened)))
            assert spent >= known * (1 - 1e-9), f"{site} forgot {known - spent} after {event.what}"
        seconds = time.monotonic() - clock
        self.happened.append(Happened(event, began, self.now(), seconds, before, after))
