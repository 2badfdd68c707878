"""Simulated rounds beside pfl-research and Flower on Ray: seconds a round, and peak memory.

    python benchmarks/simulation.py [--sites 8 50 200 1000] [--rounds N] [--times 3] [--mode site]

All train an LSTM of 15,649 parameters, one step a round on about five of a site's twenty patients,
with 24 time steps of 88 features. Ours runs with patient-level privacy and ledgers, its sums in the
clear (with ``--protocol`` the whole secure sum is measured too); the rivals run as their users
would, with no privacy. Each repetition is a process of its own; they take turns, and medians are
shown: of each run the median round after the first, of each system the median run. Memory is the
proportional set size of the process and all its children, sampled while it runs.

A rival that is not installed is skipped with a sentence. They are no dependency of this project:

    pip install --target FOLDER --no-deps pfl==0.6.0 multiprocess dill prv-accountant \
        dp-accounting==0.5.1 ray==2.55.1
    PYTHONPATH=FOLDER python benchmarks/simulation.py

Exits with 1 if at 200 sites or more a round takes over 1.5 times pfl's or a fifth of Flower's, or
at 1,000 sites 1.2 GiB or more.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
RIVALS = {"pfl": "pfl", "flower": "ray"}  # system: the package that it needs
SLOWER_THAN_PFL, FASTER_THAN_FLOWER, MEMORY_MIB = 1.5, 5.0, 1.2 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, nargs="+", default=[8, 50, 200, 1000])
    parser.add_argument("--rounds", type=int, help="by default 10, at 1,000 sites or more 4")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--mode", default="distributed", choices=["none", "site", "distributed"])
    parser.add_argument("--protocol", action="store_true", help="measure the secure sum too")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a child: SYSTEM SITES
    options = parser.parse_args()
    if options.one:
        seconds = run_one(options.one[0], int(options.one[1]), options.rounds, options.mode)
        print(json.dumps(seconds))
        return
    systems = ["ours", *(["protocol"] if options.protocol else [])]
    for system, package in RIVALS.items():
        if find_spec(package) is None:
            print(f"{system} is skipped: package {package} is not installed; see the script's head")
        else:
            systems.append(system)
    print(f"{'sites':>6}  {'system':9}{'s a round':>11}{'MiB':>8}{'ours / it':>11}")
    well = True
    for sites in options.sites:
        found: dict[str, list[tuple[float, float]]] = {system: [] for system in systems}
        for _ in range(options.times):
            for system in systems:
                found[system].append(measured(system, sites, options))
        ours = median(seconds for seconds, _ in found["ours"])
        for system, runs in found.items():
            took, memory = (median(column) for column in zip(*runs, strict=True))
            print(f"{sites:>6}  {system:9}{took:>11.3f}{memory:>8.0f}{ours / took:>11.2f}")
            if sites >= 200 and system in RIVALS:
                bound = SLOWER_THAN_PFL if system == "pfl" else 1 / FASTER_THAN_FLOWER
                well &= ours <= bound * took
            if sites >= 1000 and system == "ours":
                well &= memory < MEMORY_MIB
    print(f"within the bounds: {'yes' if well else 'NO'}")
    sys.exit(not well)


def measured(system: str, sites: int, options: argparse.Namespace) -> tuple[float, float]:
    """Run a system in a process of its own; return seconds a round and peak memory in MiB."""
    command = [sys.executable, __file__, "--one", system, str(sites)]
    rounds = options.rounds or (10 if sites < 1000 else 4)
    command += ["--rounds", str(rounds), "--mode", options.mode]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=out, stderr=errors)  # noqa: S603 - itself
        most = 0.0
        while child.poll() is None:
            most = max(most, sum(map(mebibytes, with_children(child.pid))))
            time.sleep(0.1)
        if child.returncode:
            errors.seek(0)
            sys.exit(f"{system} with {sites} sites ended with {child.returncode}\n{errors.read()}")
        out.seek(0)
        seconds = json.loads(out.read().splitlines()[-1])
    return median(seconds[1:]), most


def with_children(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def mebibytes(pid: int) -> float:
    """Return a process's proportional set size in MiB; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def run_one(system: str, sites: int, rounds: int, mode: str) -> list[float]:
    """Return the seconds of each training round of one system."""
    sys.path.insert(0, str(HERE))
    if system == "pfl":
        from rivals import pfl_simulation

        return pfl_simulation.run(sites, rounds)
    if system == "flower":
        from rivals import flower_simulation

        return flower_simulation.run(sites, rounds)
    return run_ours(sites, rounds, mode, protocol=system == "protocol")


def run_ours(sites: int, rounds: int, mode: str, *, protocol: bool) -> list[float]:
    """Return the seconds of each of our training rounds."""
    import os

    from parts.hospitals import Hospital, study_of

    from consilium.simulations.federation.run import Federation
    from consilium.simulations.federation.threads import one_thread_each
    from consilium.simulations.figures.held_out import HeldOut

    study = study_of(sites, rounds=rounds, mode=mode)
    sources = {site: Hospital(site, number) for number, site in enumerate(study.sites)}
    first = study.sites[0]
    test = HeldOut.read({first: sources[first]}, study)
    with tempfile.TemporaryDirectory() as folder, one_thread_each():
        federation = Federation(
            study,
            sources,
            Path(folder),
            workers=len(os.sched_getaffinity(0)),
            protocol=protocol,
        )
        history = federation.train(lambda _: None, test).history
    return [record["seconds"] for record in history if record["purpose"] == "training"]


if __name__ == "__main__":
    main()
