"""Run the fast tests again and again, each time in another order, and count what fails.

    python tests/campaign.py --times 20

What a run printed is kept in the folder ``--out``, and each failing run's order can be repeated by
the seed that is shown: ``make test ORDER=--random-order-seed=SEED``. Arguments after ``--`` go to
pytest, so that one file can be run two hundred times.
"""

import argparse
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path


def run(seed: int, log: Path, more: list[str]) -> tuple[int, list[str], str]:
    """One run in the order of this seed: exit status, what failed, and pytest's last line."""
    command = [
        sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", "-m", "not slow",
        "--random-order", f"--random-order-seed={seed}", "-q", "-p", "no:cacheprovider", *more,
    ]  # fmt: skip  # options beside their values
    with log.open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    told = log.read_text(errors="replace")
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", told, flags=re.M)
    last = (told.splitlines() or [""])[-1]
    if " passed" not in last and " failed" not in last:
        last = f"it was ended before its end, with status {status}"
    return status, failed, last


def main() -> int:
    """Return 1 if any run failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/campaign"))
    parser.add_argument("more", nargs="*", help="for pytest, after --")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    wrong: dict[int, list[str]] = {}
    for number in range(1, asked.times + 1):
        seed, began = secrets.randbelow(1_000_000), time.monotonic()
        status, failed, last = run(seed, asked.out / f"{number}.log", asked.more)
        if status:
            wrong[seed] = failed or [last]
        load = os.getloadavg()[0]
        sys.stdout.write(
            f"{number} of {asked.times}: seed {seed}, {time.monotonic() - began:.0f} s, "
            f"load {load:.1f}: {last} {' '.join(failed)}\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"{len(wrong)} of {asked.times} runs failed\n")
    for seed, failed in wrong.items():
        sys.stdout.write(f"--random-order-seed={seed}: {' '.join(failed)}\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
