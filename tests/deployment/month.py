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
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.enroll import leave_recovery
from consilium.server.coordinator.certificates import CertificateFiles, issue_server_certificate
from consilium.shared.audit.events import Refused
from consilium.shared.audit.own_log import open_audit
from tests.deployment.federation import POLICY, Federation, tiny_study, write_records
from tests.deployment.ledgers import check_books, events
from tests.deployment.month_notices import LISTENERS, Notices, void_rounds
from tests.deployment.month_seen import Event, Month
from tests.deployment.month_table import table
from tests.notice_servers import web_server

HOSPITALS = ("north", "east", "south", "west", "centre", "coast")  # nothing befalls the last two
ROUNDS = 400
ENDLESS = 5000  # rounds of a study that the operator stops
STUDIES = {"wards": "site", "nights": "distributed"}  # by name: who adds the noise
JOINER = "hill"
PATIENTS = 40
LOST = "east"  # its machine
BACK = 2  # so many rounds of each study hold a site's update before it counts as back
LEAK_MIB = 64
FULL_S = 5.0
KNOCKS_S = 10.0  # so long a revoked site goes on asking


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
    """No file of a hospital, or of the coordinator, takes another byte for a while."""

    def happen(month: Month) -> None:
        federation = month.federation
        bound_files(federation, name, 1)
        if name == "coordinator":
            time.sleep(FULL_S)  # there are no rounds to wait for
        else:
            month.pass_rounds(BACK)
        bound_files(federation, name, None)
        month.pass_rounds(BACK, holding="" if name == "coordinator" else name)

    return happen


def bound_files(federation: Federation, name: str, largest: int | None) -> None:
    """Let no file of a process, or of its children, grow beyond a bound; None lifts it."""
    parent = federation.processes[name].pid
    _, hard = resource.prlimit(parent, resource.RLIMIT_FSIZE)
    bound = (hard if largest is None else largest, hard)
    resource.prlimit(parent, resource.RLIMIT_FSIZE, bound)
    for child in federation.descendants(name):  # listed after it can start none without the bound
        with suppress(ProcessLookupError):
            resource.prlimit(child, resource.RLIMIT_FSIZE, bound)


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
        for study in filter(month.runs, month.studies):
            federation.hospital(
                site, "approve", study, "--yes", "--patients", str(month.sizes[study])
            )
        federation.start(site)
        month.pass_rounds(BACK, holding=site)

    return happen


def joined(site: str) -> Callable[[Month], None]:
    """A hospital that nobody had joins both studies; the others agree by rule."""

    def happen(month: Month) -> None:
        federation = month.federation
        federation.sites = {**federation.sites, site: len(federation.sites) + 1}
        federation.make_site(site, federation.sites[site])
        federation.enrol(site)
        federation.vouch(site)
        federation.vouch(of=site)  # of a hospital whose machine was lost the others keep the first
        for study in filter(month.runs, month.studies):
            federation.operator("roster", study, "--join", site)
            federation.hospital(site, "approve", study, "--yes")
        federation.start(site)
        month.pass_rounds(BACK, holding=site)

    return happen


def renamed(name: str) -> Callable[[Month], None]:
    """The coordinator gets another name, and each hospital follows it."""

    def happen(month: Month) -> None:
        federation = month.federation
        began = federation.said("coordinator").count("listening on")
        federation.operator("rename", name)
        federation.wait_for(  # it starts again with a certificate for its new name
            lambda: federation.said("coordinator").count("listening on") > began, "a service", 60
        )
        for site in federation.sites:
            federation.hospital(site, "coordinator", name)
        first = next(iter(federation.sites))
        killed(first)(month)  # and comes back under the new name
        assert SiteFolder.open(federation.site(first)).enrolment().host == name

    return happen


def certificate_ends(month: Month) -> None:
    """The server's certificate ends in ten days; the coordinator renews it when it starts."""
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
    Event(35, f"{LOST}'s machine is lost", machine_lost(LOST)),
    Event(40, f"{LOST} comes back on a new machine", recovered(LOST)),
    Event(45, f"{JOINER} joins", joined(JOINER)),
    Event(50, "the coordinator is renamed", renamed("localhost")),
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


def study_text(name: str, rounds: int) -> str:
    """One of the month's studies, of all hospitals."""
    made = tiny_study(rounds=rounds, mode=STUDIES[name], epsilon=7.0, timeout=20.0)
    sites = json.dumps(list(HOSPITALS))
    return re.sub(r"^sites = .*$", f"sites = {sites}", made, flags=re.M).replace(
        'name = "tiny"', f'name = "{name}"'
    )


def prepare(month: Month) -> None:
    """Make the federation's folders; nothing runs yet."""
    federation, rounds = month.federation, ENDLESS if month.stops else month.rounds
    write_records(federation.records, patients=PATIENTS, seed=1, sites=len(HOSPITALS) + 1)
    federation.prepare(*(study_text(name, rounds) for name in STUDIES))
    month.notices.ask_for(federation)
    second_place(federation, LOST).mkdir()
    keep_second_place(federation, LOST)
    site = SiteFolder.open(federation.site(LOST))
    site.make_recovery_code(partial(month.write_down, LOST))


def run(folder: Path, rounds: int, tell: Callable[[str], None], *, stops: bool = False) -> Month:
    """Live through the month; return what happened.

    Args:
        folder: for all that it writes.
        rounds: training rounds of each study, to which the timetable refers.
        tell: takes a line for each event.
        stops: whether the studies go on until the operator stops them, after the last event.

    Raises:
        AssertionError: something that is promised does not hold.
    """
    federation = Federation(
        folder / "federation",
        folder / "records",
        sites={name: number for number, name in enumerate(HOSPITALS, start=1)},
        policy=f"{POLICY}[roster]\nmembers_by_rule = true\n",
    )
    studies = tuple(STUDIES)
    with web_server() as inbox:
        month = Month(federation, studies, rounds, stops, tell, Notices(inbox, studies))
        try:
            prepare(month)
            start(month)
            live(month)
        except BaseException:
            for name in ("coordinator", *federation.sites):
                tell(f"--- {name}\n{federation.said(name)[-3000:]}")
            raise
        finally:
            federation.close()
    check(month)
    return month


def start(month: Month) -> None:
    """Start all processes."""
    federation = month.federation
    federation.start("coordinator")
    federation.wait_for(federation.is_serving, "the coordinator to serve", 30)
    site = SiteFolder.open(federation.site(LOST))
    assert leave_recovery(site, open_audit(site))
    for name in federation.sites:
        federation.start(name)


def live(month: Month) -> None:
    """Let all events happen, the studies end, and the last notices arrive."""
    federation = month.federation
    for event in TIMETABLE:
        month.reach(event.after)
        month.look_at_memory()
        assert month.runs(month.studies[0]), f"over before {event.what}; it takes more rounds"
        month.live_through(event)
    month.reach(100)
    for study in month.studies if month.stops else ():
        federation.operator("stop", study)
    for study in month.studies:
        federation.wait_for(lambda study=study: not month.runs(study), f"{study}'s end", 400)
    month.look_at_memory()
    void = void_rounds(federation, month.studies)
    for name in LISTENERS:
        federation.wait_for(
            lambda name=name: month.notices.all_told(name, void), f"all to be told to {name}", 30
        )


def check(month: Month) -> None:
    """Compare all logs and ledgers, and count the rounds."""
    federation = month.federation
    check_books(federation, lost=month.lost)
    federation.operator("audit", "verify")
    for site in federation.sites:
        federation.hospital(site, "audit", "verify")
    for study in month.studies:
        numbers = [record["round"] for record in month.records(study)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a round is missing"
    for study in () if month.stops else federation.overview()["studies"]:
        assert (study["state"], study["last_round"]["trained"]) == ("finished", month.rounds)
    void = void_rounds(federation, month.studies)
    for name in LISTENERS:
        assert month.notices.all_told(name, void), f"{name} was told something twice"
        assert month.notices.kinds(name)["study-offered"] == 0  # all were approved before
    for name, (_, first, _, last) in month.memory_of_the_last().items():
        assert last - first < LEAK_MIB, f"{name} grew from {first} to {last} MiB"


def main() -> None:
    """Live through a month and print what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each study; {ROUNDS}")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        month = run(Path(folder), chosen.rounds, say)
        say(f"\n{table(month)}\n\n{(time.monotonic() - began) / 60:.1f} minutes")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
