"""A month of a federation in an hour: six hospitals, two studies, and what happens meanwhile.

    python -m tests.deployment.month --rounds 400

The timetable below says what happens and after how many hundredths of the rounds. All of it happens
to real processes that speak TLS on loopback, by the commands that people type. After each event
every hospital's budget is compared with what it was before; at the end every log and ledger is
compared with all others. What is promised and does not hold is an ``AssertionError``.
"""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.enroll import leave_recovery
from consilium.server.coordinator.certificates import CertificateFiles, issue_server_certificate
from consilium.shared.audit.events import Refused, Released, RoundClosed
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.segments import segments
from tests.deployment.federation import Federation, tiny_study, write_records
from tests.deployment.ledgers import check_books, events, own_ledger

HOSPITALS = ("north", "east", "south", "west", "centre", "coast")  # nothing befalls the last two
ROUNDS = 400
STUDIES = {"wards": "site", "nights": "distributed"}  # by name: who adds the noise
PATIENTS = 40
BACK = 2  # so many rounds of each study hold a site's update before it counts as back
KNOCKS_S = 10.0  # so long a revoked site goes on asking


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
    rounds: int
    tell: Callable[[str], None]
    happened: list[Happened] = field(default_factory=list)
    lost: dict[str, Path] = field(default_factory=dict)  # machines that are gone, by site
    paper: dict[str, str] = field(default_factory=dict)  # recovery codes, by site
    sizes: dict[str, int] = field(default_factory=dict)  # declared by a site whose machine is lost
    memory: dict[str, list[tuple[int, int, float]]] = field(default_factory=dict)

    # Looking.

    def trained(self, study: str, site: str = "") -> int:
        """How many training rounds a study has, or those that hold a site's update."""
        return sum(
            record["purpose"] == "training" and (not site or site in record["sites"])
            for record in self.federation.records_of(study)
        )

    def runs(self, study: str) -> bool:
        """Whether a study has not ended."""
        return self.federation.state_of(study) not in ("finished", "stopped")

    def reach(self, share: int) -> None:
        """Wait until so many hundredths of the first study's rounds are over."""
        first, wanted = next(iter(STUDIES)), share * self.rounds // 100
        self.federation.wait_for(
            lambda: self.trained(first) >= wanted, f"{wanted} rounds", 120 + 3.0 * self.rounds
        )

    def pass_rounds(self, number: int, *, holding: str = "") -> None:
        """Wait for so many more rounds of each study that runs, or for those that hold a site."""
        for study in filter(self.runs, STUDIES):
            wanted = self.trained(study, holding) + number
            self.federation.wait_for(
                lambda study=study, wanted=wanted: self.trained(study, holding) >= wanted,
                f"{number} rounds of {study} {holding}",
                90,
            )

    def spent(self) -> dict[str, float]:
        """What each hospital has spent of its lifetime budget, and what is reserved."""
        found = {}
        for name in self.federation.sites:
            if (self.federation.site(name) / "ledger.sqlite").exists():
                total = own_ledger(SiteFolder.open(self.federation.site(name))).summary().total
                found[name] = total.spent
        return found

    def look_at_memory(self) -> None:
        """Note how much memory each process holds, with its number and the round."""
        now = self.trained(next(iter(STUDIES)))
        for name, pid in self._processes().items():
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                [kib] = re.findall(r"^VmRSS:\s+(\d+)", status, flags=re.M)
                self.memory.setdefault(name, []).append((pid, now, int(kib) / 1024))

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


# What can happen.


def killed(site: str) -> Callable[[Month], None]:
    """A hospital's process is killed and started again."""

    def happen(month: Month) -> None:
        month.federation.kill(site)
        month.federation.start(site)
        month.pass_rounds(BACK, holding=site)

    return happen


def child_killed(kind: str) -> Callable[[Month], None]:
    """A process that the coordinator looks after is killed."""

    def happen(month: Month) -> None:
        os.kill(month.federation.children()[kind], signal.SIGKILL)
        month.pass_rounds(BACK)

    return happen


def coordinator_killed(month: Month) -> None:
    """The coordinator is killed as a whole and started again."""
    month.federation.kill("coordinator")
    month.federation.start("coordinator")
    month.pass_rounds(BACK)


def disk_full(name: str) -> Callable[[Month], None]:
    """No file of a hospital or of the coordinator takes another byte for some rounds, or seconds."""

    def happen(month: Month) -> None:
        federation = month.federation
        pids = {federation.processes[name].pid, *federation.descendants(name)}
        limits = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
        hard = limits[0][1]
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
        if name == "coordinator":
            time.sleep(3)
        else:
            month.pass_rounds(BACK)
        # Processes that were started meanwhile took the bound over.
        for pid in {federation.processes[name].pid, *federation.descendants(name)}:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        month.pass_rounds(BACK, holding="" if name == "coordinator" else name)

    return happen


def revoked(site: str) -> Callable[[Month], None]:
    """A hospital is shut out, and its process goes on asking for a while."""

    def happen(month: Month) -> None:
        log = month.federation.coordinator / "audit.jsonl"
        before = sum(isinstance(event, Refused) for event in events(log))
        month.federation.operator("revoke", site, "--reason", "a laptop was stolen")
        time.sleep(KNOCKS_S)
        month.pass_rounds(BACK)
        refused = sum(isinstance(event, Refused) for event in events(log)) - before
        assert refused <= 3, f"a revoked site left {refused} lines in the coordinator's log"
        month.federation.kill(site, signal.SIGTERM)

    return happen


def returned(site: str) -> Callable[[Month], None]:
    """A hospital that was shut out enrols again in its own folder."""

    def happen(month: Month) -> None:
        month.federation.enrol(site)
        month.federation.start(site)
        month.pass_rounds(BACK, holding=site)

    return happen


def machine_lost(site: str) -> Callable[[Month], None]:
    """A hospital's machine is gone with its folder; the paper and the second place are left."""

    def happen(month: Month) -> None:
        federation = month.federation
        federation.kill(site)
        for study in federation.overview()["studies"]:
            month.sizes[study["study"]] = study["declared_sizes"][site]
        month.lost[site] = federation.root / f"lost-{site}"
        shutil.move(federation.site(site), month.lost[site])
        month.pass_rounds(BACK)

    return happen


def recovered(site: str) -> Callable[[Month], None]:
    """A new machine takes the lost one's place, with its budget and its studies."""

    def happen(month: Month) -> None:
        federation, place = month.federation, second_place(month.federation, site)
        federation.make_site(site, federation.sites[site])
        keep_second_place(federation, site)
        federation.operator("revoke", site, "--reason", "its machine is lost")
        token = federation.operator("invite", site)
        [head] = federation.hospital("centre", "audit", "head", site).split()[:1]
        told = federation.hospital(
            site, "enroll", "-", "--recover", "--second-place", str(place), "--head", head,
            said=f"{token}\n{month.paper[site]}\n",
        )  # fmt: skip
        assert "The budget goes on" in told
        federation.vouch(site)
        for study in filter(month.runs, STUDIES):
            federation.hospital(
                site, "approve", study, "--yes", "--patients", str(month.sizes[study])
            )
        federation.start(site)
        month.pass_rounds(BACK, holding=site)

    return happen


def renamed(name: str) -> Callable[[Month], None]:
    """The coordinator gets another name, and each hospital follows it."""

    def happen(month: Month) -> None:
        month.federation.operator("rename", name)
        for site in month.federation.sites:
            month.federation.hospital(site, "coordinator", name)
        first = next(iter(month.federation.sites))
        killed(first)(month)  # and comes back under the new name
        assert SiteFolder.open(month.federation.site(first)).enrolment().host == name

    return happen


def certificate_ends(month: Month) -> None:
    """The server's certificate ends in ten days; the coordinator renews it by itself at its start."""
    files = certificate(month, ends=timedelta(days=10))
    coordinator_killed(month)
    assert files.expires() - datetime.now(UTC) > timedelta(days=45)


def certificate_expired(month: Month) -> None:
    """Nobody looked, and it has ended; hospitals say so, and the operator renews it by hand."""
    federation, noticed = month.federation, month.federation.said("coast").count("has expired")
    certificate(month, ends=timedelta(days=-1))
    federation.wait_for(
        lambda: federation.said("coast").count("has expired") > noticed, "sites to notice", 60
    )
    federation.operator("rotate-keys")
    for site in federation.sites:
        month.pass_rounds(1, holding=site)


def certificate(month: Month, *, ends: timedelta) -> CertificateFiles:
    """Put a server certificate in place that ends then, made by the coordinator's authority."""
    files = CertificateFiles.under(month.federation.coordinator / "tls")
    began = datetime.now(UTC) + ends - timedelta(days=60)
    issue_server_certificate(files, files.names(), days=60, now=began)
    return files


def logs_sealed(month: Month) -> None:
    """Audit logs are sealed and go on in new files."""
    month.federation.operator("audit", "rotate")
    month.federation.hospital("centre", "audit", "rotate")
    month.pass_rounds(BACK)


TIMETABLE = (
    Event(2, "north is killed", killed("north")),
    Event(8, "a study's process is killed", child_killed("study")),
    Event(14, "west's disk is full", disk_full("west")),
    Event(20, "south is revoked", revoked("south")),
    Event(28, "south returns by invitation", returned("south")),
    Event(35, "east's machine is lost", machine_lost("east")),
    Event(40, "east comes back on a new machine", recovered("east")),
    Event(48, "the coordinator is renamed", renamed("localhost")),
    Event(54, "the coordinator's disk is full", disk_full("coordinator")),
    Event(60, "the certificate ends soon, the coordinator is killed", certificate_ends),
    Event(68, "the certificate has expired", certificate_expired),
    Event(76, "logs are sealed", logs_sealed),
    Event(84, "the service is killed", child_killed("service")),
    Event(92, "west is killed", killed("west")),
)


def second_place(federation: Federation, site: str) -> Path:
    """A folder that outlives a hospital's machine."""
    return federation.root / f"second-place-of-{site}"


def keep_second_place(federation: Federation, site: str) -> None:
    """Let a hospital leave its certificates in its second place."""
    with (federation.site(site) / "site.toml").open("a") as settings:
        settings.write(f'[recovery]\nsecond_place = "{second_place(federation, site)}"\n')


def study_text(name: str) -> str:
    """One of the month's studies, of all hospitals."""
    made = tiny_study(rounds=ROUNDS, mode=STUDIES[name], epsilon=7.0, timeout=20.0)
    sites = json.dumps(list(HOSPITALS))
    return re.sub(r"^sites = .*$", f"sites = {sites}", made, flags=re.M).replace(
        'name = "tiny"', f'name = "{name}"'
    )


def begin(folder: Path, rounds: int, tell: Callable[[str], None]) -> Month:
    """Make the federation and start it."""
    write_records(folder / "records", patients=PATIENTS, seed=1, sites=len(HOSPITALS))
    federation = Federation(
        folder / "federation",
        folder / "records",
        sites={name: number for number, name in enumerate(HOSPITALS, start=1)},
    )
    federation.prepare(*(study_text(name) for name in STUDIES))
    month = Month(federation, rounds, tell)
    federation.start("coordinator")
    federation.wait_for(federation.is_serving, "the coordinator to serve", 30)
    for site in {event.what.split("'")[0] for event in TIMETABLE if "machine is lost" in event.what}:
        opened = SiteFolder.open(federation.site(site))
        second_place(federation, site).mkdir()
        keep_second_place(federation, site)
        code = opened.make_recovery_code()
        assert code is not None
        month.paper[site] = " ".join(code.words())
        assert leave_recovery(opened, open_audit(opened))
    for site in federation.sites:
        federation.start(site)
    return month


def run(folder: Path, rounds: int, tell: Callable[[str], None] = print) -> Month:
    """Live through the month; return what happened.

    Raises:
        AssertionError: something that is promised does not hold.
    """
    month = begin(folder, rounds, tell)
    federation = month.federation
    try:
        for event in TIMETABLE:
            month.reach(event.after)
            month.look_at_memory()
            assert all(map(month.runs, STUDIES)), f"the studies ended before {event.what}"
            live_through(month, event)
        month.reach(100)
        for study in STUDIES:
            if rounds < ROUNDS:
                federation.operator("stop", study)
            end = "stopped" if rounds < ROUNDS else "finished"
            federation.wait_for(
                lambda study=study, end=end: federation.state_of(study) == end, f"{study} {end}", 400
            )
        month.look_at_memory()
        told = federation.operator("status")
        for number in set(re.findall(r"(\d+) of \d+|round (\d+)", told)):
            assert all(int(one) <= ROUNDS for one in number if one), told
    except BaseException:
        for name in ("coordinator", *federation.sites):
            tell(f"--- {name}\n{federation.said(name)[-3000:]}")
        raise
    finally:
        federation.close()
    check(month)
    return month


def live_through(month: Month, event: Event) -> None:
    """Let an event happen and compare budgets before and after it."""
    before, began, clock = month.spent(), month.trained(next(iter(STUDIES))), time.monotonic()
    month.tell(f"{time.strftime('%H:%M:%S')}  round {began}: {event.what}")
    event.happen(month)
    after = month.spent()
    for site, spent in after.items():
        known = max([before.get(site, 0.0), *(h.after.get(site, 0.0) for h in month.happened)])
        assert spent >= known * (1 - 1e-9), f"{site} forgot: {known} before {event.what}, {spent} now"
    ended = month.trained(next(iter(STUDIES)))
    month.happened.append(
        Happened(event, began, ended, time.monotonic() - clock, before, after)
    )


def check(month: Month) -> None:
    """Compare all logs and ledgers, and count the rounds."""
    check_books(month.federation, lost=month.lost)
    federation = month.federation
    federation.operator("audit", "verify")
    for site in federation.sites:
        federation.hospital(site, "audit", "verify")
    for study in STUDIES:
        numbers = [record["round"] for record in federation.records_of(study)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a round is missing"
        assert month.trained(study) >= month.rounds


# The table.


def table(month: Month) -> str:
    """What happened, counted."""
    return "\n".join(
        (
            *_events(month), "", *_studies(month), "", *_releases(month), "", *_logs(month), "",
            *_memory(month),
        )
    )  # fmt: skip


def _events(month: Month) -> Iterator[str]:
    yield "event                                                 rounds       s   spent, before and after"
    for one in month.happened:
        moved = ", ".join(
            f"{site} {one.before.get(site, float('nan')):.2f}-{one.after.get(site, float('nan')):.2f}"
            for site in month.federation.sites
        )
        yield f"{one.event.what:<52} {one.began:>4}-{one.ended:<4} {one.seconds:>5.0f}   {moved}"


def _studies(month: Month) -> Iterator[str]:
    for study in STUDIES:
        records = month.federation.records_of(study)
        void = [record["void"] for record in records if record["void"] is not None]
        full = sum(len(record["sites"]) == len(HOSPITALS) for record in records)
        yield f"study {study}: {len(records)} rounds, {full} with all hospitals, {len(void)} void"


def _releases(month: Month) -> Iterator[str]:
    yield "site      charged in the ledger   released in the log   in the coordinator's rounds"
    closed = [e for e in events(month.federation.coordinator / "audit.jsonl") if isinstance(e, RoundClosed)]
    for site in month.federation.sites:
        folders = [month.federation.site(site), *(month.lost[s] for s in month.lost if s == site)]
        charged = sum(len(set((e.release.study_hash, e.release.round) for e in own_ledger(SiteFolder.open(f)).entries())) for f in folders)
        logged = sum(isinstance(e, Released) for f in folders for e in events(f / "audit.jsonl"))
        held = sum(site in event.survivors for event in closed)
        yield f"{site:<9} {charged:>21} {logged:>21} {held:>29}"


def _logs(month: Month) -> Iterator[str]:
    federation = month.federation
    rounds = sum(len(federation.records_of(study)) for study in STUDIES)
    for name in ("coordinator", *federation.sites):
        folder = federation.coordinator if name == "coordinator" else federation.site(name)
        files = [folder / "audit.jsonl", *segments(folder / "audit.jsonl")]
        audit = sum(file.stat().st_size for file in files)
        said = sum(file.stat().st_size for file in (folder / "logs").glob("*"))
        yield (
            f"{name:<12} audit log {audit / 1024:>7.0f} KiB, {audit / rounds:>6.0f} bytes a round; "
            f"logs/ {said / 1024:>6.0f} KiB"
        )


def _memory(month: Month) -> Iterator[str]:
    yield "process            rounds        MiB"
    for name, seen in month.memory.items():
        last = seen[-1][0]
        own = [(now, mib) for pid, now, mib in seen if pid == last]
        (began, first), (ended, end) = own[0], own[-1]
        yield f"{name:<16} {began:>4}-{ended:<4}  {first:>6.0f} {end:>6.0f}"


def main() -> None:
    """Live through a month and print what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"when it is over; {ROUNDS}")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        month = run(Path(folder), chosen.rounds, lambda line: print(line, flush=True))
        print(f"\n{table(month)}\n\n{(time.monotonic() - began) / 60:.1f} minutes")
    sys.exit(0)


if __name__ == "__main__":
    main()
