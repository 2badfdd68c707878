"""Many site processes on one machine: memory and time a round, and whether memory grows.

    python benchmarks/many_sites.py [--sites 50] [--rounds 20]

One coordinator and its sites as processes on loopback, with TLS, node authentication, audit logs,
ledgers and the secure sum; a small model and few invented patients. Memory is the proportional set
size (PSS) of Linux: pages that processes share count once. The coordinator's is that of its three
processes together, after every round. Exits with 1 if a site missed a round or the coordinator grew
by more than `GROWTH_MIB` from the fifth round to the last.
"""

import argparse
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' federation of processes

from tests.deployment.federation import Federation, tiny_study, write_records

GROWTH_MIB = 10.0
SETTLED = 5  # rounds after which caches are warm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    names = [f"site{number:03}" for number in range(options.sites)]
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        write_records(records, patients=20, seed=1)
        units = {name: number % 4 + 1 for number, name in enumerate(names)}
        federation = Federation(Path(folder) / "federation", records, sites=units)
        text = tiny_study(rounds=options.rounds, mode="site", timeout=120.0)
        text = text.replace('["north", "east", "south", "west"]', str(names).replace("'", '"'))
        try:
            began = time.monotonic()
            coordinator, site = measure(federation, text)
        finally:
            federation.close()
        rounds = federation.records_of()
    seconds = [record["seconds"] for record in rounds if record["purpose"] == "training"]
    present = [len(record["sites"]) for record in rounds]
    settled, last = coordinator[min(SETTLED, len(coordinator) - 1)], coordinator[-1]
    took = time.monotonic() - began
    print(f"{options.sites} sites, {len(seconds)} training rounds; {took:.0f} s in all")
    print(f"sites in a round       {min(present)} to {max(present)}")
    print(f"a round                {median(seconds):.2f} s median, {max(seconds):.2f} s most")
    print(f"a site's memory        {median(site):.0f} MiB; together {sum(site) / 1024:.1f} GiB")
    print(f"coordinator's memory   {settled:.1f} MiB after round {SETTLED}")
    print(f"                       {last:.1f} MiB at the end, {max(coordinator):.1f} MiB most")
    well = min(present) == options.sites and last - settled <= GROWTH_MIB
    print(f"all sites in all rounds, growth under {GROWTH_MIB:.0f} MiB: {'yes' if well else 'NO'}")
    sys.exit(not well)


def measure(federation: Federation, text: str) -> tuple[list[float], list[float]]:
    """Run the study; return the coordinator's MiB after each round, and each site's at the end."""
    federation.prepare(text)
    federation.start("coordinator", "--patience", "600")
    for number, name in enumerate(federation.sites):
        federation.start(name)
        if number % 4 == 3:
            time.sleep(2)  # so that not all import PyTorch at once
    coordinator: list[float] = []
    site: list[float] = []
    deadline = time.monotonic() + 900
    while federation.state_of() != "finished":
        if time.monotonic() > deadline:
            raise TimeoutError(f"the study stands at {len(coordinator)} rounds")
        if len(federation.records_of()) > len(coordinator):
            supervisor = federation.processes["coordinator"].pid
            coordinator.append(sum(map(mebibytes, (supervisor, *federation.children().values()))))
            site = [mebibytes(federation.processes[name].pid) for name in federation.sites]
        time.sleep(0.05)
    return coordinator, site


def mebibytes(pid: int) -> float:
    """Return a process's proportional set size in MiB; 0 of one that ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
