"""What a round adds over local training, beside Flower's own default path, in one run.

    python benchmarks/round_overhead.py [--rounds 20] [--flower-rounds 4]

Ours: one coordinator and four sites as processes on loopback, with TLS, node authentication, audit
logs, ledgers, and the secure sum; the time of a round is the one that the coordinator records. A
round trains one local step on few invented patients, which is not subtracted: so what a round adds
is at most this. Flower's: `rivals/flower_default.py`, with nothing trained or protected. Its
default path starts a process for every message, so much of its round is processes that import
PyTorch, as every client that trains does; a second line has clients that import nothing. What is
left there is the start of Python, Flower's own imports, and polling.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' federation of processes

from parts.table import add_row
from rivals.flower_default import seconds_a_round

from consilium.server.study.checkpoints import load_checkpoint
from consilium.shared.study.definition import parse_study
from tests.deployment.federation import SITES, Federation, tiny_study, write_records

HIDDEN = 150
TARGET_S = 1.0
RIVALS = {
    "default path": "import torch  # as every client that trains does",
    "default path without PyTorch": "",
}
"""By name, what Flower's clients import: they are started anew for every message."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--flower-rounds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size, rounds, phases = ours(Path(folder) / "ours", options.rounds)
        print(f"{len(SITES)} sites, {size} parameters, on loopback; seconds a round")
        print(f"{'':34}{'median':>8}{'least':>8}{'most':>8}{'rounds':>8}")
        _print_line("Consilium, one step included", rounds)
        for name, imports in RIVALS.items():
            (place := Path(folder) / name.replace(" ", "-")).mkdir()
            theirs = seconds_a_round(
                place, sites=len(SITES), size=size, rounds=options.flower_rounds, imports=imports
            )
            _print_line(f"Flower's {name}", theirs)
            print(f"  ratio of the medians {median(theirs) / median(rounds):.1f}")
            add_row(
                f"a round of {len(SITES)} sites as processes", median(rounds), unit="s",
                rival=median(theirs), beside=f"Flower's {name}",
            )  # fmt: skip
    print("Consilium's round, median of each part:")
    parts = {name: median(seconds) for name, seconds in phases.items()}
    parts["between exchanges"] = max(0.0, median(rounds) - sum(parts.values()))
    for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"  {name:32}{seconds:8.3f}  {seconds / median(rounds):4.0%}")
    verdict = "kept" if median(rounds) <= TARGET_S else "MISSED"
    print(f"target of {TARGET_S} s: {verdict}")
    sys.exit(verdict != "kept")


def _print_line(name: str, seconds: list[float]) -> None:
    print(
        f"{name:34}{median(seconds):8.3f}{min(seconds):8.3f}{max(seconds):8.3f}{len(seconds):8}",
        flush=True,
    )


def ours(folder: Path, rounds: int) -> tuple[int, list[float], dict[str, list[float]]]:
    """Return the number of parameters, seconds of each training round, and of its exchanges."""
    records = folder / "records"
    write_records(records, patients=30, seed=1)
    federation = Federation(folder / "federation", records)
    text = tiny_study(rounds=rounds, mode="site", hidden=HIDDEN)
    try:
        federation.prepare(text)
        for name in ("coordinator", *SITES):
            federation.start(name)
        federation.finish(60 + 10 * rounds)
    finally:
        federation.close()
    place = federation.coordinator / "studies" / parse_study(text).digest.hex()
    learned = load_checkpoint(place)
    assert learned is not None
    assert learned.state.server is not None
    trained = [r for r in federation.records_of() if r["purpose"] == "training" and not r["void"]]
    phases = {
        name: [record["phases"].get(name, 0.0) for record in trained]
        for name in {name for record in trained for name in record["phases"]}
    }
    size = learned.state.server.weights_D.size
    return size, [record["seconds"] for record in trained], phases


if __name__ == "__main__":
    main()
