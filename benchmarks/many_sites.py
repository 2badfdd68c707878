"""Many site processes on one machine: memory and time a round, and whether memory grows.

    python benchmarks/many_sites.py [--sites 50] [--rounds 20] [--large 1600]

One coordinator and its sites run as processes on loopback, with TLS, node authentication, audit
logs, ledgers and the secure sum; the model is small, the few patients are invented. Memory is the
proportional set size (PSS) of Linux: pages that processes share count once. The coordinator's
processes are added up after every round.

Then three studies of four sites run: with a small model, with ``--large`` hidden units, and with a
model half as large. Each coordinator process's peak memory (sampled twenty times a second) is taken
as a constant plus a number of copies of the model, both computed from the two larger models.

Exits with 1 if a site missed a round, the coordinator grew by more than `GROWTH_MIB` from the fifth
round to the last, or its processes together take `COPIES` copies or more. The copies are not judged
where the two larger models differ by less than `JUDGED_MIB`: a process's memory varies by a few MiB
from run to run, which is several copies of a small model.
"""

import argparse
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' federation of processes

from parts.table import add_row

from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import parameter_count
from consilium.shared.study.definition import parse_study
from consilium.shared.study.input_names import feature_names
from tests.deployment.federation import Federation, tiny_study, write_records

GROWTH_MIB = 10.0
COPIES = 3.0
JUDGED_MIB = 15.0  # the default models differ by 20
FEW = 4
SETTLED = 5  # rounds after which caches are warm


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The training rounds of one study, and memory in MiB."""

    seconds: list[float]
    present: list[int]
    coordinator: list[float]
    coordinator_most: float
    most: dict[str, float]
    site: list[float]
    model: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--large", type=int, default=1600, help="hidden units of the large model")
    options = parser.parse_args()
    began = time.monotonic()
    many = run(options.sites, options.rounds, hidden=4)
    took = time.monotonic() - began
    settled, last = many.coordinator[min(SETTLED, len(many.coordinator) - 1)], many.coordinator[-1]
    rounds, site = many.seconds, many.site
    print(f"{options.sites} sites, {len(rounds)} training rounds; {took:.0f} s in all")
    print(f"sites in a round       {min(many.present)} to {max(many.present)}")
    print(f"a round                {median(rounds):.2f} s median, {max(rounds):.2f} s most")
    print(f"a site's memory        {median(site):.0f} MiB; together {sum(site) / 1024:.1f} GiB")
    print(f"coordinator's memory   {settled:.1f} MiB after round {SETTLED}")
    print(f"                       {last:.1f} MiB at the end, {many.coordinator_most:.1f} MiB most")
    well = min(many.present) == options.sites and last - settled <= GROWTH_MIB
    print(f"all sites in all rounds, growth under {GROWTH_MIB:.0f} MiB: {'yes' if well else 'NO'}")
    small = run(FEW, SETTLED, hidden=4)
    large = run(FEW, SETTLED, hidden=options.large)
    half = run(FEW, SETTLED, hidden=round(options.large * 0.5**0.5))
    print(f"{FEW} sites; most memory in MiB with a model of")
    print(f"{'':16}{small.model:10.3f}{half.model:10.1f}{large.model:10.1f} MiB; copies, constant")
    together = 0.0
    for name in large.most:
        growth = large.most[name] - half.most[name]
        copies = growth / (large.model - half.model)
        constant = large.most[name] - copies * large.model
        together += copies
        print(f"{name:16}{small.most[name]:10.0f}{half.most[name]:10.0f}{large.most[name]:10.0f}"
              f"     {copies:6.1f}{constant:10.0f}")  # fmt: skip
    add_row(f"a round of {options.sites} sites as processes", median(rounds), unit="s")
    add_row("a site's memory in a study", median(site), unit="MiB")
    apart = large.model - half.model
    if apart < JUDGED_MIB:
        print(
            f"copies not judged: the larger models differ by {apart:.1f} MiB, and {JUDGED_MIB:.0f} "
            "are needed to see copies beside what memory varies by; take --large 1600"
        )
        sys.exit(not well)
    lean = together < COPIES
    print(f"together under {COPIES:.0f} copies: {'yes' if lean else 'NO'} ({together:.1f})")
    add_row("the coordinator's copies of the model", together, unit="copies", rival=COPIES,
            beside="our bound")  # fmt: skip
    sys.exit(not (well and lean))


def run(sites: int, rounds: int, *, hidden: int) -> Measured:
    """Run a study in processes of its own, and measure it."""
    names = [f"site{number:03}" for number in range(sites)]
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        write_records(records, patients=20, seed=1)
        units = {name: number % 4 + 1 for number, name in enumerate(names)}
        federation = Federation(Path(folder) / "federation", records, sites=units)
        text = tiny_study(rounds=rounds, mode="site", timeout=120.0, hidden=hidden)
        text = text.replace('["north", "east", "south", "west"]', str(names).replace("'", '"'))
        try:
            coordinator, together, most, site = watch(federation, text)
        finally:
            federation.close()
        training = [r for r in federation.records_of() if r["purpose"] == "training"]
    study = parse_study(text)
    model = build_model(study, len(feature_names(study)), study.seed)
    return Measured(
        seconds=[record["seconds"] for record in training],
        present=[len(record["sites"]) for record in training],
        coordinator=coordinator,
        coordinator_most=together,
        most=most,
        site=site,
        model=4 * parameter_count(model) / 2**20,
    )


def watch(
    federation: Federation, text: str
) -> tuple[list[float], float, dict[str, float], list[float]]:
    """Run the study and return memory in MiB.

    Returns:
        The coordinator's after each round, the peak of its processes together, the peak of each by
        name, and each site's.
    """
    federation.prepare(text)
    federation.start("coordinator", "--patience", "600")
    for number, name in enumerate(federation.sites):
        federation.start(name)
        if number % 4 == 3:
            time.sleep(2)  # so that not all import PyTorch at once
    coordinator: list[float] = []
    site: list[float] = []
    together, most = 0.0, dict.fromkeys(("supervisor", "service", "study"), 0.0)
    deadline = time.monotonic() + 900
    while federation.state_of() != "finished":
        if time.monotonic() > deadline:
            raise TimeoutError(f"the study stands at {len(coordinator)} rounds")
        supervisor = federation.processes["coordinator"].pid
        processes = {"supervisor": supervisor, **federation.children()}
        each = {name: mebibytes(pid) for name, pid in processes.items()}
        now = sum(each.values())
        together = max(together, now)
        most |= {name: max(most[name], here) for name, here in each.items()}
        if len(federation.records_of()) > len(coordinator):
            coordinator.append(now)
            site = [mebibytes(federation.processes[name].pid) for name in federation.sites]
        time.sleep(0.05)
    return coordinator, together, most, site


def mebibytes(pid: int) -> float:
    """Return a process's proportional set size in MiB; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
